"""``@sensor``: a function that is asked again until it is satisfied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from airflow_provider_dbnd.decorators.task import Task, make_task

P = ParamSpec("P")
R = TypeVar("R")


@overload
def sensor(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def sensor(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def sensor(function: Any = None, /, **options: Any) -> Any:
    """Make a function a sensor: it is satisfied by any result but None and False, and passes it on.

    :param options: as for ``task``, and Airflow's sensor arguments: ``poke_interval`` and
        ``timeout`` (seconds), ``mode`` ("reschedule" unless given, so that a waiting sensor holds
        no worker).

    >>> import os
    >>> @sensor(poke_interval=30)
    ... def arrived(path: str) -> bool:
    ...     return os.path.exists(path)
    >>> arrived("/nowhere")
    False
    """
    if function is None:
        return lambda decorated: make_task("sensor", decorated, options)
    return make_task("sensor", function, options)
