"""Handles on results in a DAG: XComArgs that unpack, and give each consumer what it can use."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.graph import Handle
from airflow_provider_dbnd.core.parameters import Parameter
from airflow_provider_dbnd.core.references import references
from airflow_provider_dbnd.core.scratch import process_folder
from airflow_provider_dbnd.core.values import Decoder, part_of
from airflow_provider_dbnd.hooks.settings import artifact_store

#: Set on operators that load references themselves; every other operator is given the data.
TAKES_REFERENCES = "takes_artifact_references"


@attrs.define(eq=False)
class TaskResult(Handle, PlainXComArg):
    """The result of one of our tasks, as Airflow's XComArg."""

    definition: Definition = attrs.field(kw_only=True)
    path: tuple[Any, ...] = attrs.field(kw_only=True, default=())

    @property
    def _definition(self) -> Definition:  # type: ignore[override]
        return self.definition

    @property
    def _mapped(self) -> bool:  # type: ignore[override]
        return bool(self.operator.is_mapped)

    @property
    def _path(self) -> tuple[Any, ...]:  # type: ignore[override]
        return self.path

    def _child(self, path: tuple[Any, ...]) -> TaskResult:
        split = self.definition.signature.shape in ("tuple", "record")
        return TaskResult(
            self.operator,
            str(path[0]) if split else self.key,
            definition=self.definition,
            path=path,
        )

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return references for our operators and the data for others."""
        encoded = self._pull(context)
        task = context["task"]
        if _takes_references(task):
            return encoded
        if not any(references(encoded)):
            return self._whole(encoded)
        if _loads_in_call(task):
            return _Deferred.into(task, encoded, self._whole)
        return self._whole(_load(encoded))

    def _whole(self, value: Any) -> Any:
        """Put a result of several outputs together as the function returned it."""
        whole = self._names() and value is not None
        return self.definition.signature.join(value) if whole else value

    def _pull(self, context: Mapping[str, Any]) -> Any:
        names = self._names()
        if names:
            # Each output is an XCom of its own; the whole result is put together again here.
            outputs = {name: PlainXComArg(self.operator, name).resolve(context) for name in names}
            return part_of(outputs, self.definition.signature, ())
        pulled = PlainXComArg(self.operator, self.key).resolve(context)
        if self._mapped:
            # A slice is one call; iterating the lazy sequence is one an element and logs a 404 at its end.
            return [self._part(each) for each in pulled[:]]
        return self._part(pulled)

    def _part(self, pulled: Any) -> Any:
        signature = self.definition.signature
        if signature.shape == "single":
            return part_of({signature.outputs[0].name: pulled}, signature, self.path)
        return part_of({self.key: pulled}, signature, self.path) if self.path else pulled


def _takes_references(task: Any) -> bool:
    # While a mapped task is expanded, the task in the context is Airflow's MappedOperator.
    return getattr(getattr(task, "operator_class", task), TAKES_REFERENCES, False)


def _load(encoded: Any) -> Any:
    decoder = Decoder(store=artifact_store(), scratch=process_folder())
    return decoder.load(encoded, "native", Any, Parameter(), "")


def _loads_in_call(task: Any) -> bool:
    """Tell whether *task* calls a Python function in this process, with its arguments as they are."""
    from airflow.providers.standard.operators.python import (
        PythonOperator,
        _BasePythonVirtualenvOperator,
    )

    return isinstance(task, PythonOperator) and not isinstance(task, _BasePythonVirtualenvOperator)


class _Deferred:
    """A reference in the arguments of a native Python task.

    Airflow stores the rendered arguments before the task starts. So they keep the reference, and the
    data is loaded in the call itself.
    """

    def __init__(self, encoded: Any, whole: Callable[[Any], Any]) -> None:
        self.encoded, self._whole = encoded, whole

    def load(self) -> Any:
        """Return the data."""
        return self._whole(_load(self.encoded))

    def serialize(self) -> Any:
        """Airflow 3.2+ shows what this returns as the rendered argument."""
        return self.encoded

    def __str__(self) -> str:
        return str(self.encoded)

    __repr__ = __str__

    @classmethod
    def into(cls, task: Any, encoded: Any, whole: Callable[[Any], Any]) -> _Deferred:
        if not getattr(task.python_callable, "_dbnd_loads", False):
            task.python_callable = _loading(task.python_callable)
        return cls(encoded, whole)


def _loading(function: Callable[..., Any]) -> Callable[..., Any]:
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


def _undefer(value: Any) -> Any:
    if isinstance(value, _Deferred):
        return value.load()
    if type(value) in (list, tuple):
        return type(value)(_undefer(v) for v in value)
    if type(value) is dict:
        return {k: _undefer(v) for k, v in value.items()}
    return value
