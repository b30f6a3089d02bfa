"""Which value a parameter has in a run, and where that value comes from.

The order is :data:`PRECEDENCE`, highest first. Keys are ``param`` for the run's root and
``task.param`` for a task.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_dbnd.core.conversion import convert, none_of_word, type_text
from airflow_provider_dbnd.core.files import files_in_text
from airflow_provider_dbnd.core.masking import MASK, texts_of
from airflow_provider_dbnd.core.parameters import MISSING, Parameter
from airflow_provider_dbnd.core.settings import Layer, Settings
from airflow_provider_dbnd.core.signature import Input, Signature
from airflow_provider_dbnd.core.suggestions import closest, did_you_mean
from airflow_provider_dbnd.exceptions import ParameterError

VARIABLE_PREFIX = "DBND__"

log = logging.getLogger("airflow_provider_dbnd")


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A parameter's value with its source; relative paths in it start from ``base``.

    A ``hidden`` value stays masked wherever it goes, also as the argument of another task.
    """

    value: Any
    source: str
    base: str
    hidden: bool = False

    def shown(self, limit: int = 200) -> str:
        """Return the value for people: cut, and masked where it is hidden."""
        return MASK if self.hidden else shown(self.value, limit)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """Everything a value can come from, besides the call and the default."""

    settings: Settings
    root: str
    run_time: tuple[Layer, ...] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One parameter to find a value for. ``given`` is the call's argument or MISSING."""

    task: str
    spec: Input
    given: Any
    sources: Sources


def keys(task: str, name: str, sources: Sources) -> tuple[str, ...]:
    """Return the keys that address one parameter: the root's also by its bare name."""
    return (f"{task}.{name}", name) if task == sources.root else (f"{task}.{name}",)


def from_run_time(wanted: Wanted) -> Value | None:
    """``--set``, the trigger form, ``dag_run.conf``, ``tasks test -t``."""
    return _from_layers(wanted.sources.run_time, wanted)


def from_call(wanted: Wanted) -> Value | None:
    """The argument in the code that calls the task or pipeline."""
    if wanted.given is MISSING:
        return None
    return Value(value=wanted.given, source="call", base=wanted.sources.settings.base)


def from_environment(wanted: Wanted) -> Value | None:
    """``DBND__TASK__PARAM``."""
    variable = environment_variable(wanted.task, wanted.spec.name)
    if variable not in wanted.sources.environ:
        return None
    value = none_of_word(wanted.sources.environ[variable], wanted.spec.annotation)
    return Value(value=value, source=f"environment variable {variable}", base=os.getcwd())


def from_settings(wanted: Wanted) -> Value | None:
    """``dbnd.toml``: the environment's table over the base."""
    return _from_layers(wanted.sources.settings.parameters, wanted)


def from_default(wanted: Wanted) -> Value | None:
    """The default in the signature."""
    spec = wanted.spec
    if spec.default is MISSING:
        return None
    base = spec.folder or wanted.sources.settings.base
    return Value(value=spec.default, source="default", base=base)


