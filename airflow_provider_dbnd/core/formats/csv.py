"""csv and tsv, by pandas, polars or Arrow; compressed where the suffix says so (.csv.gz)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.annotations import (
    data_type,
    is_stream,
    stream_item,
)
from airflow_provider_dbnd.core.formats.containers import container_name
from airflow_provider_dbnd.core.formats.fingerprint import BLOCK_ROWS
from airflow_provider_dbnd.core.formats.interchange import InterchangeFormat, pandas_version
from airflow_provider_dbnd.core.formats.panics import panics_refused


class CsvFormat(InterchangeFormat):
    """Columns by commas."""

    name = "csv"
    separator = ","

    @override
    def reader(self, container: str) -> Callable[..., Any] | None:
        reader = _READERS.get(container)
        return reader and partial(reader, self.separator)

    @override
    def writer(self, container: str) -> Callable[..., None] | None:
        writer = _WRITERS.get(container)
        return writer and partial(writer, self.separator, self.compression)

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
        type_ = data_type(type_)
        if is_stream(type_) and container_name(stream_item(type_)) == "pandas.DataFrame":
            options = {"chunksize": BLOCK_ROWS, **options}
            type_ = stream_item(type_)
        return super().read(path, type_, options=options, checksum=checksum, digest=digest)


class TsvFormat(CsvFormat):
    """Columns by tabs."""

    name = "tsv"
    separator = "\t"


def _read_pandas(separator: str, path: str, /, **options: Any) -> Any:
    import pandas as pd

    exact = {} if "engine" in options else _exact_floats()
    if "delimiter" not in options:
        options.setdefault("sep", separator)
    settings: Any = exact | options
    return pd.read_csv(path, **settings)


def _exact_floats() -> dict[str, str]:
    """Return what keeps pandas from missing the last digit of floats; 3.1 does so by itself."""
    return {} if pandas_version() >= (3, 1) else {"float_precision": "round_trip"}


def _write_pandas(
    separator: str, compression: str | None, frame: Any, path: str, /, **options: Any
) -> None:
    settings = {"index": False, "sep": separator, "compression": compression}
    frame.to_csv(path, **(settings | options))


@panics_refused()
def _read_polars(separator: str, path: str, /, **options: Any) -> Any:
    import polars as pl

    return pl.read_csv(path, **{"separator": separator, "try_parse_dates": True, **options})


@panics_refused()
def _scan_polars(separator: str, path: str, /, **options: Any) -> Any:
    import polars as pl

    return pl.scan_csv(path, **{"separator": separator, "try_parse_dates": True, **options})


@panics_refused()
def _write_polars(
    separator: str, compression: str | None, frame: Any, path: str, /, **options: Any
) -> None:
    import pyarrow as pa

    with pa.output_stream(path, compression=compression) as file:
        frame.write_csv(file, **{"separator": separator, **options})


def _read_arrow(separator: str, path: str, /, **options: Any) -> Any:
    from pyarrow import csv

    return csv.read_csv(path, **{"parse_options": csv.ParseOptions(delimiter=separator), **options})


def _write_arrow(
    separator: str, compression: str | None, table: Any, path: str, /, **options: Any
) -> None:
    import pyarrow as pa
    from pyarrow import csv

    settings = {"write_options": csv.WriteOptions(delimiter=separator), **options}
    with pa.output_stream(path, compression=compression) as file:
        csv.write_csv(table, file, **settings)


_READERS: dict[str, Callable[..., Any]] = {
    "pandas.DataFrame": _read_pandas,
    "polars.DataFrame": _read_polars,
    "polars.LazyFrame": _scan_polars,
    "pyarrow.Table": _read_arrow,
}
_WRITERS: dict[str, Callable[..., None]] = {
    "pandas.DataFrame": _write_pandas,
    "polars.DataFrame": _write_polars,
    "pyarrow.Table": _write_arrow,
}
