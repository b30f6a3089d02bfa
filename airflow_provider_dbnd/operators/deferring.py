"""Data for native Python tasks, loaded in the call.

Airflow stores the rendered arguments of a task before it starts. So they keep references, and the
task's function loads what they stand for when it is called.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.graph import with_leaves
from airflow_provider_dbnd.core.references import references

#: Loads an encoded value: a whole result, or the part of it that is at the path given.
Load = Callable[[Any, tuple[Any, ...]], Any]


def loads_in_call(task: Any) -> bool:
    """Tell whether *task* calls a Python function in this process, with its arguments as they are."""
    from airflow.providers.standard.operators.python import (
        PythonOperator,
        _BasePythonVirtualenvOperator,
    )

    kind = getattr(task, "operator_class", type(task))
    return issubclass(kind, PythonOperator) and not issubclass(kind, _BasePythonVirtualenvOperator)


def deferred(task: Any, encoded: Any, load: Load) -> Deferred:
    """Return what *task*'s function replaces by the data of *encoded*."""
    _have_loaded(task)
    return Deferred(encoded, load, ())


def deferred_elements(task: Any, encoded: Any, load: Load) -> Any:
    """Return what a mapped task is expanded over: each instance loads its own element."""
    _have_loaded(task)
    # Where Airflow takes elements apart, as keyword arguments, they stay the containers they are.
    by_parts = not hasattr(task, "op_kwargs_expand_input") or _by_keywords(task)

    def element(value: Any, part: tuple[Any, ...]) -> Any:
        if not any(references(value)):
            return load(value, part)
        if by_parts and not is_reference(value):
            return _each(value, part, element)
        return Deferred(value, load, part)

    return _each(encoded, (), element)


def loading(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return *function* with what is deferred in its arguments loaded first."""

    def arguments(args: Any, kwargs: Any) -> tuple[Any, Any]:
        return [_undefer(a) for a in args], {k: _undefer(v) for k, v in kwargs.items()}

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = await asyncio.to_thread(arguments, args, kwargs)
            return await function(*args, **kwargs)
    else:

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = arguments(args, kwargs)
            return function(*args, **kwargs)

    call._dbnd_loads = True  # type: ignore[attr-defined]
    return call


class Deferred:
    """A reference in the arguments of a native Python task."""

    def __init__(self, encoded: Any, load: Load, part: tuple[Any, ...]) -> None:
        self.encoded, self._load, self._part = encoded, load, part

    def load(self) -> Any:
        """Return the data."""
        return self._load(self.encoded, self._part)

    def serialize(self) -> Any:
        """Airflow 3.2+ shows what this returns as the rendered argument."""
        return self.encoded

    def __str__(self) -> str:
        return str(self.encoded)

    __repr__ = __str__


def _by_keywords(task: Any) -> bool:
    from airflow.sdk.definitions._internal.expandinput import ListOfDictsExpandInput

    return isinstance(task.op_kwargs_expand_input, ListOfDictsExpandInput)


def _each(value: Any, part: tuple[Any, ...], change: Callable[[Any, tuple[Any, ...]], Any]) -> Any:
    if isinstance(value, dict):
        return {name: change(each, (*part, name)) for name, each in value.items()}
    return [change(each, (*part, number)) for number, each in enumerate(value)]


def _have_loaded(task: Any) -> None:
    # A mapped task's function is an attribute with @task, and an argument with PythonOperator.
    options = getattr(task, "partial_kwargs", {})
    function = options.get("python_callable") or task.python_callable
    if getattr(function, "_dbnd_loads", False):
        return
    if "python_callable" in options:
        options["python_callable"] = loading(function)
    else:
        task.python_callable = loading(function)


def _undefer(value: Any) -> Any:
    return with_leaves(value, lambda leaf: leaf.load() if isinstance(leaf, Deferred) else leaf)
