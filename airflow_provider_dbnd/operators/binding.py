"""What an operator knows of the call that made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.logical_date import dated
from airflow_provider_dbnd.core.masking import MASK
from airflow_provider_dbnd.core.settings import Settings
from airflow_provider_dbnd.core.standin import BuildParameter


@dataclass(kw_only=True)
class DagBinding:
    """What the tasks of one DAG share. ``parameters`` and ``known`` grow while the DAG is built.

    :param root: the pipeline whose bare parameter names the trigger form has; the DAG's id where a
        DAG was written by hand.
    :param known: parameter names by task, group and root; empty in a hand-written DAG, whose run
        configuration may hold what other operators read.
    """

    root: str
    settings: Settings
    parameters: dict[str, BuildParameter] = field(default_factory=dict)
    known: dict[str, list[str]] = field(default_factory=dict)
    declared: frozenset[str] = frozenset()
    form_defaults: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Binding:
    """One call: the definition, the arguments as they were given, the DAG it is in, its options.

    ``switch`` runs an attempt on another engine, which the run names.
    """

    definition: Definition
    arguments: Mapping[str, Any]
    dag: DagBinding
    mapped: Any = None
    engine: Any = None
    reuse: Any = None
    switch: Callable[..., Any] | None = None


class ParameterReference:
    """A pipeline's parameter in an operator's arguments; Airflow's templating resolves it."""

    def __init__(self, parameter: BuildParameter) -> None:
        self.parameter = parameter

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the value in this run, as the type of the pipeline's parameter."""
        from airflow_provider_dbnd.operators.run_time import parameter_value

        if self.parameter.hidden:
            return MASK
        value, date = parameter_value(self.parameter, context), context.get("logical_date")
        if value is None:
            return None
        typed = self.parameter.as_type(value).value
        # Without a date it is an error where a task takes it, which it may not.
        return dated(typed, Any, date.isoformat()) if date else typed

    def __str__(self) -> str:
        return f"{{{{ params.{self.parameter.key} }}}}"

    __repr__ = __str__


def make_callable(binding: Binding) -> Callable[..., Any]:
    """Return what Airflow takes for the task's function: its name and docs, and any argument.

    Airflow gives arguments named as context keys (``params``, ``ds``, ...) a meaning of its own, and
    fills arguments from ``default_args`` of the same name; a signature of keywords only has neither.
    """

    def call(**kwargs: Any) -> Any:
        return binding.definition.function(**kwargs)

    function = binding.definition.function
    call.__name__ = function.__name__
    call.__qualname__ = function.__qualname__
    call.__module__ = function.__module__
    call.__doc__ = function.__doc__
    call.binding = binding  # type: ignore[attr-defined]
    return call
