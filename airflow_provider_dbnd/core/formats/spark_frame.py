"""Spark frames: what the executors are told to write and to read.

Nothing of a frame passes through this process. The functions that run on the executors import what
they use themselves, and nothing of this package, which need not be installed there.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_dbnd.core.formats.arrow import ArrowFile
from airflow_provider_dbnd.core.formats.base import own_options, reject_unknown_options
from airflow_provider_dbnd.core.formats.fingerprint import BLOCK_ROWS
from airflow_provider_dbnd.core.formats.spark_types import (
    LOSSY,
    SparkColumn,
    quoted,
    spark_columns,
    spark_schema,
)
from airflow_provider_dbnd.core.spark import session as spark
from airflow_provider_dbnd.exceptions import FormatError

#: What the executors check and how they take dates, whatever the session says.
_READING = {
    "parquet.page.verify-checksum.enabled": "true",
    "datetimeRebaseMode": "CORRECTED",
    "int96RebaseMode": "CORRECTED",
}

#: Parts are put together in their order; of more than these only the rows count, not the order.
#: Each takes Spark about 30 ms, and again for every action on the frame.
_ORDERED_PARTS = 32

#: Spark's options for files as other engines write them, by format.
_TEXT: Mapping[str, tuple[str, dict[str, str]]] = {
    "csv": ("csv", {"header": "true", "inferSchema": "true", "escape": '"'}),
    "tsv": ("csv", {"header": "true", "inferSchema": "true", "escape": '"', "sep": "\t"}),
    "jsonl": ("json", {}),
    "records": ("json", {"multiLine": "true"}),
}

_PARTITION_BYTES = 32 * 2**20


def write_frame(
    frame: Any, url: str, access: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    """Let the executors write *frame* as parquet files to the new folder *url*.

    :param access: what Hadoop needs to reach *url*.
    """
    from pyspark.errors import AnalysisException

    reject_unknown_options("parquet", options, ("compression",))
    _check_frame(frame)
    settings = {"compression": "zstd", **own_options(options), **access}
    with spark.writing(frame.sparkSession):
        try:
            frame.write.mode("error").options(**settings).parquet(url)
        except AnalysisException as error:
            raise FormatError(f"Spark cannot write this frame as parquet: {error}") from error


def stored_schema(part: Any, frame: Any) -> Any:
    """Return the Arrow schema of a written frame: what *part* says, and Spark's own types.

    :param part: the Arrow schema of one part
    """
    import pyarrow as pa
    from pyspark.sql.types import DayTimeIntervalType

    fields = []
    for field, column in zip(part, frame.schema.fields, strict=True):
        interval = isinstance(column.dataType, DayTimeIntervalType)
        fields.append(pa.field(field.name, pa.duration("us") if interval else field.type))
    return pa.schema(fields)


def read_parts(
    session: Any, urls: Sequence[str], access: Mapping[str, str], options: Mapping[str, Any]
) -> Any:
    """Return the frame that the executors wrote as the parts *urls*, in that order."""
    reject_unknown_options("parquet", options, ("columns", LOSSY))
    reader = session.read.options(**_READING, **access)
    urls = [spark.literal(url) for url in urls]
    if len(urls) > _ORDERED_PARTS:
        return _selected(reader.parquet(*urls), options)
    first = reader.parquet(urls[0])
    reader = reader.schema(first.schema)
    return _selected(put_together([first, *map(reader.parquet, urls[1:])]), options)


def read_parquet(
    session: Any, url: str, schema: Any, access: Mapping[str, str], options: Mapping[str, Any]
) -> Any:
    """Return a frame over one parquet file that another engine wrote, which has Arrow's *schema*."""
    columns = _wanted(schema, options, "parquet")
    reader = session.read.options(**_READING, **access)
    reader = reader.schema(spark_schema(columns, lambda column: column.stored))
    return _converted(reader.parquet(spark.literal(url)), columns)


def read_files(
    session: Any,
    urls: Sequence[str],
    schema: Any,
    access: Mapping[str, str],
    options: Mapping[str, Any],
) -> Any:
    """Return a frame over parquet files of a user, by Spark's own reader with its own options.

    :param schema: Arrow's, of the first of them
    """
    ours = ("columns", LOSSY)
    given = {option: value for option, value in own_options(options).items() if option not in ours}
    columns = spark_columns(schema, lossy=True, cut=bool(options.get(LOSSY)))
    reader = session.read.options(**{**_READING, **access, **given})
    if any(column.type != column.stored for column in columns):
        reader = reader.schema(spark_schema(columns, lambda column: column.stored))
    frame = reader.parquet(*(spark.literal(url) for url in urls))
    return _selected(_converted(frame, columns), options)


