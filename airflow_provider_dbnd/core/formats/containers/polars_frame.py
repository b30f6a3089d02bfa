"""polars containers. polars notes in Arrow's field metadata what its types add (Enum)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.containers.arrow_table import streamed
from airflow_provider_dbnd.core.formats.frames import Container, Loaded, Outgoing, Stored
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
        import polars as pl

        frame = pl.DataFrame(pl.from_arrow(loaded.table.replace_schema_metadata(None)))
        if not loaded.table.num_columns:
            frame = pl.DataFrame(height=loaded.rows)
        return frame


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
    """Written in batches as they are computed; read lazily, so verified as a whole beforehand."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        empty = _to_arrow(value.head(0).collect())
        extras = _extras(value.head(0).collect(), empty)
        part = streamed(empty.schema, _batches(value, empty.schema))
        return Outgoing(schema=part.schema, batches=part.batches, extras=extras)

    @override
    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Any:
        import polars as pl

        columns = options.get("columns")
        for _ in stored.stream(columns):
            pass
        scan = pl.scan_parquet if stored.format == "parquet" else pl.scan_ipc
        lazy = scan(stored.path)
        return lazy.select(columns) if columns else lazy

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        return super().from_arrow(loaded).lazy()


def _to_arrow(frame: Any) -> Any:
    import polars as pl
    import pyarrow as pa

    try:
        return frame.to_arrow(compat_level=pl.CompatLevel.newest())
    except (pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise FormatError(
            f"a polars frame of {frame.schema} cannot be stored: {error}; cast the column"
        ) from error


def _batches(lazy: Any, schema: Any) -> Iterator[Any]:
    for frame in lazy.collect_batches(maintain_order=True):
        yield from _to_arrow(frame).cast(schema).to_batches()


def _extras(frame: Any, table: Any) -> dict[str, Any]:
    """Note the dtypes Arrow's types do not say, refusing what would come back changed."""
    import polars as pl

    empty = table.slice(0, 0)
    restored = pl.DataFrame(pl.from_arrow(empty)).schema
    for name, dtype in frame.schema.items():
        if restored[name] != dtype:
            raise FormatError(
                f"column {name!r} of dtype {dtype} would come back as {restored[name]}; cast it"
            )
    plain = pl.DataFrame(pl.from_arrow(_without_metadata(empty))).schema
    changed = {name: str(dtype) for name, dtype in frame.schema.items() if plain[name] != dtype}
    return {ENGINE: changed} if changed else {}


def _without_metadata(table: Any) -> Any:
    import pyarrow as pa

    return table.cast(pa.schema([field.remove_metadata() for field in table.schema]))
