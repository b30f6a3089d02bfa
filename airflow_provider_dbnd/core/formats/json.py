"""JSON, by pydantic: plain values, models, dataclasses, enums, dates, decimals, sets and so on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.conversion import summary
from airflow_provider_dbnd.core.digest import bytes_digest
from airflow_provider_dbnd.core.formats.annotations import type_name
from airflow_provider_dbnd.core.formats.base import (
    Format,
    Written,
    file_written,
    reject_unknown_options,
)
from airflow_provider_dbnd.core.formats.same import same
from airflow_provider_dbnd.exceptions import FormatError


class JsonFormat(Format):
    """Writes what reading by the annotation, or else by the value's own type, gives back equal."""

    name = "json"

    @override
    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        reject_unknown_options(self.name, options)
        data = _to_json(value)
        expected = type(value) if type_ in (None, Any, object) else type_
        restored = _from_json(data, expected)
        if not same(value, restored):
            raise FormatError(
                f"a value of type {type_name(type(value))} would not come back equal from JSON "
                f"as {type_name(expected)}; annotate it with its full type, for example "
                "dict[int, str] or tuple[int, ...], or declare output.pickle"
            )
        with open(path, "wb") as file:
            file.write(data)
        return file_written(path, bytes_digest(data))

    @override
    def read(
        self,
        path: str,
        type_: Any,
        *,
        options: Mapping[str, Any],
        checksum: str | None = None,
        digest: str | None = None,
    ) -> Any:
        reject_unknown_options(self.name, options)
        with open(path, "rb") as file:
            data = file.read()
        try:
            # The name of a type, from a reference, says no more than the JSON itself.
            return _from_json(data, Any if type_ is None or isinstance(type_, str) else type_)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


def is_json_type(type_: Any) -> bool:
    """Tell whether pydantic knows how to take values of an annotation to JSON and back."""
    try:
        return _has_adapter(type_)
    except TypeError:
        # An annotation that cannot be hashed, such as Annotated[int, [1]].
        return _has_adapter.__wrapped__(type_)


@lru_cache(maxsize=1024)
def _has_adapter(type_: Any) -> bool:
    import pydantic

    try:
        pydantic.TypeAdapter(type_)
    except pydantic.errors.PydanticUserError:
        return False
    return True


def _to_json(value: Any) -> bytes:
    import pydantic_core

    try:
        return pydantic_core.to_json(_ordered(value), inf_nan_mode="constants")
    except (ValueError, TypeError) as error:
        raise FormatError(
            f"a value of type {type_name(type(value))} cannot be stored as JSON: {error}; "
            "declare output.pickle, or return a pydantic model"
        ) from error


def _from_json(data: bytes, type_: Any) -> Any:
    import pydantic

    try:
        return pydantic.TypeAdapter(type_).validate_json(data)
    except pydantic.ValidationError as error:
        raise FormatError(f"the JSON does not fit {type_name(type_)}: {summary(error)}") from error
    except pydantic.errors.PydanticUserError as error:
        raise FormatError(f"no JSON is read as {type_name(type_)}: {error}") from error


def _ordered(value: Any) -> Any:
    """Put sets in an order; their own changes from process to process, and the digest with it."""
    if type(value) in (set, frozenset):
        return sorted(map(_ordered, value), key=repr)
    if type(value) is dict:
        return {key: _ordered(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_ordered(item) for item in value]
    return value
