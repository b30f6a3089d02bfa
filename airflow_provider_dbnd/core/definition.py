"""What a decorator makes of a function: its signature and the options given with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from airflow_provider_dbnd.core.signature import Signature, read_signature

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
        return self.signature.function

    def with_options(self, **options: Any) -> Definition:
        """Return a copy with *options* over the present ones."""
        return replace(self, options={**self.options, **options})


def define(
    kind: Kind,
    function: Callable[..., Any],
    declared: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Definition:
    """Read *function*; *declared* are parameter and output declarations by name."""
    options = dict(options)
    name = options.pop("task_id", None) or getattr(function, "__name__", "")
    return Definition(
        kind=kind, signature=read_signature(function, declared), name=name, options=options
    )
