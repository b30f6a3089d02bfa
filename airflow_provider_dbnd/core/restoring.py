"""From what a task's result travelled as to the value the function returned."""

from __future__ import annotations

import functools
import typing
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.conversion import (
    convert,
    elements_of,
    record_fields,
    type_text,
    values_of,
    without_none,
)
from airflow_provider_dbnd.core.graph import Handle
from airflow_provider_dbnd.core.parameters import Parameter
from airflow_provider_dbnd.core.values import Decoder
from airflow_provider_dbnd.exceptions import ParameterError


def restored(handle: Handle, encoded: Any, decoder: Decoder, *, part: tuple[Any, ...] = ()) -> Any:
    """Return the value of *handle*, loaded, and of the types that its function declares.

    :param part: *encoded* is the part of the value that is at this path.
    """
    signature = handle._definition.signature
    if part:
        within = part[1:] if handle._mapped else part
        return _value(
            handle, encoded, functools.reduce(_part, within, _annotation(handle)), decoder
        )
    if handle._names():
        if encoded is None:
            return None
        names = list(encoded) if isinstance(encoded, dict) else range(len(encoded))
        values = {
            name: _value(handle, encoded[name], slot.annotation, decoder)
            for name, slot in zip(names, signature.outputs, strict=True)
        }
        return signature.join(values if isinstance(encoded, dict) else values.values())
    annotation = _annotation(handle)
    if handle._mapped and isinstance(encoded, list):
        return [_value(handle, each, annotation, decoder) for each in encoded]
    return _value(handle, encoded, annotation, decoder)


def _value(handle: Handle, encoded: Any, annotation: Any, decoder: Decoder) -> Any:
    task = handle._definition.name
    loaded = decoder.load(encoded, task, annotation, Parameter(), "")
    if loaded is None or formats.is_data_type(annotation):
        return loaded
    try:
        return convert(loaded, annotation, Parameter())
    except ValueError as exc:
        raise ParameterError(
            f"the result of task {task!r} is annotated as {type_text(annotation)}, and is a "
            f"{type(loaded).__qualname__}: {exc}. Correct the annotation or what is returned."
        ) from exc


def _annotation(handle: Handle) -> Any:
    """Return the type of one instance's result, or of the part of it that *handle* stands for."""
    signature = handle._definition.signature
    path = list(handle._path)
    annotation = signature.returns
    if path and signature.shape in ("tuple", "record"):
        name = path.pop(0)
        annotation = next((s.annotation for s in signature.outputs if s.name == name), Any)
    return functools.reduce(_part, path, annotation)


def _part(annotation: Any, part: Any) -> Any:
    """Return the type of ``value[part]``.

    >>> _part(dict[str, int], "a"), _part(list[int], -1), _part(tuple[int, str, bool], 1)
    (<class 'int'>, <class 'int'>, <class 'str'>)
    """
    plain = without_none(annotation)
    origin, arms = typing.get_origin(plain), typing.get_args(plain)
    if origin is tuple and arms and Ellipsis not in arms:
        return dict(enumerate(arms)).get(part % len(arms), Any) if isinstance(part, int) else Any
    if origin is dict:
        return values_of(plain)
    return record_fields(plain).get(part, elements_of(plain, 1)[0])
