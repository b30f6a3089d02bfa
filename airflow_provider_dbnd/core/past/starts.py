"""How each run of ``dbnd run`` was started, kept in the store so that it can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_dbnd.core.storage.store import ArtifactStore, key
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, ArtifactNotFoundError

#: Folder of the store that holds them, by the run's id.
STARTS = "_starts"

_FIELDS = ("target", "folder", "assignments", "environment", "parallel", "date", "reuse")


def record_start(store: ArtifactStore, run_id: str, started: Mapping[str, Any]) -> None:
    """Keep how a run was started."""
    store.put_bytes(key(STARTS, f"{run_id}.json"), json.dumps(started).encode(), overwrite=True)


def start_of(store: ArtifactStore, run_id: str) -> dict[str, Any]:
    """Return how a run was started."""
    where = key(STARTS, f"{run_id}.json")
    try:
        data = store.get_bytes(where)
    except ArtifactNotFoundError as exc:
        known = [run_of_start(info.key) for info in store.list(STARTS)]
        raise ArtifactNotFoundError(
            f"store {store.url} has no local run {run_id!r}{did_you_mean(run_id, known)}"
        ) from exc
    try:
        document = json.loads(data)
        return {name: document[name] for name in _FIELDS}
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtifactCorruptedError(
            f"{store.uri(where)} cannot be read ({type(exc).__name__}: {exc}): start the pipeline anew."
        ) from exc


def run_of_start(name: str) -> str:
    """Return the id of the run that the object *name* tells of, as it is in keys."""
    return name.rpartition("/")[2].removesuffix(".json")
