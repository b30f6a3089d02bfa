"""The types of engines, and what installs each. Other packages add theirs by entry point."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ConfigurationError, MissingDependencyError

#: Entry-point group: ``name = "package.module:ROW"``, an :class:`EngineType` of that name.
ENTRY_POINTS = "airflow_provider_dbnd.engines"

#: The engine that needs no operator of its own: the task runs in the process of its worker.
LOCAL = "local"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineType:
    """A kind of place where tasks run.

    :param operator: ``module:class`` of a :class:`~.remote.RemoteTask`.
    :param install: what to install where an import fails.
    :param spark: ``module:function`` that says a task's options for ``spark`` in this type's words,
        if it runs Spark as well.
    """

    name: str
    operator: str
    install: str
    spark: str | None = None

    def options_for(self, options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the layers of a task's *options* that say something to this type, weakest first."""
        own = options.get(self.name) or {}
        if self.spark is None or not options.get("spark"):
            return [own]
        return [_loaded(self.spark)(options["spark"]), own]


def _row(
    name: str, operator: str, extra: str | None = None, spark: str | None = None
) -> EngineType:
    install = f"pip install 'airflow-provider-dbnd[{extra or name}]'"
    return EngineType(
        name=name,
        operator=f"{__package__}.{operator}",
        install=install,
        spark=f"{__package__}.{spark}" if spark else None,
    )


_BUILT_IN = (
    _row("docker", "docker:DockerTask"),
    _row("kubernetes", "kubernetes:KubernetesTask"),
    _row("spark", "spark:SparkTask"),
    _row("livy", "livy:LivyTask", spark="spark_options:for_livy"),
    _row("emr", "emr:EmrTask"),
    _row("emr_serverless", "emr_serverless:EmrServerlessTask", "emr"),
    _row("dataproc", "dataproc:DataprocTask"),
    _row("databricks", "databricks:DatabricksTask"),
)


@functools.cache
def engine_types() -> dict[str, EngineType]:
    """Return every type of engine that is installed, by name."""
    rows = {row.name: row for row in _BUILT_IN}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        row = point.load()
        if not isinstance(row, EngineType):
            raise ConfigurationError(
                f"entry point {point.name!r} of {ENTRY_POINTS} is {row!r}: expected an EngineType."
            )
        rows[row.name] = row
    return rows


def engine_type(name: str) -> EngineType:
    """Return one type of engine."""
    types = engine_types()
    if name not in types:
        raise ConfigurationError(
            f"unknown type of engine {name!r}{did_you_mean(name, [LOCAL, *types])}"
        )
    return types[name]


def operator_class(name: str) -> Any:
    """Return the operator of a type of engine, importing its provider."""
    row = engine_type(name)
    try:
        return _loaded(row.operator)
    except ImportError as exc:
        raise MissingDependencyError(
            f"engine type {name!r} needs a library that is not installed ({exc}): {row.install}"
        ) from exc


def _loaded(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
