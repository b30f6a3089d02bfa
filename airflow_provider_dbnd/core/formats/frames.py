"""Between containers (pandas, polars, Arrow) and file formats (Arrow, parquet): Arrow batches.

A container turns a value into an :class:`Outgoing` and a :class:`Loaded` into a value; a tabular
format writes the one and reads the other. So n containers and m formats make n + m modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow_provider_dbnd.core.formats.dictionaries import unified_table
from airflow_provider_dbnd.core.formats.fingerprint import blocks


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """A table on its way to a file.

    Each batch but the last holds a whole number of blocks. ``extras`` is what the Arrow schema does
    not say, keyed by engine. ``whole`` is all of it, where that is in memory in one piece.
    """

    schema: Any
    batches: Iterator[Any]
    whole: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_table(cls, table: Any, extras: Mapping[str, Any] | None = None) -> Outgoing:
        """Take a whole table: one batch where it is in one piece, so that it maps back as one."""
        table = unified_table(table)
        batches = table.to_batches() if table.num_rows else [_empty_batch(table)]
        if len(batches) != 1:
            return cls(
                schema=table.schema,
                batches=blocks(iter(batches), table.schema),
                extras=extras or {},
            )
        return cls(
            schema=table.schema, batches=iter(batches), whole=batches[0], extras=extras or {}
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A verified table, or a part of one, as it came from a file.

    ``filled`` names the columns whose data buffer is right under nulls too (NaN, NaT, code -1).
    ``memory`` is the private copy-on-write map the buffers lie in, if they do. ``schema`` has all
    stored columns, not only those loaded; ``whole`` tells whether all rows are.
    """

    table: Any
    extras: Mapping[str, Any] = field(default_factory=dict)
    filled: frozenset[str] = frozenset()
    memory: Any = None
    schema: Any
    first_row: int = 0
    rows: int = 0
    whole: bool = True


class Stored(Protocol):
    """A tabular file opened for reading."""

    path: str
    format: str
    schema: Any
    extras: Mapping[str, Any]

    def load(self, columns: list[str] | None = None, rows: tuple[int, int] | None = None) -> Loaded:
        """Read and verify columns and a range of rows (all when None)."""

    def stream(self, columns: list[str] | None = None) -> Iterator[Loaded]:
        """Read and verify block by block, in constant memory."""

    def dataset(self) -> Any:
        """Return what reads the stored bytes lazily, and unverified."""


class Container(Protocol):
    """One in-memory type of tabular data."""

    def outgoing(self, value: Any) -> Outgoing:
        """Turn *value* into batches; FormatError says what would be lost."""

    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Any:
        """Make a value of what is *stored*."""

    def from_arrow(self, loaded: Loaded) -> Any:
        """Make a value of one loaded table."""


def _empty_batch(table: Any) -> Any:
    """Return a batch without rows that still has the dictionaries, which to_batches() loses."""
    import pyarrow as pa

    arrays = [
        column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)
        for column in table.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)
