"""Which engine a task runs on, and with which options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_dbnd.core.definition import INHERITED, Definition
from airflow_provider_dbnd.core.settings import Settings, merged_options
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.engines.registry import LOCAL, engine_types
from airflow_provider_dbnd.exceptions import ConfigurationError, SignatureError


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A place to run a task: its name, its type, and the options of the type's operator."""

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def local(self) -> bool:
        """Whether the task runs in the process of its worker."""
        return self.type == LOCAL


def select_engine(definition: Definition, settings: Settings, name: str | None = None) -> Engine:
    """Return the engine of a task whose options, file ``[tasks.x]`` included, are in *definition*.

    Strongest first: *name*, the run's choice; the task's own ``engine``, in ``[tasks.x]`` or in
    code; ``engine`` of the environment or of the file; local.
    """
    options = definition.options
    chosen = str(name or options.get("engine") or settings.engine or LOCAL)
    table = settings.engines.get(chosen)
    if table is None and chosen != LOCAL and chosen not in engine_types():
        known = [LOCAL, *settings.engines, *engine_types()]
        raise ConfigurationError(
            f"task {definition.name!r}: unknown engine {chosen!r}{did_you_mean(chosen, known)} "
            f"Define it as [engines.{chosen}] in dbnd.toml, with its type."
        )
    type_ = str((table or {}).get("type", chosen if chosen in (LOCAL, *engine_types()) else ""))
    if type_ != LOCAL and type_ not in engine_types():
        known = [LOCAL, *engine_types()]
        raise ConfigurationError(
            f"[engines.{chosen}]: type is {type_ or 'missing'!r}{did_you_mean(type_, known)}"
        )
    if definition.kind == "sensor" and type_ != LOCAL:
        if name or "engine" in options:
            raise SignatureError(
                f"sensor {definition.name!r} cannot run on engine {chosen!r}: sensors run in the "
                "worker. Leave engine out."
            )
        return Engine(name=LOCAL, type=LOCAL)
    preset = {k: v for k, v in (table or {}).items() if k != "type"}
    own = (
        [options.get(LOCAL) or {}] if type_ == LOCAL else engine_types()[type_].options_for(options)
    )
    return Engine(name=chosen, type=type_, options=merged_options(preset, *own))


def without_engine_options(definition: Definition) -> Definition:
    """Return the definition with the options of Airflow's operators alone."""
    ours = {*INHERITED, *engine_types()}
    kept = {name: value for name, value in definition.options.items() if name not in ours}
    return replace(definition, options=kept)


@functools.cache
def options_of(class_: type) -> frozenset[str]:
    """Return the names of the options that an engine's operator takes."""
    return frozenset(
        name
        for each in class_.__mro__
        if "__init__" in vars(each) and each is not object
        for name in inspect.signature(vars(each)["__init__"]).parameters
        if name not in ("self", "args", "kwargs")
    )


def check_options(class_: type, engine: Engine) -> None:
    """Raise ConfigurationError for an option that the engine's operator does not take."""
    known = options_of(class_)
    for name in engine.options:
        if name not in known:
            raise ConfigurationError(
                f"engine {engine.name!r} ({engine.type}): unknown option {name!r}"
                f"{did_you_mean(name, known)}"
            )


def check_engine(class_: type, engine: Engine, task: str, others: Iterable[str] = ()) -> None:
    """Raise ConfigurationError where nothing sets an option without which the operator cannot be.

    :param others: names of options that are set elsewhere, as in a DAG's ``default_args``.
    """
    given = {*engine.options, *others}
    for names in getattr(class_, "required", ()):
        if given.isdisjoint(names):
            raise ConfigurationError(
                f"task {task!r}: engine {engine.name!r} ({engine.type}) needs {' or '.join(names)}, "
                f"got none. Set it in [engines.{engine.name}] of dbnd.toml."
            )
