"""Containers of tabular data, one in-memory type each, found without importing their libraries."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from airflow_provider_dbnd.core.formats.annotations import (
    data_type,
    is_stream,
    qualified_names,
    stream_item,
    type_name,
)
from airflow_provider_dbnd.core.formats.frames import Container
from airflow_provider_dbnd.exceptions import FormatError, FormatNotFoundError

_HERE = __name__

#: Type name (root package and class) -> container.
CONTAINERS = {
    "pandas.DataFrame": f"{_HERE}.pandas_frame:PandasFrame",
    "pandas.Series": f"{_HERE}.pandas_series:PandasSeries",
    "polars.DataFrame": f"{_HERE}.polars_frame:PolarsFrame",
    "polars.LazyFrame": f"{_HERE}.polars_frame:PolarsLazyFrame",
    "polars.Series": f"{_HERE}.polars_frame:PolarsSeries",
    "pyarrow.Table": f"{_HERE}.arrow_table:ArrowTable",
    "pyarrow.RecordBatch": f"{_HERE}.arrow_table:ArrowBatch",
    "pyarrow.RecordBatchReader": f"{_HERE}.arrow_table:ArrowReader",
    "pyarrow.Dataset": f"{_HERE}.arrow_table:ArrowDataset",
}

#: A table that is never in this process: Spark's executors read and write it.
SPARK_FRAME = "pyspark.sql.DataFrame"


def container_name(type_: Any) -> str | None:
    """Return the name of the container for a class, None when it is not tabular."""
    return next((name for name in qualified_names(type_) if name in CONTAINERS), None)


def is_tabular(type_: Any) -> bool:
    """Tell whether an annotation is a table: a container, or an iterator of one."""
    type_ = data_type(type_)
    item = stream_item(type_) if is_stream(type_) else type_
    return container_name(item) is not None


def is_spark_frame(type_: Any) -> bool:
    """Tell whether an annotation is Spark's DataFrame, be it classic or of Spark Connect."""
    return SPARK_FRAME in qualified_names(data_type(type_))


def container_for_type(type_: Any) -> Container:
    """Return the container for an annotation."""
    type_ = data_type(type_)
    if is_stream(type_):
        from airflow_provider_dbnd.core.formats.containers.stream import Stream

        return Stream(container_for_type(stream_item(type_)))
    name = container_name(type_)
    if name is None:
        raise FormatNotFoundError(
            f"a table cannot be read as {type_name(type_)}; "
            f"annotate it as one of: {', '.join(CONTAINERS)}, or an Iterator of one"
        )
    return _load(name)


def container_for_value(value: Any) -> Container:
    """Return the container for a value, by its type."""
    name = container_name(type(value))
    if name is not None:
        return _load(name)
    if isinstance(value, Iterator):
        from airflow_provider_dbnd.core.formats.containers.stream import Stream

        return Stream(None)
    raise FormatError(
        f"a value of type {type_name(type(value))} is not a table; "
        f"tables are: {', '.join(CONTAINERS)}, or an iterator of one"
    )


def _load(name: str) -> Container:
    module, _, attribute = CONTAINERS[name].partition(":")
    container: Container = getattr(import_module(module), attribute)()
    return container
