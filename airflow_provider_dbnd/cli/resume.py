"""``dbnd resume``: go on with a local run from where it stopped."""

from __future__ import annotations

import os
from collections.abc import Sequence

from airflow_provider_dbnd.cli.past import open_store
from airflow_provider_dbnd.cli.run import run
from airflow_provider_dbnd.core.past.starts import start_of
from airflow_provider_dbnd.exceptions import ConfigurationError


def resume(
    run_id: str, *, pipeline: str | None, store: str | None, assignments: Sequence[str]
) -> int:
    """Run what a run did not finish, with the parameters it had; return the exit code."""
    started = start_of(open_store(store, None, airflow=False), run_id, pipeline)
    if not os.path.isdir(started["folder"]):
        raise ConfigurationError(
            f"run {run_id!r} was started in {started['folder']}, which is not there. Resume it on the "
            "machine that started it."
        )
    os.chdir(started["folder"])
    return run(
        started["target"],
        assignments=[*started["assignments"], *assignments],
        environment=started["environment"],
        parallel=started["parallel"],
        date=started["date"],
        run_id=run_id,
        reuse=started["reuse"],
        store=store,
        resumed=started,
    )
