"""Which value a parameter has in a run, and where that value comes from.

The order is :data:`PRECEDENCE`, highest first. Keys are ``param`` for the run's root and
``task.param`` for a task.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core.conversion import convert, type_text
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.settings import Layer, Settings
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ParameterError

MASK = "***"


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A parameter's value with its source; relative paths in it start from ``base``."""

    value: Any
    source: str
    base: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """Everything a value can come from, besides the call and the default."""

    settings: Settings
    root: str
    run_time: tuple[Layer, ...] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


Lookup = Callable[[str, str, Any, Input, Sources], "Value | None"]


def keys(task: str, name: str, sources: Sources) -> tuple[str, ...]:
    """Return the keys that address one parameter: the root's also by its bare name."""
    return (f"{task}.{name}", name) if task == sources.root else (f"{task}.{name}",)


def from_run_time(task: str, name: str, given: Any, spec: Input, sources: Sources) -> Value | None:
    """``--set``, the trigger form, ``dag_run.conf``, ``tasks test -t``."""
    return _from_layers(sources.run_time, keys(task, name, sources))


def from_call(task: str, name: str, given: Any, spec: Input, sources: Sources) -> Value | None:
    """The argument in the code that calls the task or pipeline."""
    return (
        None if given is MISSING else Value(value=given, source="call", base=sources.settings.base)
    )


def from_environment(
    task: str, name: str, given: Any, spec: Input, sources: Sources
) -> Value | None:
    """``DBND__TASK__PARAM``."""
    variable = environment_variable(task, name)
    if variable not in sources.environ:
        return None
    return Value(
        value=sources.environ[variable], source=f"environment variable {variable}", base=os.getcwd()
    )


def from_settings(task: str, name: str, given: Any, spec: Input, sources: Sources) -> Value | None:
    """``dbnd.toml``: the environment's table over the base."""
    return _from_layers(sources.settings.parameters, keys(task, name, sources))


def from_default(task: str, name: str, given: Any, spec: Input, sources: Sources) -> Value | None:
    """The default in the signature."""
    if spec.default is MISSING:
        return None
    return Value(value=spec.default, source="default", base=sources.settings.base)


#: The one order of parameter sources, highest first.
PRECEDENCE: tuple[Lookup, ...] = (
    from_run_time,
    from_call,
    from_environment,
    from_settings,
    from_default,
)


def resolve(task: str, spec: Input, given: Any, sources: Sources) -> Value | None:
    """Return the value of parameter *spec* of *task*, or None where nothing gives one.

    *given* is the call's argument or :data:`MISSING`.
    """
    found = (lookup(task, spec.name, given, spec, sources) for lookup in PRECEDENCE)
    return next((value for value in found if value is not None), None)


def missing(task: str, spec: Input, sources: Sources) -> ParameterError:
    """The error for a required parameter that no source gives."""
    key = keys(task, spec.name, sources)[-1]
    return ParameterError(
        f"parameter {spec.name!r} of task {task!r} has no value: expected {type_text(spec.annotation)}. "
        f"Pass it in the call, or set it by --set {key}=..., {environment_variable(task, spec.name)}, "
        f"or {key!r} in [parameters] of dbnd.toml."
    )


def converted(task: str, spec: Input, value: Value) -> Any:
    """Return the value as the parameter's type, or raise an error that says what is wrong with it."""
    try:
        return convert(value.value, spec.annotation, spec.declaration)
    except ValueError as exc:
        raise misfit(task, spec, value, str(exc)) from exc


def misfit(task: str, spec: Input, value: Value, reason: str) -> ParameterError:
    """The error for a value that does not fit: task, parameter, expected, got, source."""
    got = MASK if spec.declaration.hidden else shown(value.value)
    why = "" if spec.declaration.hidden else f" {reason}."
    return ParameterError(
        f"parameter {spec.name!r} of task {task!r}: expected {type_text(spec.annotation)}, got {got} "
        f"(from {value.source}).{why}"
    )


def shown(value: Any, limit: int = 200) -> str:
    """Return ``repr(value)`` for an error or a table: cut, and never the content of a data object."""
    if type(value).__module__.partition(".")[0] in (
        "pandas",
        "polars",
        "pyarrow",
        "numpy",
        "pyspark",
    ):
        return f"a {type(value).__module__.partition('.')[0]}.{type(value).__qualname__}"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def environment_variable(task: str, name: str) -> str:
    """Return the variable that sets a parameter.

    >>> environment_variable("eu.train", "n_trees")
    'DBND__EU_TRAIN__N_TREES'
    """
    return f"DBND__{_upper(task)}__{_upper(name)}"


def check_keys(sources: Sources, known: Mapping[str, Iterable[str]]) -> None:
    """Raise ParameterError for a key that addresses nothing.

    *known* maps each task of the run to its parameter names. Keys of tasks that are not part of
    this run may belong to another pipeline of the project: in files and environment they pass.
    """
    addressed = {
        key for task, names in known.items() for name in names for key in keys(task, name, sources)
    }
    for layer in sources.run_time:
        for key in layer.values:
            if key not in addressed:
                raise ParameterError(
                    f"unknown parameter {key!r} (from {layer.source}){did_you_mean(key, addressed)}"
                )
    for layer in sources.settings.parameters:
        for key in layer.values:
            task, dot, _ = key.rpartition(".")
            if key not in addressed and (not dot or task in known):
                raise ParameterError(
                    f"unknown parameter {key!r} (from {layer.source}){did_you_mean(key, addressed)}"
                )
    _check_environment(sources, known)


def _check_environment(sources: Sources, known: Mapping[str, Iterable[str]]) -> None:
    variables = {
        environment_variable(task, name) for task, names in known.items() for name in names
    }
    prefixes = tuple(f"DBND__{_upper(task)}__" for task in known)
    for variable in sources.environ:
        if variable.startswith(prefixes) and variable not in variables:
            raise ParameterError(
                f"unknown parameter in variable {variable}{did_you_mean(variable, variables)}"
            )


def _from_layers(layers: Iterable[Layer], wanted: tuple[str, ...]) -> Value | None:
    for layer in layers:
        for key in wanted:
            if key in layer.values:
                return Value(value=layer.values[key], source=layer.source, base=layer.base)
    return None


def _upper(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()
