"""``dbnd resume``: go on with a local run from where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_dbnd.core.store import ArtifactStore, key
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ConfigurationError,
)

#: Folder of the store that holds how each local run was started.
STARTS = "_starts"


def record_start(store: ArtifactStore, run_id: str, started: Mapping[str, Any]) -> None:
    """Keep how a run was started, so that it can be gone on with."""
    document = {**started, "folder": os.getcwd()}
    store.put_bytes(key(STARTS, f"{run_id}.json"), json.dumps(document).encode(), overwrite=True)


def resume(run_id: str, *, store_url: str | None, assignments: Sequence[str]) -> int:
    """Run what a run did not finish, with the parameters it had; return the exit code."""
    from airflow_provider_dbnd.cli.run import run
    from airflow_provider_dbnd.core.settings import load_settings

    settings = load_settings(os.getcwd())
    store = ArtifactStore(store_url or settings.store, storage_options=settings.storage_options)
    started = _start(store, run_id)
    if not os.path.isdir(started["folder"]):
        raise ConfigurationError(
            f"run {run_id!r} was started in {started['folder']}, which is not there. Resume it on the "
            "machine that started it."
        )
    os.chdir(started["folder"])
    if store_url is not None:
        os.environ["DBND_STORE"] = store.url
    return run(
        started["target"],
        assignments=[*started["assignments"], *assignments],
        environment=started["environment"],
        parallel=started["parallel"],
        date=started["date"],
        run_id=run_id,
        reuse=started["reuse"],
        resumes=True,
    )


def _start(store: ArtifactStore, run_id: str) -> dict[str, Any]:
    where = key(STARTS, f"{run_id}.json")
    try:
        data = store.get_bytes(where)
    except ArtifactNotFoundError as exc:
        known = [i.key.rpartition("/")[2].removesuffix(".json") for i in store.list(STARTS)]
        raise ArtifactNotFoundError(
            f"store {store.url} has no local run {run_id!r}{did_you_mean(run_id, known)}"
        ) from exc
    try:
        document: dict[str, Any] = json.loads(data)
        document["target"], document["folder"], document["assignments"]
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtifactCorruptedError(
            f"{store.uri(where)} cannot be read ({exc}): start the pipeline anew."
        ) from exc
    return document
