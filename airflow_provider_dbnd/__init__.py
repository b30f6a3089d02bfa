"""Typed Python functions become Airflow 3 tasks, with parameters, artifacts and tracking."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_dbnd.core.artifacts import Artifact
    from airflow_provider_dbnd.core.attempt import log_duration, log_metric, log_metrics
    from airflow_provider_dbnd.core.gc.sweep import clean_up
    from airflow_provider_dbnd.core.parameters import LOGICAL_DATE, output, parameter
    from airflow_provider_dbnd.core.past.fsck import check_store
    from airflow_provider_dbnd.core.past.lookup import load
    from airflow_provider_dbnd.core.past.runs import Run, latest_successful
    from airflow_provider_dbnd.core.reuse.policy import Reuse
    from airflow_provider_dbnd.decorators.pipeline import pipeline
    from airflow_provider_dbnd.decorators.sensor import sensor
    from airflow_provider_dbnd.decorators.spark_job import spark_job
    from airflow_provider_dbnd.decorators.task import task

__version__ = "0.1.0"

__all__ = [
    "LOGICAL_DATE",
    "Artifact",
    "Reuse",
    "Run",
    "check_store",
    "clean_up",
    "latest_successful",
    "load",
    "log_duration",
    "log_metric",
    "log_metrics",
    "output",
    "parameter",
    "pipeline",
    "sensor",
    "spark_job",
    "task",
]

# Airflow imports this module in every process to read provider metadata: names load when asked for.
_HOMES = {
    "LOGICAL_DATE": "core.parameters",
    "Artifact": "core.artifacts",
    "Reuse": "core.reuse.policy",
    "Run": "core.past.runs",
    "check_store": "core.past.fsck",
    "clean_up": "core.gc.sweep",
    "latest_successful": "core.past.runs",
    "load": "core.past.lookup",
    "log_duration": "core.attempt",
    "log_metric": "core.attempt",
    "log_metrics": "core.attempt",
    "output": "core.parameters",
    "parameter": "core.parameters",
    "pipeline": "decorators.pipeline",
    "sensor": "decorators.sensor",
    "spark_job": "decorators.spark_job",
    "task": "decorators.task",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