#: The one order of parameter sources, highest first.
PRECEDENCE: tuple[Callable[[Wanted], Value | None], ...] = (
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
    wanted = Wanted(task=task, spec=spec, given=given, sources=sources)
    found = next((v for lookup in PRECEDENCE if (v := lookup(wanted)) is not None), None)
    if found is None:
        return None
    value = files_in_text(found.value, spec.annotation)
    return as_declared(spec, replace(found, value=value))


def as_declared(spec: Input, value: Value) -> Value:
    """Return *value*, hidden where the parameter that takes it is."""
    return replace(value, hidden=True) if spec.declaration.hidden else value


#: What can be set of every task besides its own parameters, in the same order of sources: the
#: engine it runs on, and whether a stored result may stand for it.
ENGINE, REUSE = "engine", "reuse"


def wanted(name: str, task: str, signature: Signature, sources: Sources) -> str | None:
    """Return what the run, the environment or a file says of ENGINE or REUSE for *task*.

    REUSE may be said of the root as well, for every task.
    """
    spec = Input(
        name=name,
        annotation=str,
        default=MISSING,
        declaration=Parameter(),
        kind=inspect.Parameter.KEYWORD_ONLY,
    )
    if name in signature.inputs:
        return None  # it is the task's own parameter
    value = resolve(task, spec, MISSING, sources)
    if value is None and name == REUSE:
        value = resolve(sources.root, spec, MISSING, sources)
    return None if value is None else str(value.value)


def names_of(signature: Signature) -> list[str]:
    """Return what can be set of a task: its parameters, its engine and its reuse."""
    return list(dict.fromkeys((*signature.inputs, ENGINE, REUSE)))


def missing(task: str, spec: Input, sources: Sources, *, kind: str = "task") -> ParameterError:
    """The error for a required parameter that no source gives."""
    key = keys(task, spec.name, sources)[-1]
    return ParameterError(
        f"parameter {spec.name!r} of {kind} {task!r} has no value: expected "
        f"{type_text(spec.annotation)}. Pass it in the call, set it by --set {key}=..., {environment_variable(task, spec.name)} "
        f"or {key!r} in [parameters] of dbnd.toml, or give it a default."
    )


def converted(task: str, spec: Input, value: Value, *, kind: str = "task") -> Any:
    """Return the value as the parameter's type, or raise an error that says what is wrong."""
    try:
        return convert(value.value, spec.annotation, spec.declaration)
    except ValueError as exc:
        # pydantic's own error shows the value.
        raise misfit(task, spec, value, str(exc), kind=kind) from (None if value.hidden else exc)


def hidden_texts(task: str, spec: Input, value: Value) -> list[str]:
    """Return the texts that no output may show: of a hidden value, as it is given and as its type."""
    if not value.hidden:
        return []
    try:
        texts = texts_of(converted(task, spec, value))
    except ParameterError:  # told by who runs the task; data is loaded there
        texts = []
    return [*texts_of(value.value), *texts]


def misfit(
    task: str, spec: Input, value: Value, reason: str, *, kind: str = "task"
) -> ParameterError:
    """The error for a value that does not fit: task, parameter, expected, got, source."""
    why = "" if value.hidden else f" {reason.rstrip('.')}."
    return ParameterError(
        f"parameter {spec.name!r} of {kind} {task!r}: expected {type_text(spec.annotation)}, "
        f"got {value.shown()} (from {value.source}).{why}"
    )


def shown(value: Any, limit: int = 200) -> str:
    """Return ``repr(value)`` for people: cut, and never the content of a data object."""
    library = type(value).__module__.partition(".")[0]
    if library in ("pandas", "polars", "pyarrow", "numpy", "pyspark"):
        return f"a {library}.{type(value).__qualname__}"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def environment_variable(task: str, name: str) -> str:
    """Return the variable that sets a parameter.

    >>> environment_variable("eu.train", "n_trees")
    'DBND__EU_TRAIN__N_TREES'
    """
    return f"{VARIABLE_PREFIX}{_upper(task)}__{_upper(name)}"


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
                raise _unknown(key, addressed, layer.source)
    for layer in sources.settings.parameters:
        for key in _unaddressed(layer.values, addressed):
            task, dot, _ = key.rpartition(".")
            if not dot or task in known:
                raise _unknown(key, addressed, layer.source)
            _warn_of_slip(task, known, f"[parameters.{task}] (from {layer.source})")
    for task in sorted(sources.settings.tasks.keys() - known.keys()):
        _warn_of_slip(task, known, f"[tasks.{task}] (from {sources.settings.file})")
    _check_environment(sources, known)


def _unknown(key: str, addressed: Iterable[str], source: str) -> ParameterError:
    return ParameterError(
        f"unknown parameter {key!r} (from {source}){did_you_mean(key, addressed)}"
    )


def _unaddressed(values: Mapping[str, Any], addressed: set[str]) -> Iterator[str]:
    """Yield the keys that mean no parameter; tables are there as a whole and by their leaves."""
    for key, value in values.items():
        parts = key.split(".")
        above = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        if not isinstance(value, Mapping) and addressed.isdisjoint(above):
            yield key


def _check_environment(sources: Sources, known: Mapping[str, Iterable[str]]) -> None:
    variables = {
        environment_variable(task, name) for task, names in known.items() for name in names
    }
    tasks = {_upper(task) for task in known}
    for variable in sources.environ:
        if not variable.startswith(VARIABLE_PREFIX) or variable in variables:
            continue
        task = variable.removeprefix(VARIABLE_PREFIX).partition("__")[0]
        if variable.startswith(tuple(f"{VARIABLE_PREFIX}{each}__" for each in tasks)):
            raise ParameterError(
                f"unknown parameter in environment variable {variable}"
                f"{did_you_mean(variable, variables)}"
            )
        _warn_of_slip(task, tasks, f"environment variable {variable}")


def _warn_of_slip(task: str, known: Collection[str], where: str) -> None:
    """Tell of a key that passes, but looks like a misspelt task of this run."""
    close = closest(task, known, cutoff=0.8)
    if close is not None:
        log.warning("%s is of no task in this run; did you mean %r?", where, close)


def _from_layers(layers: Iterable[Layer], wanted: Wanted) -> Value | None:
    for layer in layers:
        for key in keys(wanted.task, wanted.spec.name, wanted.sources):
            if key in layer.values:
                value = layer.values[key]
                if not layer.has_null:
                    value = none_of_word(value, wanted.spec.annotation)
                return Value(value=value, source=layer.source, base=layer.base)
    return None


def _upper(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()
