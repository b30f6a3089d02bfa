"""``dbnd gc``: what a clean-up would take, and taking it."""

from __future__ import annotations

from airflow_provider_dbnd.cli.past import print_json
from airflow_provider_dbnd.cli.tables import print_rows
from airflow_provider_dbnd.core.gc import Policy, Report, collect
from airflow_provider_dbnd.core.gc.report import Tally
from airflow_provider_dbnd.core.past.history import readable
from airflow_provider_dbnd.core.storage.store import ArtifactStore


def clean_up(store: ArtifactStore, policy: Policy, *, delete: bool, as_json: bool) -> int:
    """Print what *policy* lets go, by pipeline and task; delete it if *delete* says so."""
    report = collect(store, policy, delete=delete)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report, policy)
    return 0


def _print(report: Report, policy: Policy) -> None:
    print(f"store {report.store}")
    print(f"runs: {report.runs_live} live, {report.runs_dead} dead")
    if policy.keeps_all():
        print("No rule lets runs go: give --keep-last or --keep-days, or set [gc] in dbnd.toml.")
    rows = [["pipeline", "task", "goes", "", "stays", ""]]
    for pipeline, task in sorted({*report.dead, *report.live}):
        dead = report.dead.get((pipeline, task), Tally())
        live = report.live.get((pipeline, task), Tally())
        rows.append([readable(pipeline), readable(task), *_cells(dead), *_cells(live)])
    rows += [[kind, "", *_cells(tally), "", ""] for kind, tally in sorted(report.other.items())]
    if len(rows) > 1:
        print_rows(rows, "  ")
    total, young = report.total, report.young
    if young.objects:
        print(f"too young to go: {young.objects} objects, {young.bytes:,} bytes")
    if report.spared:
        print(f"wanted or gone meanwhile: {report.spared}")
    did = "deleted" if report.delete else "would delete"
    print(f"{did} {total.objects} objects, {total.bytes:,} bytes")
    if not report.delete and total.objects:
        print("Nothing was deleted: give --delete.")


def _cells(tally: Tally) -> list[str]:
    return [str(tally.objects), f"{tally.bytes:,} bytes"]
