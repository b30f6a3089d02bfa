"""Hidden values that a task is mapped over: Airflow is given a mark of each, which names its place.

Airflow keeps what is mapped over in its database. The values stay in the code that made the call,
which each attempt parses anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.graph import Handle, walk
from airflow_provider_dbnd.core.masking import MASK
from airflow_provider_dbnd.core.standin import BuildParameter


def marked(definition: Definition, mapped: Any) -> Any:
    """Return what Airflow maps over for ``Call.mapped``."""
    if isinstance(mapped, Mapping):
        return {name: _marked_list(definition, name, value) for name, value in mapped.items()}
    if not isinstance(mapped, list | tuple):
        return mapped
    return [_marked_row(definition, index, row) for index, row in enumerate(mapped)]


def unmarked(definition: Definition, mapped: Any, name: str, given: Any) -> Any:
    """Return the value of argument *name*: *given*, or what it is the mark of."""
    if mapped is None or not isinstance(given, str):
        return given
    values = _elements(mapped.get(name)) if isinstance(mapped, Mapping) else _column(mapped, name)
    marks = {_mark(i): each for i, each in enumerate(values) if _is_marked(definition, name, each)}
    return marks.get(given, given)


def _marked_list(definition: Definition, name: str, value: Any) -> Any:
    if not isinstance(value, list | tuple | Mapping):
        return value
    elements = _elements(value)
    if not any(_is_marked(definition, name, each) for each in elements):
        return value
    return [_mark(i) if _is_marked(definition, name, e) else e for i, e in enumerate(elements)]


def _marked_row(definition: Definition, index: int, row: Any) -> Any:
    if not isinstance(row, Mapping):
        return row
    return {
        name: _mark(index) if _is_marked(definition, name, value) else value
        for name, value in row.items()
    }


def _column(rows: Any, name: str) -> list[Any]:
    return [row.get(name) if isinstance(row, Mapping) else None for row in _elements(rows)]


def _elements(value: Any) -> list[Any]:
    """Return what is mapped over where that is known already; the items of a dict, as Airflow does."""
    if isinstance(value, Mapping):
        return [list(item) for item in value.items()]
    return list(value) if isinstance(value, list | tuple) else []


def _mark(index: int) -> str:
    return f"{MASK}[{index}]"


def _is_marked(definition: Definition, name: str, value: Any) -> bool:
    """Tell whether Airflow is given a mark: of what is hidden, and is not the result of a task."""
    leaves = list(walk(value))
    if any(isinstance(leaf, Handle) for leaf in leaves):
        return False
    hidden = definition.signature.inputs[name].declaration.hidden
    return hidden or any(isinstance(leaf, BuildParameter) and leaf.hidden for leaf in leaves)
