"""Arrow IPC file: uncompressed and memory-mapped, the default on a local disk.

An artifact comes back as views of a private copy-on-write map: no copy is made, the user may write to
it, and the file never changes. A user's own file is read, as others may write over it: under a map
what was read would change then, and a file that is cut short kills the process. The fingerprint is
the metadata of an empty last batch, because only then are all hashes known: they are computed while
the data is being written.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.fingerprint import Fingerprint, Fingerprinter, corrupted
from airflow_provider_dbnd.core.formats.frames import Outgoing
from airflow_provider_dbnd.core.formats.stored import StoredTable
from airflow_provider_dbnd.core.formats.tabular import TabularFormat, check_fingerprint
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, FormatError

FINGERPRINT_KEY = b"dbnd.fingerprint"


class ArrowFormat(TabularFormat):
    """Uncompressed, mapped on reading."""

    name = "arrow"

    @override
    def write_batches(
        self, outgoing: Outgoing, path: str, options: Mapping[str, Any]
    ) -> Fingerprint:
        import pyarrow as pa

        fingerprinter = Fingerprinter(outgoing.schema)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, outgoing.schema) as writer:
            for batch in outgoing.batches:
                fingerprinter.add(batch)
                writer.write_batch(batch)
                fingerprinter.settle()  # a task that yields frames goes on, and may fill this one anew
            fingerprint = fingerprinter.finish(outgoing.extras)
            metadata = {FINGERPRINT_KEY: fingerprint.to_bytes()}
            # Of the last batch, because a file has one dictionary for each column.
            writer.write_batch(batch.slice(0, 0), custom_metadata=metadata)
        return fingerprint

    @override
    def open(self, path: str, *, checksum: str | None, digest: str | None) -> ArrowFile:
        import pyarrow as pa

        try:
            batches = _MappedBatches(path) if checksum is not None else _ReadBatches(path)
            fingerprint = _fingerprint(batches.reader)
            check_fingerprint(fingerprint, path=path, checksum=checksum, digest=digest)
            return ArrowFile(path, batches, fingerprint)
        except (FileNotFoundError, ArtifactCorruptedError, FormatError):
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            if checksum or digest:
                raise corrupted(path, "an Arrow IPC file", str(error)) from error
            raise FormatError(f"{path} is not an Arrow IPC file: {error}") from error


class FeatherFormat(ArrowFormat):
    """Feather is Arrow IPC by another name; files of others may be compressed."""

    name = "feather"


class ArrowFile(StoredTable):
    """An Arrow IPC file, mapped or read."""

    format = "arrow"
    keeps_buffers = True

    def __init__(
        self, path: str, batches: _MappedBatches | _ReadBatches, fingerprint: Fingerprint | None
    ) -> None:
        #: The number of rows up to the end of each batch.
        self.batch_ends = list(accumulate(batches.lengths()))
        rows = (self.batch_ends or [0])[-1]
        super().__init__(path, batches.schema, rows, fingerprint)
        self._batches = batches

    @override
    def memory(self) -> mmap.mmap | None:
        return self._batches.memory

    @override
    def release(self) -> None:
        if self._batches.memory is not None and hasattr(self._batches.memory, "madvise"):
            # Clean pages of a file: whoever still refers to them gets them again from the file.
            self._batches.memory.madvise(mmap.MADV_DONTNEED)

    @override
    def read_rows(self, columns: list[str], start: int, stop: int) -> Any:
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns], self.schema.metadata)
        chosen: list[Any] = []
        for index in range(bisect_right(self.batch_ends, start), len(self.batch_ends)):
            first = self.batch_ends[index - 1] if index else 0
            if first >= stop:
                break
            batch = self._batches.get(index, columns)
            chosen.append(batch.slice(max(start - first, 0), stop - max(first, start)))
        if not chosen and self.batch_ends:
            # A table without rows still has its dictionaries.
            chosen.append(self._batches.get(0, columns).slice(0, 0))
        return pa.Table.from_batches(chosen, schema)


class _MappedBatches:
    """The batches of a file that nobody writes over."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa

        with open(path, "rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.reader = pa.ipc.open_file(pa.py_buffer(self.memory))
        self.schema = self.reader.schema
        self._batches = [self.reader.get_batch(i) for i in range(self.reader.num_record_batches)]

    def lengths(self) -> Iterator[int]:
        return (batch.num_rows for batch in self._batches)

    def get(self, index: int, columns: list[str]) -> Any:
        return self._batches[index].select(columns)


class _ReadBatches:
    """The batches of a user's file: of these columns only, and one at a time."""

    memory = None

    def __init__(self, path: str) -> None:
        self._path = path
        self.schema = self._open(None).schema
        #: Of a single column: it tells how many rows each batch has, and the metadata.
        self.reader = self._open(self.schema.names[:1])
        self._chosen: tuple[list[str], Any] | None = None
        self._last: tuple[int, list[str], Any] | None = None

    def lengths(self) -> Iterator[int]:
        numbers = range(self.reader.num_record_batches)
        return (self._read(self.reader, number).num_rows for number in numbers)

    def get(self, index: int, columns: list[str]) -> Any:
        if self._last is None or self._last[:2] != (index, columns):
            if self._chosen is None or self._chosen[0] != columns:
                self._chosen = columns, self._open(columns)
            self._last = None  # its memory, before more is taken
            self._last = index, columns, self._read(self._chosen[1], index).select(columns)
        return self._last[2]

    def _read(self, reader: Any, index: int) -> Any:
        import pyarrow as pa

        try:
            return reader.get_batch(index)
        except (pa.ArrowException, OSError) as error:
            raise corrupted(self._path, "readable batches", str(error)) from error

    def _open(self, columns: list[str] | None) -> Any:
        import pyarrow as pa

        file = pa.OSFile(self._path)
        if columns is None:
            return pa.ipc.open_file(file)
        chosen = sorted(map(self.schema.names.index, columns))
        return pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=chosen))


def _fingerprint(reader: Any) -> Fingerprint | None:
    if not reader.num_record_batches:
        return None
    _, metadata = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
    if not metadata or FINGERPRINT_KEY not in metadata:
        return None
    return Fingerprint.from_bytes(metadata[FINGERPRINT_KEY])
