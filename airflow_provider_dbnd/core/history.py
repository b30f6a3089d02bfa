"""What past runs left in the store: their manifests, found by identity alone."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_dbnd.core.manifest import RUNS, Manifest, read_manifest
from airflow_provider_dbnd.core.store import ArtifactStore, key
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError

#: Prefix of the ids of runs that test one task: they hold no results of other tasks.
TEST_RUN = "test__"


def newest_run(store: ArtifactStore, pipeline: str) -> str:
    """Return the id of the run of *pipeline* that wrote a manifest last; tests do not count."""
    tests = key(RUNS, pipeline, TEST_RUN)
    manifests = [i for i in store.list(key(RUNS, pipeline)) if not i.key.startswith(tests)]
    if not manifests:
        raise ArtifactNotFoundError(
            f"Store {store.url} has no run of {pipeline!r}. Run it once, or name another store "
            "by DBND_STORE."
        )
    newest = max(manifests, key=lambda info: info.mtime)
    return read_manifest(store, newest.key).identity.run_id


def last_attempts(store: ArtifactStore, pipeline: str, run_id: str, task_id: str) -> list[Manifest]:
    """Return the last attempt of each instance of a task in a run, in map order."""
    prefix = key(RUNS, pipeline, run_id, task_id)
    found: dict[int, Manifest] = {}
    for info in store.list(prefix):
        manifest = read_manifest(store, info.key)
        known = found.get(manifest.identity.map_index)
        if known is None or known.identity.try_number < manifest.identity.try_number:
            found[manifest.identity.map_index] = manifest
    if not found:
        known_tasks = sorted(
            {info.key.split("/")[3] for info in store.list(key(RUNS, pipeline, run_id))}
        )
        raise ArtifactNotFoundError(
            f"Run {run_id!r} of {pipeline!r} has no manifest of task {task_id!r} in {store.url}"
            f"{did_you_mean(task_id, known_tasks)}"
        )
    return [found[index] for index in sorted(found)]


def attempts_of_run(store: ArtifactStore, pipeline: str, run_id: str) -> Iterator[Manifest]:
    """Yield every manifest of a run, read one at a time."""
    for info in store.list(key(RUNS, pipeline, run_id)):
        yield read_manifest(store, info.key)