def read_arrow(session: Any, stored: ArrowFile, options: Mapping[str, Any]) -> Any:
    """Return a frame over an Arrow file on a disk that the executors see, in the order of its rows."""
    columns = _wanted(stored.schema, options, stored.format)
    by_size = -(-os.path.getsize(stored.path) // _PARTITION_BYTES)
    partitions = max(1, min(by_size, -(-stored.rows // BLOCK_ROWS)))
    blocks = _blocks_of_file(stored.path, stored.batch_ends)
    return _read_blocks(session, columns, stored.rows, partitions, blocks)


def from_table(table: Any) -> Any:
    """Return a frame of an Arrow table in memory."""
    import pyarrow as pa

    session = spark.session()
    columns = _wanted(table.schema, {}, "arrow")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    blocks = _blocks_of_bytes(sink.getvalue().to_pybytes())
    return _read_blocks(session, columns, table.num_rows, 1, blocks)


def read_text(
    session: Any,
    format_: str,
    urls: Sequence[str],
    access: Mapping[str, str],
    options: Mapping[str, Any],
) -> Any:
    """Return a frame over csv or JSON files, by Spark's own reader with its own options."""
    name, settings = _TEXT[format_]
    reader = session.read.options(**{**settings, **access, **own_options(options)})
    return reader.format(name).load([spark.literal(url) for url in urls])


def _check_frame(frame: Any) -> None:
    from pyspark.sql import types

    if frame.isStreaming:
        raise FormatError(
            "a streaming frame has no end, so it cannot be a result; write it yourself"
        )
    names = frame.columns
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise FormatError(f"column {repeated[0]!r} occurs more than once; rename one of them")
    if not names:
        raise FormatError("a frame without columns cannot be stored; give it one")
    for field in frame.schema.fields:
        if isinstance(field.dataType, types.DayTimeIntervalType):
            continue
        if lost := _lost(field.dataType):
            raise FormatError(
                f"column {field.name!r} of type {field.dataType.simpleString()} cannot be stored, "
                f"because other engines have no {lost}; cast it"
            )


def _lost(type_: Any) -> str | None:
    """Return the name of what only Spark has in a type."""
    from pyspark.sql import types

    inner: list[Any] = []
    if isinstance(type_, types.StructType):
        inner = [field.dataType for field in type_.fields]
    elif isinstance(type_, types.ArrayType):
        inner = [type_.elementType]
    elif isinstance(type_, types.MapType):
        inner = [type_.keyType, type_.valueType]
    if inner:
        return next((lost for each in inner if (lost := _lost(each)) is not None), None)
    name = str(type_.typeName())
    return name if name in ("void", "variant") or "interval" in name else None


def put_together(frames: list[Any]) -> Any:
    """Return the rows of several frames as one frame, as a tree: a chain of many is slow to plan."""
    while len(frames) > 1:
        pairs = [frames[number : number + 2] for number in range(0, len(frames), 2)]
        frames = [pair[0].union(pair[1]) if len(pair) > 1 else pair[0] for pair in pairs]
    return frames[0]


def _selected(frame: Any, options: Mapping[str, Any]) -> Any:
    columns = options.get("columns")
    return frame if columns is None else frame.select(*map(quoted, columns))


def _converted(frame: Any, columns: list[SparkColumn]) -> Any:
    """Make what columns mean of what lies in the file; others, of a folder's names, stay."""
    if all(column.type == column.stored for column in columns):
        return frame
    known = {column.name for column in columns}
    rest = [quoted(name) for name in frame.columns if name not in known]
    return frame.select(*(column.value().alias(column.name) for column in columns), *rest)


def _wanted(schema: Any, options: Mapping[str, Any], format_: str) -> list[SparkColumn]:
    import pyarrow as pa

    reject_unknown_options(format_, options, ("columns", LOSSY))
    names = options.get("columns")
    if names is not None:
        unknown = [name for name in names if name not in schema.names]
        if unknown:
            known = ", ".join(schema.names)
            raise FormatError(f"there is no column {unknown[0]!r}; there are: {known}")
        schema = pa.schema([schema.field(name) for name in names])
    if not schema.names:
        raise FormatError(
            "a table without columns cannot be read by Spark; read it as another frame"
        )
    lossy = bool(options.get(LOSSY))
    return spark_columns(schema, lossy=lossy, cut=lossy)


def _read_blocks(
    session: Any,
    columns: list[SparkColumn],
    rows: int,
    partitions: int,
    blocks: Callable[[int, int], Iterator[Any]],
) -> Any:
    """Let the executors make rows of an Arrow table, a range of rows each.

    :param blocks: yields record batches of the table from one row to another
    """
    import pyarrow as pa

    target = pa.schema([(column.name, column.arrow) for column in columns])
    losses = {column.name: column.loss for column in columns}
    step = BLOCK_ROWS

    def converted(column: Any, field: Any) -> Any:
        import pyarrow as pa

        if pa.types.is_dictionary(column.type) and pa.types.is_struct(column.type.value_type):
            # Arrow casts those of plain values only.
            column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks])
        try:
            return column.cast(field.type, safe=losses[field.name] is not None)
        except pa.ArrowInvalid as error:
            raise ValueError(losses[field.name]) from error

    def read(starts: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in starts:
            for start in batch.column(0).to_pylist():
                for block in blocks(start, min(start + step, rows)):
                    table = pa.Table.from_batches([block])
                    arrays = [converted(table.column(field.name), field) for field in target]
                    yield from pa.table(arrays, schema=target).to_batches()

    schema = spark_schema(columns, lambda column: column.type)
    return session.range(0, rows, step, partitions).mapInArrow(read, schema)


def _blocks_of_file(path: str, ends: list[int]) -> Callable[[int, int], Iterator[Any]]:
    def blocks(start: int, stop: int) -> Iterator[Any]:
        import pyarrow as pa

        with pa.memory_map(path) as file:
            reader = pa.ipc.open_file(file)
            for number in range(bisect_right(ends, start), len(ends)):
                first = ends[number - 1] if number else 0
                if first >= stop:
                    return
                batch = reader.get_batch(number)
                yield batch.slice(max(start - first, 0), stop - max(first, start))

    return blocks


def _blocks_of_bytes(data: bytes) -> Callable[[int, int], Iterator[Any]]:
    def blocks(start: int, stop: int) -> Iterator[Any]:
        import pyarrow as pa

        table = pa.ipc.open_stream(data).read_all()
        yield from table.slice(start, stop - start).to_batches()

    return blocks
