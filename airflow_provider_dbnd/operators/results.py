"""Handles on results in a DAG: XComArgs that unpack, and give each consumer what it can use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.graph import Handle
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


def _takes_references(task: Any) -> bool:
    # While a mapped task is expanded, the task in the context is Airflow's MappedOperator.
    return getattr(getattr(task, "operator_class", task), TAKES_REFERENCES, False)
