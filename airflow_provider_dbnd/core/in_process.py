"""Run a task in this process, and keep the code it ran where the settings ask for that."""

from __future__ import annotations

import logging

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, execute
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.remote.job import Place, send
from airflow_provider_dbnd.core.settings import Settings
from airflow_provider_dbnd.exceptions import DbndError

_HERE = Place(engine="local", type="local", shares_disk=True, code="project")

log = logging.getLogger("airflow_provider_dbnd")


def execute_in_process(spec: TaskSpec, definition: Definition, settings: Settings) -> Manifest:
    """Run one attempt here and return its manifest."""
    if settings.bundle.get("record"):
        try:
            send(spec, definition, settings, _HERE)
        except DbndError as exc:
            # The task itself lacks nothing: it is --recorded-code that will.
            log.warning("the code of this task was not recorded: %s", exc)
    return execute(spec, definition)
