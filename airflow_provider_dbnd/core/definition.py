"""What a decorator makes of a function: its signature and the options given with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from airflow_provider_dbnd.core.settings import merged_options
from airflow_provider_dbnd.core.signature import Signature, read_signature
from airflow_provider_dbnd.exceptions import SignatureError

#: Options of a pipeline that hold for the tasks it calls, unless they have their own.
INHERITED = ("engine", "reuse")

Kind = Literal["task", "sensor", "pipeline"]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A decorated function. ``options`` are arguments of the operator, DAG or group it becomes."""

    kind: Kind
    signature: Signature
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> Callable[..., Any]:
        """The function as it was written."""
        return self.signature.function

    def with_options(self, **options: Any) -> Definition:
        """Return a copy with *options* over the present ones; those that are tables are merged."""
        return replace(self, options=merged_options(self.options, options))

    def inheriting(self, options: Mapping[str, Any]) -> Definition:
        """Return a copy with *options* under the present ones."""
        return replace(self, options={**options, **self.options})

    def renamed(self, name: str) -> Definition:
        """Return a copy that makes nodes of another name."""
        return replace(self, name=name)


def define(
    kind: Kind,
    function: Callable[..., Any],
    declared: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Definition:
    """Read *function*; *declared* are parameter and output declarations by name."""
    signature = read_signature(function, declared)
    options = dict(options)
    name = str(options.pop("task_id", None) or signature.name)
    if kind == "sensor" and options.get("reuse"):
        raise SignatureError(
            f"sensor {name!r} asks whether something is there now, which no earlier answer tells. "
            "Leave reuse out."
        )
    return Definition(kind=kind, signature=signature, name=name, options=options)
