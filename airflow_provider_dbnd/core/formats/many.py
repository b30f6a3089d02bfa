"""Several files of one table: read each, put them together in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from airflow_provider_dbnd.core.formats.annotations import (
    data_type,
    is_stream,
    stream_item,
    type_name,
)
from airflow_provider_dbnd.core.formats.base import Format
from airflow_provider_dbnd.core.formats.containers import container_name, is_tabular
from airflow_provider_dbnd.core.formats.conversion import convert_in_memory
from airflow_provider_dbnd.core.formats.registry import extension_of, format_for_input
from airflow_provider_dbnd.exceptions import FormatError, FormatNotFoundError

#: Reads a local file as a type.
Read = Callable[[str, Any], Any]


def formats_for_inputs(type_: Any, uris: Sequence[str], *, format: str | None) -> list[Format]:
    """Choose how to read each of some files, by its own extension.

    :param format: the declared format of all of them, or None
    """
    found: dict[str, Format] = {}
    for uri in uris:
        extension = extension_of(uri)
        try:
            if extension not in found:
                found[extension] = format_for_input(type_, format=format, extension=extension)
        except FormatNotFoundError as exc:
            if len(uris) == 1:
                raise
            raise FormatNotFoundError(
                f"{uri}, one of {len(uris)} files to be read as one: {exc}. Move it away, name the "
                "others by a pattern such as data/*.csv, or declare a format for all, as "
                "parameter.csv does."
            ) from exc
    return [found[extension_of(uri)] for uri in uris]


def read_many(read: Read, paths: Sequence[str], type_: Any) -> Any:
    """Read local files of equal columns as one value; an iterator goes through them one by one."""
    type_ = data_type(type_)
    if not paths:
        raise FormatError(f"there are no files to read as {type_name(type_)}")
    if is_stream(type_) and is_tabular(type_):
        _check_streams(read, paths, stream_item(type_))
        return chain.from_iterable(read(path, type_) for path in paths)
    name = container_name(type_)
    if name not in _CONCATENATE:
        raise FormatError(
            f"{len(paths)} files cannot be read as one {type_name(type_)}; "
            f"types that can be put together: {', '.join(_CONCATENATE)}, or an Iterator of one"
        )
    parts = [read(path, type_) for path in paths]
    for path, part in zip(paths[1:], parts[1:], strict=True):
        _check_columns(_columns(parts[0]), _columns(part), paths[0], path)
    return parts[0] if len(parts) == 1 else _CONCATENATE[name](parts)


def _check_streams(read: Read, paths: Sequence[str], item: Any) -> None:
    """Look at the first part of each file: in the middle of a task it would be too late."""
    first, expected = "", None
    for path in paths:
        columns = _first_columns(read, path, item)
        if expected is None:
            first, expected = path, columns
        elif columns is not None:
            _check_columns(expected, columns, first, path)


def _first_columns(read: Read, path: str, item: Any) -> dict[Any, str] | None:
    import pyarrow as pa

    part = next(iter(read(path, Iterator[pa.Table])), None)
    # Without rows: nulls in one part give pandas other types than in the next.
    return None if part is None else _columns(convert_in_memory(part.slice(0, 0), item))


def _columns(part: Any) -> dict[Any, str]:
    if hasattr(part, "dtypes") and hasattr(part, "iloc"):
        return dict(part.dtypes.map(str)) if hasattr(part, "columns") else {"": str(part.dtype)}
    schema = part.collect_schema() if hasattr(part, "collect_schema") else part.schema
    if hasattr(schema, "items"):
        return {name: str(dtype) for name, dtype in schema.items()}
    return {field.name: str(field.type) for field in schema}


def _check_columns(expected: dict[Any, str], found: dict[Any, str], first: str, path: str) -> None:
    if list(expected.items()) == list(found.items()):
        return
    raise FormatError(
        f"{path} has other columns than {first}: expected {_text(expected)}, got {_text(found)}"
    )


def _text(columns: Mapping[Any, str]) -> str:
    return ", ".join(f"{name}: {type_}" for name, type_ in columns.items())


def _concatenate_pandas(parts: list[Any]) -> Any:
    import pandas as pd

    from airflow_provider_dbnd.core.formats.containers.pandas_index import is_default

    counting = all(is_default(part.index) for part in parts)
    return pd.concat(parts, ignore_index=counting)


def _concatenate_polars(parts: list[Any]) -> Any:
    import polars as pl

    return pl.concat(parts, rechunk=False)


def _concatenate_arrow(parts: list[Any]) -> Any:
    import pyarrow as pa

    return pa.concat_tables(parts)


def _concatenate_datasets(parts: list[Any]) -> Any:
    from pyarrow import dataset

    return dataset.dataset(parts)


_CONCATENATE = {
    "pandas.DataFrame": _concatenate_pandas,
    "pandas.Series": _concatenate_pandas,
    "polars.DataFrame": _concatenate_polars,
    "polars.LazyFrame": _concatenate_polars,
    "pyarrow.Table": _concatenate_arrow,
    "pyarrow.Dataset": _concatenate_datasets,
}
