"""Tables as JSON: one object a line (.jsonl), or one array of objects (.json)."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.interchange import InterchangeFormat, pandas_version
from airflow_provider_dbnd.core.formats.panics import panics_refused


class JsonLinesFormat(InterchangeFormat):
    """One object a line."""

    name = "jsonl"

    @override
    def reader(self, container: str) -> Callable[..., Any] | None:
        return _LINE_READERS.get(container)

    @override
    def writer(self, container: str) -> Callable[..., None] | None:
        writer = _LINE_WRITERS.get(container)
        return writer and partial(writer, self.compression)


class JsonRecordsFormat(InterchangeFormat):
    """One array of objects."""

    name = "records"

    @override
    def reader(self, container: str) -> Callable[..., Any] | None:
        return _RECORD_READERS.get(container)

    @override
    def writer(self, container: str) -> Callable[..., None] | None:
        writer = _RECORD_WRITERS.get(container)
        return writer and partial(writer, self.compression)


def _read_pandas_lines(path: str, **options: Any) -> Any:
    return _read_pandas(path, **{"lines": True, **options})


def _read_pandas(path: str, **options: Any) -> Any:
    import pandas as pd

    # By default pandas misses the last digit of floats, and guesses numbers and dates from strings.
    settings: Any = {"orient": "records", "precise_float": True, "dtype": False}
    if pandas_version() < (3, 1):
        settings["convert_dates"] = False
    return pd.read_json(path, **(settings | options))


def _write_pandas_lines(compression: str | None, frame: Any, path: str) -> None:
    with _file(path, compression) as file:
        for record in _records(frame):
            file.write(json.dumps(record, ensure_ascii=False, default=str).encode() + b"\n")


def _write_pandas(compression: str | None, frame: Any, path: str) -> None:
    with _file(path, compression) as file:
        file.write(json.dumps(_records(frame), ensure_ascii=False, default=str).encode())


def _records(frame: Any) -> Any:
    """Return plain dicts; pandas' own writer cuts floats to 15 digits."""
    # As objects, because NaN of a float column is not JSON.
    plain = frame.astype(object).where(frame.notna(), None)
    return plain.to_dict("records")


def _file(path: str, compression: str | None) -> Any:
    import pyarrow as pa

    return pa.output_stream(path, compression=compression)


@panics_refused()
def _read_polars_lines(path: str, **options: Any) -> Any:
    import polars as pl

    return pl.read_ndjson(path, **options)


@panics_refused()
def _read_polars(path: str, **options: Any) -> Any:
    import polars as pl

    return pl.read_json(path, **options)


@panics_refused()
def _scan_polars_lines(path: str, **options: Any) -> Any:
    import polars as pl

    return pl.scan_ndjson(path, **options)


@panics_refused()
def _write_polars_lines(compression: str | None, frame: Any, path: str) -> None:
    with _file(path, compression) as file:
        frame.write_ndjson(file)


@panics_refused()
def _write_polars(compression: str | None, frame: Any, path: str) -> None:
    with _file(path, compression) as file:
        frame.write_json(file)


def _read_arrow_lines(path: str, **options: Any) -> Any:
    import pyarrow.json

    return pyarrow.json.read_json(path, **options)


_LINE_READERS: dict[str, Callable[..., Any]] = {
    "pandas.DataFrame": _read_pandas_lines,
    "polars.DataFrame": _read_polars_lines,
    "polars.LazyFrame": _scan_polars_lines,
    "pyarrow.Table": _read_arrow_lines,
}
_LINE_WRITERS: dict[str, Callable[..., None]] = {
    "pandas.DataFrame": _write_pandas_lines,
    "polars.DataFrame": _write_polars_lines,
}
_RECORD_READERS: dict[str, Callable[..., Any]] = {
    "pandas.DataFrame": _read_pandas,
    "polars.DataFrame": _read_polars,
}
_RECORD_WRITERS: dict[str, Callable[..., None]] = {
    "pandas.DataFrame": _write_pandas,
    "polars.DataFrame": _write_polars,
}
