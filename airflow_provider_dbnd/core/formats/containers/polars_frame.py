"""polars containers. polars notes in Arrow's field metadata what its types add (Enum)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.containers.arrow_table import streamed
from airflow_provider_dbnd.core.formats.frames import Container, Loaded, Outgoing, Stored
from airflow_provider_dbnd.core.formats.panics import panics_refused
from airflow_provider_dbnd.exceptions import FormatError

ENGINE = "polars"
_SERIES = "polars.series"


class PolarsFrame(Container):
    """A frame in memory."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        table = _to_arrow(value)
        return Outgoing.of_table(table, _extras(value, table))

    @override
    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Any:
        return self.from_arrow(stored.load(options.get("columns"), options.get("rows")))

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        return _from_arrow(loaded)


class PolarsSeries(PolarsFrame):
    """A frame of one column."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        part = super().outgoing(value.to_frame())
        extras = {**part.extras, _SERIES: True}
        return Outgoing(schema=part.schema, batches=part.batches, extras=extras)

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        frame = super().from_arrow(loaded)
        if frame.width != 1:
            raise FormatError(
                f"a Series has one column, but {frame.width} are stored: "
                f"{', '.join(frame.columns)}; annotate it as a DataFrame"
            )
        return frame.to_series()


class PolarsLazyFrame(PolarsFrame):
    """Written in batches as they are computed; read lazily, verified block by block."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        empty = _to_arrow(value.head(0).collect())
        extras = _extras(value.head(0).collect(), empty)
        part = streamed(empty.schema, _batches(value, empty.schema))
        return Outgoing(schema=part.schema, batches=part.batches, extras=extras)

    @override
    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Any:
        from polars.io.plugins import register_io_source

        def source(
            columns: list[str] | None, predicate: Any, rows: int | None, _batch: int | None
        ) -> Iterator[Any]:
            for loaded in stored.stream(columns):
                frame = _from_arrow(loaded)
                if rows is not None:
                    frame, rows = frame.head(rows), max(0, rows - frame.height)
                yield frame if predicate is None else frame.filter(predicate)
                if rows == 0:
                    return

        schema = _from_arrow(stored.load(rows=(0, 0))).schema
        lazy = register_io_source(source, schema=schema)
        columns = options.get("columns")
        return lazy.select(columns) if columns else lazy

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        return _from_arrow(loaded).lazy()


@panics_refused()
def _to_arrow(frame: Any) -> Any:
    import polars as pl
    import pyarrow as pa

    try:
        return frame.to_arrow(compat_level=pl.CompatLevel.newest())
    except (pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise FormatError(
            f"a polars frame of {frame.schema} cannot be stored: {error}; cast the column"
        ) from error


def _from_arrow(loaded: Loaded) -> Any:
    table = loaded.table
    for position, field in enumerate(table.schema):
        table = table.set_column(position, field, _without_negative_codes(table.column(position)))
    return _frame(table)


@panics_refused()
def _frame(table: Any) -> Any:
    import polars as pl

    # polars gives a column without a name one of its own, which another column may have.
    numbers = [str(number) for number in range(table.num_columns)]
    frame = pl.DataFrame(pl.from_arrow(table.rename_columns(numbers)))
    frame.columns = table.column_names
    return frame


def _without_negative_codes(column: Any) -> Any:
    """Put 0 for the codes under nulls, which polars looks at; pandas has -1 there."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type) or not column.null_count:
        return column
    chunks = []
    for chunk in column.chunks:
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        codes = chunk.indices.fill_null(0).to_numpy(zero_copy_only=False)
        indices = pa.array(codes, chunk.type.index_type, mask=~valid)
        chunks.append(
            pa.DictionaryArray.from_arrays(indices, chunk.dictionary, ordered=chunk.type.ordered)
        )
    return pa.chunked_array(chunks, column.type)


def _batches(lazy: Any, schema: Any) -> Iterator[Any]:
    with panics_refused():
        for frame in lazy.collect_batches(maintain_order=True):
            yield from _to_arrow(frame).cast(schema).to_batches()


def _extras(frame: Any, table: Any) -> dict[str, Any]:
    """Note the dtypes Arrow's types do not say, refusing what would come back changed."""
    empty = table.slice(0, 0)
    restored = _frame(empty).schema
    for name, dtype in frame.schema.items():
        if restored[name] != dtype:
            raise FormatError(
                f"column {name!r} of dtype {dtype} would come back as {restored[name]}; cast it"
            )
    plain = _frame(_without_metadata(empty)).schema
    changed = {name: str(dtype) for name, dtype in frame.schema.items() if plain[name] != dtype}
    return {ENGINE: changed} if changed else {}


def _without_metadata(table: Any) -> Any:
    import pyarrow as pa

    return table.cast(pa.schema([field.remove_metadata() for field in table.schema]))
