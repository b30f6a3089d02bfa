"""A folder of parquet files read as one table: what Spark's executors wrote.

The parts have no fingerprint, which is known only when all are written. The store compared their
bytes with the list before they are opened here.
"""

from __future__ import annotations

import base64
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.fingerprint import BLOCK_ROWS, blocks, corrupted
from airflow_provider_dbnd.core.formats.stored import StoredTable
from airflow_provider_dbnd.core.storage.parts import LISTING, Listing


class ParquetFolder(StoredTable):
    """An opened folder. Parts are opened one at a time, as their rows are asked for."""

    format = "parquet"

    def __init__(self, path: str, listing: Listing) -> None:
        super().__init__(path, schema_of(listing), listing.rows, None)
        self._parts = listing.parts
        self._ends = list(accumulate(part.rows for part in listing.parts))
        self._last: tuple[int, Any] = (-1, None)

    @override
    def read_rows(self, columns: list[str], start: int, stop: int) -> Any:
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns], self.schema.metadata)
        tables: list[Any] = []
        for number in range(bisect_right(self._ends, start), len(self._parts)):
            first = self._ends[number] - self._parts[number].rows
            if first >= stop:
                break
            part = self._open(number)
            end = min(stop - first, self._parts[number].rows)
            tables.append(part.read_rows(columns, max(start - first, 0), end).cast(schema))
        return pa.concat_tables(tables) if tables else schema.empty_table()

    @override
    def dataset(self) -> Any:
        from pyarrow import dataset

        paths = [os.path.join(self.path, part.name) for part in self._parts]
        return dataset.dataset(paths, format=self.format, schema=self.schema)

    def _open(self, number: int) -> Any:
        from airflow_provider_dbnd.core.formats.parquet import ParquetFile

        if self._last[0] != number:
            part = self._parts[number]
            path = os.path.join(self.path, part.name)
            reader = opened(path)
            if reader.metadata.num_rows != part.rows:
                raise corrupted(path, f"{part.rows} rows", str(reader.metadata.num_rows))
            self._last = number, ParquetFile(path, reader, {}, None)
        return self._last[1]


def open_folder(path: str) -> ParquetFolder:
    """Open the folder at local *path*, whose list the store verified."""
    try:
        with open(os.path.join(path, LISTING), "rb") as file:
            return ParquetFolder(path, Listing.from_bytes(file.read()))
    except (ValueError, LookupError, TypeError) as error:
        raise corrupted(path, "a folder of parquet files", str(error)) from error


def opened(path: str) -> Any:
    """Return pyarrow's reader of one part: mapped, as it would keep all compressed bytes otherwise."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise corrupted(path, "a parquet file", str(error)) from error


def batches_of(readers: Iterable[Any], schema: Any) -> Iterator[Any]:
    """Yield the rows of parts, opened one after the other, in batches for a fingerprint."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        for reader in readers:
            for batch in reader.iter_batches(BLOCK_ROWS):
                yield from pa.Table.from_batches([batch]).cast(schema).to_batches()

    return blocks(batches(), schema)


def schema_text(schema: Any) -> str:
    """Return an Arrow schema as text, for the list of parts."""
    return base64.b64encode(schema.serialize()).decode()


def schema_of(listing: Listing) -> Any:
    """Return the Arrow schema that a list of parts has."""
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(listing.schema, validate=True)))
