"""Arrow IPC file: uncompressed and memory-mapped, the default on a local disk.

Data comes back as views of a private copy-on-write map: no copy is made, the user may write to it,
and the file never changes. The fingerprint is the metadata of an empty last batch, because only
then are all hashes known: they are computed while the data is being written.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Mapping
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
            fingerprint = fingerprinter.finish(outgoing.extras)
            metadata = {FINGERPRINT_KEY: fingerprint.to_bytes()}
            # Of the last batch, because a file has one dictionary for each column.
            writer.write_batch(batch.slice(0, 0), custom_metadata=metadata)
        return fingerprint

    @override
    def open(self, path: str, *, checksum: str | None, digest: str | None) -> ArrowFile:
        import pyarrow as pa

        try:
            with open(path, "rb") as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            reader = pa.ipc.open_file(pa.py_buffer(memory))
            fingerprint = _fingerprint(reader)
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            check_fingerprint(fingerprint, path=path, checksum=checksum, digest=digest)
            return ArrowFile(path, reader.schema, memory, batches, fingerprint)
        except (FileNotFoundError, ArtifactCorruptedError):
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            if checksum or digest:
                raise corrupted(path, "an Arrow IPC file", str(error)) from error
            raise FormatError(f"{path} is not an Arrow IPC file: {error}") from error


class FeatherFormat(ArrowFormat):
    """Feather is Arrow IPC by another name; files of others may be compressed."""

    name = "feather"


class ArrowFile(StoredTable):
    """A mapped Arrow IPC file."""

    format = "arrow"
    keeps_buffers = True

    def __init__(
        self,
        path: str,
        schema: Any,
        memory: mmap.mmap,
        batches: list[Any],
        fingerprint: Fingerprint | None,
    ) -> None:
        #: The number of rows up to the end of each batch.
        self.batch_ends = list(accumulate(batch.num_rows for batch in batches))
        super().__init__(path, schema, (self.batch_ends or [0])[-1], fingerprint)
        self._batches = batches
        self._memory = memory

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
        for index in range(bisect_right(self.batch_ends, start), len(self.batch_ends)):
            batch = self._batches[index]
            first = self.batch_ends[index] - batch.num_rows
            if first >= stop:
                break
            wanted = batch.slice(max(start - first, 0), stop - max(first, start))
            chosen.append(wanted.select(columns))
        if not chosen and self._batches:
            # A table without rows still has its dictionaries.
            chosen.append(self._batches[0].slice(0, 0).select(columns))
        return pa.Table.from_batches(chosen, schema)


def _fingerprint(reader: Any) -> Fingerprint | None:
    if not reader.num_record_batches:
        return None
    _, metadata = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
    if not metadata or FINGERPRINT_KEY not in metadata:
        return None
    return Fingerprint.from_bytes(metadata[FINGERPRINT_KEY])
