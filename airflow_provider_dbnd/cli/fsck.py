"""``dbnd fsck``: whether a store keeps what its manifests promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from airflow_provider_dbnd.cli.past import print_json
from airflow_provider_dbnd.core.manifest import RUNS
from airflow_provider_dbnd.core.past.fsck import check
from airflow_provider_dbnd.core.past.tags import TAGS
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError


def check_store(store: ArtifactStore, *, full: bool, as_json: bool) -> int:
    """Print what is wrong and what lies about; return 1 where a promise is not kept."""
    if as_json:
        findings = list(check(store, full=full))
        _expect_something(store, len(findings))
        print_json([asdict(each) for each in findings])
        return int(any(each.level == "problem" for each in findings))
    counts: Counter[str] = Counter()
    for each in check(store, full=full):
        counts[each.level] += 1
        print(f"{each.level}: {each.kind}: {each.where}: {each.text}")
        print(f"    {each.remedy}")
    _expect_something(store, counts.total())
    print(f"{store.url}: {counts['problem']} problems, {counts['note']} notes")
    return int(counts["problem"] > 0)


def _expect_something(store: ArtifactStore, findings: int) -> None:
    """A store whose name is misspelt keeps every promise."""
    if findings or any(True for folder in (RUNS, TAGS) for _ in store.list(folder)):
        return
    raise ArtifactNotFoundError(
        f"{store.url} is no store with runs: expected manifests in {RUNS}, found none. Check the URL, "
        "which is from --store, DBND_STORE or dbnd.toml; a new store has some after its first run."
    )
