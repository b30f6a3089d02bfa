"""Row groups that are encoded side by side, and one after the other in a parquet file.

pyarrow encodes a file in one thread. Here each row group is encoded as a file in memory, in a thread
of its own, and put behind those before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any

from airflow_provider_dbnd.core.digest import available_cores
from airflow_provider_dbnd.core.formats.parquet_footer import MAGIC, enclosed, footer_of, moved
from airflow_provider_dbnd.core.formats.threads import working_threads

#: Bytes of tables that are encoded at a time, and what comes out kept in memory: one at least.
_IN_MEMORY = 256 * 1024 * 1024


class RowGroups:
    """A parquet file that is written to *file*, which is open for bytes and empty."""

    def __init__(self, file: Any, schema: Any, settings: Mapping[str, Any]) -> None:
        self._file, self._schema, self._settings = file, schema, settings
        self._footer = self._empty({})
        self._file.write(MAGIC)

    def write(self, tables: Iterable[Any]) -> Iterator[None]:
        """Write each table as a row group; yields when one is in the file."""
        for data in _in_order(tables, self._encoded):
            whole = memoryview(data).cast("B")
            footer = footer_of(whole)
            shift = self._file.tell() - len(MAGIC)
            groups = moved(footer, by=shift, after=self._footer.num_row_groups)
            self._footer.append_row_groups(_metadata(enclosed(groups)))
            self._file.write(whole[len(MAGIC) : len(whole) - len(footer) - 8])
            self._file.flush()
            yield

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the footer, which has *metadata* beside the row groups."""
        import pyarrow as pa

        footer = self._empty(metadata)
        footer.append_row_groups(self._footer)
        footer.write_metadata_file(file := pa.BufferOutputStream())
        self._file.write(memoryview(file.getvalue())[len(MAGIC) :])
        self._file.flush()

    def _empty(self, metadata: Mapping[str, str]) -> Any:
        import pyarrow as pa

        with self._writer(sink := pa.BufferOutputStream()) as writer:
            writer.add_key_value_metadata(metadata)
        return _metadata(sink.getvalue())

    def _encoded(self, table: Any) -> Any:
        """Return a parquet file of *table* alone."""
        import pyarrow as pa

        writer = self._writer(sink := pa.BufferOutputStream())
        writer.write_table(table, row_group_size=max(len(table), 1))
        writer.close()  # not after an error, which it would hide behind one of its own
        return sink.getvalue()

    def _writer(self, sink: Any) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(sink, self._schema, write_page_checksum=True, **self._settings)


def _metadata(file: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_metadata(pa.BufferReader(file))


def _in_order(tables: Iterable[Any], encoded: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield what comes of each table, while threads are at those that follow."""
    working: deque[tuple[int, Future[Any]]] = deque()
    try:
        for table in tables:
            size = table.nbytes
            while working and _is_enough(working, size):
                yield working.popleft()[1].result()
            working.append((size, working_threads().submit(encoded, table)))
        while working:
            yield working.popleft()[1].result()
    finally:
        futures = [future for _, future in working]
        for future in futures:
            future.cancel()
        wait(futures)


def _is_enough(working: deque[tuple[int, Future[Any]]], size: int) -> bool:
    # One more than there are cores, so that none has to wait for the file.
    return len(working) > available_cores() or size + sum(n for n, _ in working) > _IN_MEMORY
