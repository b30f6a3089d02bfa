"""Arrow IPC file: uncompressed and memory-mapped, or compressed for the way to a bucket.

Data comes back as views of a private copy-on-write map: no copy is made, the user may write to it,
and the file never changes. The fingerprint is the metadata of an empty last batch, because only
then are all hashes known: they are computed while the data is being written.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.digest import available_cores, file_checksum
from airflow_provider_dbnd.core.formats.fingerprint import (
    BLOCK_ROWS,
    Fingerprint,
    Fingerprinter,
    corrupted,
)
from airflow_provider_dbnd.core.formats.frames import Outgoing
from airflow_provider_dbnd.core.formats.stored import StoredTable
from airflow_provider_dbnd.core.formats.tabular import TabularFormat, check_fingerprint
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, FormatError

FINGERPRINT_KEY = b"dbnd.fingerprint"

#: Compressed rows are read as a whole: a few blocks, so that streams need little memory.
COMPRESSED_ROWS = 8 * BLOCK_ROWS


class ArrowFormat(TabularFormat):
    """Uncompressed, mapped on reading."""

    name = "arrow"
    compression: str | None = None

    @property
    def file(self) -> type[ArrowFile]:
        """What reads it."""
        return ArrowFile

    @override
    def write_batches(
        self, outgoing: Outgoing, path: str, options: Mapping[str, Any]
    ) -> Fingerprint:
        import pyarrow as pa

        fingerprinter = Fingerprinter(outgoing.schema)
        settings = pa.ipc.IpcWriteOptions(compression=self.compression)
        with (
            pa.OSFile(path, "wb") as file,
            pa.ipc.new_file(file, outgoing.schema, options=settings) as writer,
        ):
            for batch in self.pieces(outgoing.batches):
                fingerprinter.add(batch)
                writer.write_batch(batch)
            fingerprint = fingerprinter.finish(outgoing.extras)
            metadata = {FINGERPRINT_KEY: fingerprint.to_bytes()}
            # Of the last batch, because a file has one dictionary for each column.
            writer.write_batch(batch.slice(0, 0), custom_metadata=metadata)
        return fingerprint

    def pieces(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Cut batches as they are to lie in the file; each must hold whole blocks."""
        return batches

    @override
    def open(self, path: str, *, checksum: str | None, digest: str | None) -> ArrowFile:
        import pyarrow as pa

        try:
            with open(path, "rb") as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            reader = pa.ipc.open_file(pa.py_buffer(memory))
            fingerprint = _fingerprint(reader)
            check_fingerprint(fingerprint, path=path, checksum=checksum, digest=digest)
            return self.file(path, reader, memory, fingerprint)
        except (FileNotFoundError, ArtifactCorruptedError):
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            if checksum or digest:
                raise corrupted(path, "an Arrow IPC file", str(error)) from error
            raise FormatError(f"{path} is not an Arrow IPC file: {error}") from error


class CompressedArrowFormat(ArrowFormat):
    """Compressed with zstd, by all cores: a fraction of parquet's time, next to its size."""

    name = "arrow_zstd"
    compression = "zstd"

    @property
    @override
    def file(self) -> type[ArrowFile]:
        return CompressedArrowFile

    @override
    def pieces(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            for start in range(0, max(batch.num_rows, 1), COMPRESSED_ROWS):
                yield batch.slice(start, COMPRESSED_ROWS)

    @override
    def checksum(self, path: str, fingerprint: Fingerprint) -> str:
        # Decoders are not safe with damaged bytes, and compressed ones are quickly checked.
        return file_checksum(path)


class FeatherFormat(ArrowFormat):
    """Feather is Arrow IPC by another name; files of others may be compressed."""

    name = "feather"


class ArrowFile(StoredTable):
    """A mapped Arrow IPC file."""

    format = "arrow"
    keeps_buffers = True

    def __init__(
        self, path: str, reader: Any, memory: mmap.mmap, fingerprint: Fingerprint | None
    ) -> None:
        self._memory = memory
        self._readers = {tuple(reader.schema.names): reader}
        self._last: tuple[int, list[str], Any] = (-1, [], None)
        # One column of each batch tells its rows without decompressing the others.
        counted = self._reader(reader.schema.names[:1], reader.schema)
        numbers = range(reader.num_record_batches)
        self._ends = list(accumulate(counted.get_batch(number).num_rows for number in numbers))
        rows = self._ends[-1] if self._ends else 0
        super().__init__(path, reader.schema, rows, fingerprint)

    @override
    def memory(self) -> mmap.mmap:
        return self._memory

    @override
    def release(self) -> None:
        if hasattr(self._memory, "madvise"):
            # Clean pages of a file: whoever still refers to them gets them again from the file.
            self._memory.madvise(mmap.MADV_DONTNEED)

    @override
    def read_rows(self, columns: list[str], start: int, stop: int) -> Any:
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns], self.schema.metadata)
        chosen: list[Any] = []
        for index in range(bisect_right(self._ends, start), len(self._ends)):
            batch = self._batch(index, columns)
            first = self._ends[index] - batch.num_rows
            if first >= stop:
                break
            wanted = batch.slice(max(start - first, 0), stop - max(first, start))
            chosen.append(wanted.select(columns))
        if not chosen and self._ends:
            # A table without rows still has its dictionaries.
            chosen.append(self._batch(0, columns).slice(0, 0).select(columns))
        return pa.Table.from_batches(chosen, schema)

    def _batch(self, number: int, columns: list[str]) -> Any:
        """Read a batch, keeping the last one: a stream comes back for each of its blocks."""
        last = self._last
        if last[:2] == (number, columns):
            return last[2]
        batch = self._reader(columns, self.schema).get_batch(number)
        self._last = (number, columns, batch)
        return batch

    def _reader(self, columns: list[str], schema: Any) -> Any:
        """Return a reader that leaves other columns compressed."""
        import pyarrow as pa

        indices = sorted(schema.get_field_index(name) for name in columns)
        names = tuple(schema.names[index] for index in indices)
        if names not in self._readers:
            options = pa.ipc.IpcReadOptions(included_fields=indices)
            self._readers[names] = pa.ipc.open_file(pa.py_buffer(self._memory), options=options)
        return self._readers[names]


class CompressedArrowFile(ArrowFile):
    """A compressed one: the buffers that come out are its reader's own."""

    @override
    def memory(self) -> None:  # type: ignore[override]
        return None

    @override
    def read_rows(self, columns: list[str], start: int, stop: int) -> Any:
        import pyarrow as pa

        if stop - start <= COMPRESSED_ROWS:
            return super().read_rows(columns, start, stop)

        # Column by column, so that the pieces of one make room for those of the next.
        def column(name: str) -> Any:
            pieces = super(CompressedArrowFile, self).read_rows([name], start, stop)
            return pa.chunked_array([pa.concat_arrays(pieces.column(0).chunks)])

        fields = [self.schema.field(name) for name in columns]
        with ThreadPoolExecutor(available_cores()) as threads:
            arrays = list(threads.map(column, columns))
        return pa.table(arrays, schema=pa.schema(fields, self.schema.metadata))


def _fingerprint(reader: Any) -> Fingerprint | None:
    if not reader.num_record_batches:
        return None
    _, metadata = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
    if not metadata or FINGERPRINT_KEY not in metadata:
        return None
    return Fingerprint.from_bytes(metadata[FINGERPRINT_KEY])
