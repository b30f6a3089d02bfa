"""``@task``: a typed function that is a task wherever it is called."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from airflow_provider_dbnd.core.definition import Definition, Kind, define
from airflow_provider_dbnd.core.parameters import Output, Parameter
from airflow_provider_dbnd.decorators.calls import call_mapped, call_task
from airflow_provider_dbnd.exceptions import SignatureError

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A decorated function.

    Called while a graph is built it makes a node; inside a running task or in plain Python it runs.
    """

    #: Airflow's own name for "this is a decorated task" (``@task.branch`` and others look for it).
    _airflow_is_task_decorator = True

    def __init__(self, definition: Definition, bound: Mapping[str, Any] | None = None) -> None:
        self.definition = definition
        self._bound = dict(bound or {})
        functools.update_wrapper(self, definition.function)

    @property
    def function(self) -> Callable[P, R]:
        """The function as it was written."""
        return self.definition.function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, or add it to the graph under construction."""
        result: R = call_task(self.definition, args, dict(kwargs), self._bound)
        return result

    def partial(self, **arguments: Any) -> Task[P, R]:
        """Return the task with some arguments set, to ``expand`` over others."""
        twice = sorted(self._bound.keys() & arguments.keys())
        if twice:
            raise SignatureError(
                f"{self.definition.name}.partial(): argument {twice[0]!r} is already set."
            )
        self.definition.signature.bind((), arguments, partial=True)
        return type(self)(self.definition, {**self._bound, **arguments})

    def expand(self, **lists: Any) -> Any:
        """Run once for each element of a list, known now or made by another task.

        With several lists it runs for each combination, as in Airflow.
        """
        if not lists:
            raise SignatureError(
                f"{self.definition.name}.expand() needs a list to go over, e.g. expand(x=[1, 2])."
            )
        self._unset("expand", lists)

        def rows() -> Any:
            return (
                dict(zip(lists, row, strict=True)) for row in itertools.product(*lists.values())
            )

        return call_mapped(self.definition, lists, self._bound, rows)

    def expand_kwargs(self, rows: Any) -> Any:
        """Run once for each dict of arguments in a list."""
        return call_mapped(self.definition, rows, self._bound, lambda: rows)

    def override(self, **options: Any) -> Task[P, R]:
        """Return the task with other operator options: ``override(task_id="f_eu", retries=3)``."""
        name = options.pop("task_id", self.definition.name)
        return type(self)(self.definition.with_options(**options).renamed(name), self._bound)

    def _unset(self, method: str, names: Mapping[str, Any]) -> None:
        twice = sorted(self._bound.keys() & names.keys())
        if twice:
            raise SignatureError(
                f"{self.definition.name}.{method}(): argument {twice[0]!r} is already set by "
                "partial()."
            )

    def __repr__(self) -> str:
        return f"<{self.definition.kind} {self.definition.name}>"


def declarations(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the decorator's keywords into declarations of parameters and outputs, and options."""
    declared = {
        k: v for k, v in options.items() if k == "result" or isinstance(v, Parameter | Output)
    }
    return declared, {k: v for k, v in options.items() if k not in declared}


def make_task(kind: Kind, function: Callable[P, R], options: Mapping[str, Any]) -> Task[P, R]:
    """Decorate *function*."""
    declared, rest = declarations(options)
    return Task(define(kind, function, declared, rest))


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Any = None, /, **options: Any) -> Any:
    """Make a typed function a task.

    :param options: ``name=parameter(...)`` and ``name=output(...)`` declare what annotations cannot
        say; ``result="a,b"`` names outputs; every other keyword is an argument of the Airflow
        operator (``retries``, ``pool``, ``queue``, ``trigger_rule``, ...), ``task_id`` its name.

    >>> @task
    ... def double(n: int = 1) -> int:
    ...     return 2 * n
    >>> double(4)
    8
    """
    if function is None:
        return lambda decorated: make_task("task", decorated, options)
    return make_task("task", function, options)
