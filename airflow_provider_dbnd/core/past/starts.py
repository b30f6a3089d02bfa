"""How each run of ``dbnd run`` was started, kept in the store so that it can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_dbnd.core.past.history import readable
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ParameterError,
)

#: Folder of the store that holds them: ``_starts/{pipeline}/{run}.json``.
STARTS = "_starts"

_FIELDS = ("target", "folder", "assignments", "environment", "parallel", "date", "reuse", "hidden")


def record_start(
    store: ArtifactStore, pipeline: str, run_id: str, started: Mapping[str, Any]
) -> None:
    """Keep how a run was started."""
    where = f"{key(STARTS, pipeline, run_id)}.json"
    store.put_bytes(where, json.dumps(started).encode(), overwrite=True)


def start_of(store: ArtifactStore, run_id: str, pipeline: str | None = None) -> dict[str, Any]:
    """Return how a run was started.

    :param pipeline: whose run; needed where several have one of this id.
    """
    where = _find(store, run_id, pipeline)
    data = store.get_bytes(where)
    try:
        document = json.loads(data)
        return {name: document[name] for name in _FIELDS}
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtifactCorruptedError(
            f"{store.uri(where)} cannot be read ({type(exc).__name__}: {exc}): start the pipeline anew."
        ) from exc


def run_of_start(name: str) -> tuple[str, str]:
    """Return the pipeline and the run that the object *name* tells of, as they are in keys."""
    pipeline, _, run = name.removesuffix(".json").rpartition("/")
    return pipeline.rpartition("/")[2], run


def _find(store: ArtifactStore, run_id: str, pipeline: str | None) -> str:
    known = {info.key: run_of_start(info.key) for info in store.list(STARTS)}
    if pipeline is not None:
        owners = {readable(owner) for owner, _ in known.values()}
        known = {name: run for name, run in known.items() if run[0] == key(pipeline)}
        if not known:
            raise ArtifactNotFoundError(
                f"store {store.url} has no local run of pipeline {pipeline!r}"
                f"{did_you_mean(pipeline, owners)}"
            )
    found = {name: readable(owner) for name, (owner, run) in known.items() if run == key(run_id)}
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise ParameterError(
            f"store {store.url} has a run {run_id!r} of each of {', '.join(sorted(found.values()))}: "
            "name one by --pipeline."
        )
    whose = "" if pipeline is None else f" of pipeline {pipeline!r}"
    runs = {readable(run) for _, run in known.values()}
    raise ArtifactNotFoundError(
        f"store {store.url} has no local run {run_id!r}{whose}{did_you_mean(run_id, runs)}"
    )
