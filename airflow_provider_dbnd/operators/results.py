"""Handles on results in a DAG: XComArgs that unpack, and give each consumer what it can use."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import attrs
from airflow.sdk import BaseOperator
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.graph import IN_TEXT, Handle, not_known, walk
from airflow_provider_dbnd.core.references import references
from airflow_provider_dbnd.core.restoring import restored
from airflow_provider_dbnd.core.scratch import process_folder
from airflow_provider_dbnd.core.values import Decoder, part_of
from airflow_provider_dbnd.hooks.settings import artifact_store
from airflow_provider_dbnd.operators.deferring import (
    deferred,
    deferred_elements,
    loading,
    loads_in_call,
)

#: Set on operators that load references themselves; every other operator is given the data.
TAKES_REFERENCES = "takes_artifact_references"

#: What ``PlainXComArg.__str__`` writes.
_TEXT = re.compile(
    r"\{\{ task_instance\.xcom_pull\(task_ids='([^']+)', dag_id='[^']*', key='[^']*'\) \}\}"
)


# Airflow 3.1 keeps the ``repr`` of arguments in the database: Airflow's own is the same on each parse.
@attrs.define(eq=False, repr=False)
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

    def __bool__(self) -> bool:
        return _asked_by_airflow() or super().__bool__()

    def __eq__(self, other: object) -> bool:
        return self is other if _asked_by_airflow() else super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return self is not other if _asked_by_airflow() else super().__ne__(other)

    def __hash__(self) -> int:  # type: ignore[override]  # Airflow's has none
        return super().__hash__()

    def __str__(self) -> str:
        # The text of a native operator's template; `refuse_texts` keeps it out of our tasks.
        if self._slot() is None and not _asked_by_airflow():
            raise self._unknown(
                "only a whole output of it can be in a template. Take the part inside a task."
            )
        return PlainXComArg.__str__(self)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

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
        if not any(references(encoded)) or not loads_in_call(task):
            return self._load(encoded)
        if task.is_mapped and isinstance(encoded, list | dict):
            return deferred_elements(task, encoded, self._load)
        return deferred(task, encoded, self._load)

    def map(self, f: Callable[[Any], Any]) -> Any:
        """Map *f* over the elements, as Airflow does; it is given the data."""
        return super().map(loading(f))

    def _load(self, encoded: Any, part: tuple[Any, ...] = ()) -> Any:
        decoder = Decoder(store=artifact_store(), scratch=process_folder())
        return restored(self, encoded, decoder, part=part)

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


def refuse_texts(value: Any) -> None:
    """Raise GraphError for a text made of one of our results: a task would get its reference."""
    dag: Any = DagContext.get_current()
    for leaf in walk(value):
        for task_id in _TEXT.findall(leaf) if isinstance(leaf, str) else ():
            task = dag.task_dict.get(task_id)
            if _takes_references(task):
                name = task.python_callable.binding.definition.name
                raise not_known(name, IN_TEXT)


def _asked_by_airflow() -> bool:
    """Tell whether Airflow's code, or that of an operator being made, looks at a result.

    They ask any argument whether it is empty or a default. What the user's code asks while it
    builds the graph, it asks of the data.
    """
    asking = sys._getframe(2)
    frame: FrameType | None = asking
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.partition(".")[0] == "airflow":
            return frame is asking or name == BaseOperator.__module__
        frame = frame.f_back
    return False


def _takes_references(task: Any) -> bool:
    # While a mapped task is expanded, the task in the context is Airflow's MappedOperator.
    return getattr(getattr(task, "operator_class", task), TAKES_REFERENCES, False)
