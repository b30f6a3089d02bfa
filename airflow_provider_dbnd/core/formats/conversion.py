"""Which stored types can be read as which, and conversion between tables in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_dbnd.core.formats.annotations import (
    data_type,
    is_stream,
    stream_item,
    type_name,
)
from airflow_provider_dbnd.core.formats.containers import (
    container_for_type,
    container_for_value,
    container_name,
    is_spark_frame,
    is_tabular,
)
from airflow_provider_dbnd.core.formats.frames import Loaded
from airflow_provider_dbnd.exceptions import FormatError


def can_convert(producer: Any, consumer: Any) -> bool:
    """Tell whether what is stored from one annotation can be read as another.

    Tables convert to tables and columns to columns, whichever the engine; other types only to
    themselves and their bases.
    """
    producer, consumer = data_type(producer), data_type(consumer)
    if Any in (producer, consumer) or consumer is object:
        return True
    if _is_table(producer) and _is_table(consumer):
        return _is_series(producer) == _is_series(consumer)
    if is_stream(consumer):
        return isinstance(producer, type) and issubclass(producer, Iterator)
    if isinstance(producer, type) and isinstance(consumer, type):
        return issubclass(producer, consumer)
    return bool(producer == consumer)


def convert_in_memory(value: Any, type_: Any) -> Any:
    """Return *value* as *type_* where both are tables, anything else as it is."""
    type_ = data_type(type_)
    if is_spark_frame(type_) != is_spark_frame(type(value)) and _is_table(type_):
        return _to_or_from_spark(value, type_)
    if is_stream(type_) and is_tabular(type_):
        parts = value if isinstance(value, Iterator) else iter([value])
        return (convert_in_memory(part, stream_item(type_)) for part in parts)
    wanted = container_name(type_)
    if wanted is None or wanted == container_name(type(value)):
        return value
    return convert(value, type_)


def convert(value: Any, type_: Any) -> Any:
    """Convert a table to another container, as if it had been stored and read."""
    table, extras = _to_arrow(value)
    loaded = Loaded(table=table, schema=table.schema, extras=extras, rows=table.num_rows)
    return container_for_type(type_).from_arrow(loaded)


def _to_or_from_spark(value: Any, type_: Any) -> Any:
    if is_spark_frame(type(value)):
        raise FormatError(
            f"a Spark frame is not brought into the memory of this process to become a "
            f"{type_name(type_)}: return it from a task and pass the result on, or call .toPandas()"
        )
    from airflow_provider_dbnd.core.formats.spark_frame import from_table

    return from_table(_to_arrow(value)[0])


def _to_arrow(value: Any) -> tuple[Any, Mapping[str, Any]]:
    import pyarrow as pa

    outgoing = container_for_value(value).outgoing(value)
    return pa.Table.from_batches(list(outgoing.batches), outgoing.schema), outgoing.extras


def _is_table(type_: Any) -> bool:
    return is_tabular(type_) or is_spark_frame(type_)


def _is_series(type_: Any) -> bool:
    item = stream_item(type_) if is_stream(type_) else type_
    return (container_name(item) or "").endswith(".Series")
