"""The fingerprint of a table: a hash for every block of every column, and the digest above them.

A table is cut into blocks of :data:`BLOCK_ROWS` rows. The matrix of block hashes is stored with the
data, so that a few columns or a few blocks can be verified without reading the rest; the digest in
a reference covers the matrix.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from airflow_provider_dbnd.core.digest import SIZE, available_cores, digest_of, hasher
from airflow_provider_dbnd.core.formats import canonical
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError

#: Rows hashed together: small enough to stay in the processor's cache, large enough to cost little.
BLOCK_ROWS = 131_072

#: The scheme of checksums over the fingerprint instead of the file's bytes.
CHECKSUM_SCHEME = "columns:"

_DIGEST_TAG = b"dbnd-frame-1"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """The part of a fingerprint that covers one column.

    ``filled`` tells that the data buffer holds the canonical value under every null, so that it can
    be used without its validity bitmap.
    """

    name: str
    type: str
    dictionary: str | None
    filled: bool
    leaves: bytes

    def leaf(self, block: int) -> bytes:
        """Return the hash of one block."""
        return self.leaves[block * SIZE : (block + 1) * SIZE]

    @property
    def hash(self) -> bytes:
        """Cover name, type, dictionary and all blocks."""
        dictionary = (self.dictionary or "").encode()
        return digest_of([self.name.encode(), self.type.encode(), dictionary, self.leaves])


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What is known of a table without reading it: rows, columns, hashes.

    ``extras`` holds what its Arrow schema does not say (a pandas index, nullable dtypes).
    """

    rows: int
    columns: tuple[Column, ...]
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Name the data, whatever engine held it and whatever format stores it."""
        head = [_DIGEST_TAG, str(self.rows).encode(), _json(self.extras, sort_keys=True)]
        return digest_of([*head, *(column.hash for column in self.columns)]).hex()

    @property
    def checksum(self) -> str:
        """Cover the stored form of this fingerprint and, through its hashes, the stored data."""
        return CHECKSUM_SCHEME + digest_of([self.to_bytes()]).hex()

    @property
    def schema(self) -> tuple[tuple[str, str], ...]:
        """Return names and logical types."""
        return tuple((column.name, column.type) for column in self.columns)

    def to_bytes(self) -> bytes:
        """Serialise, for the metadata of a file."""
        return _json(
            {
                "version": _VERSION,
                "rows": self.rows,
                "extras": self.extras,
                "columns": [
                    [c.name, c.type, c.dictionary, c.filled, base64.b64encode(c.leaves).decode()]
                    for c in self.columns
                ],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Fingerprint:
        """Read what :meth:`to_bytes` made; ValueError or KeyError when it is something else."""
        stored = json.loads(data)
        if stored["version"] != _VERSION:
            raise ValueError(f"fingerprint version {stored['version']!r}, expected {_VERSION}")
        return cls(
            rows=stored["rows"],
            extras=stored["extras"],
            columns=tuple(
                Column(
                    name=name,
                    type=type_,
                    dictionary=dictionary,
                    filled=filled,
                    leaves=base64.b64decode(leaves, validate=True),
                )
                for name, type_, dictionary, filled, leaves in stored["columns"]
            ),
        )


class Fingerprinter:
    """Fingerprints a table given batch by batch, on other threads than the caller's.

    Every batch but the last must hold a whole number of blocks (see :func:`blocks`).
    """

    def __init__(self, schema: Any) -> None:
        self.rows = 0
        self._schema = schema
        self._leaves: list[list[bytes]] = [[] for _ in schema]
        self._filled = [True] * len(schema)
        self._dictionaries: list[str | None] = [None] * len(schema)
        self._pending: list[tuple[int, Future[tuple[bytes, bool]]]] = []

    def add(self, batch: Any) -> None:
        """Start hashing *batch*; waits for the batch before it, so that memory stays bounded."""
        self._collect()
        for index, array in enumerate(batch.columns):
            if self._dictionaries[index] is None:
                self._dictionaries[index] = dictionary_hash(array)
            for start in range(0, len(array), BLOCK_ROWS):
                block = array.slice(start, BLOCK_ROWS)
                self._pending.append((index, hashing_threads().submit(leaf, block)))
        self.rows += batch.num_rows

    def finish(self, extras: Mapping[str, Any]) -> Fingerprint:
        """Return the fingerprint of all batches added."""
        self._collect()
        columns = (
            Column(
                name=field.name,
                type=canonical.logical_type(field.type),
                dictionary=self._dictionaries[index],
                filled=self._filled[index],
                leaves=b"".join(self._leaves[index]),
            )
            for index, field in enumerate(self._schema)
        )
        return Fingerprint(rows=self.rows, columns=tuple(columns), extras=extras)

    def _collect(self) -> None:
        for index, future in self._pending:
            hash_, filled = future.result()
            self._leaves[index].append(hash_)
            self._filled[index] &= filled
        self._pending.clear()


def fingerprint_of(schema: Any, batches: Iterator[Any], extras: Mapping[str, Any]) -> Fingerprint:
    """Fingerprint a table that is not being written."""
    fingerprinter = Fingerprinter(schema)
    for batch in batches:
        fingerprinter.add(batch)
    return fingerprinter.finish(extras)


def leaf(array: Any) -> tuple[bytes, bool]:
    """Hash one block of one column; also tell whether its buffer is canonical under nulls."""
    state = hasher()
    filled = canonical.update(state, array)
    return bytes(state.digest(length=SIZE)), filled


def verify(
    table: Any, columns: Mapping[str, Column], *, first_block: int, path: str, buffers: bool
) -> None:
    """Compare *table*, cut out at a block boundary, with what its fingerprint promises.

    :param buffers: whether what lies under nulls is as it was written too
    """
    expected: list[tuple[Column, int, Future[tuple[bytes, bool]]]] = []
    for name in table.column_names:
        column = columns[name]
        data = table.column(name)
        _verify_structure(data, column, path)
        for number, start in enumerate(range(0, table.num_rows, BLOCK_ROWS), first_block):
            block = data.slice(start, BLOCK_ROWS)
            expected.append((column, number, hashing_threads().submit(_leaf_of_chunks, block)))
    # All of them, so that after an error no thread still reads a file that may be replaced.
    wait([future for _, _, future in expected])
    for column, number, future in expected:
        try:
            found, filled = future.result()
        except Exception as error:
            raise corrupted(path, f"readable column {column.name!r}", repr(error)) from error
        if found != column.leaf(number) or (buffers and column.filled and not filled):
            place = f"column {column.name!r}, rows from {number * BLOCK_ROWS}"
            raise corrupted(path, f"{place}: {column.leaf(number).hex()}", found.hex())


def corrupted(path: str, expected: str, found: str) -> ArtifactCorruptedError:
    """Make the error for a file that is not what its reference or its fingerprint promises."""
    return ArtifactCorruptedError(
        f"{path} is damaged: expected {expected}, found {found}; run the task that made it again"
    )


def _verify_structure(data: Any, column: Column, path: str) -> None:
    """Check what hashing itself relies on: dictionaries, and the offsets of nested values."""
    for chunk in data.chunks:
        try:
            # Sizes of buffers always, each offset only where Arrow follows them.
            chunk.validate(full=canonical.needs_validation(data.type))
            found = dictionary_hash(chunk)
        except Exception as error:
            raise corrupted(path, f"readable column {column.name!r}", repr(error)) from error
        if found != column.dictionary:
            raise corrupted(path, f"dictionary {column.dictionary} of {column.name!r}", str(found))


def _leaf_of_chunks(block: Any) -> tuple[bytes, bool]:
    import pyarrow as pa

    return leaf(block.chunk(0) if block.num_chunks == 1 else pa.concat_arrays(block.chunks))


def dictionary_hash(array: Any) -> str | None:
    """Hash the dictionary of a dictionary-encoded array, None for others."""
    import pyarrow as pa

    if not pa.types.is_dictionary(array.type):
        return None
    return leaf(array.dictionary)[0].hex()


def blocks(batches: Iterator[Any], schema: Any) -> Iterator[Any]:
    """Cut a stream of record batches anew, into batches of one block each.

    Copies a block where it spans two batches, otherwise slices. Yields one empty batch for none.
    """
    import pyarrow as pa

    waiting: list[Any] = []
    missing = BLOCK_ROWS
    empty: Any = pa.RecordBatch.from_pylist([], schema=schema)
    yielded = False
    for batch in batches:
        start = 0
        if not batch.num_rows:
            empty = batch
        while batch.num_rows - start >= missing:
            waiting.append(batch.slice(start, missing))
            yield _joined(waiting)
            start += missing
            waiting, missing, yielded = [], BLOCK_ROWS, True
        rest = batch.slice(start)
        if rest.num_rows:
            waiting.append(rest)
            missing -= rest.num_rows
    if waiting:
        yield _joined(waiting)
    elif not yielded:
        yield empty


def _joined(batches: list[Any]) -> Any:
    import pyarrow as pa

    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


@lru_cache(maxsize=1)
def hashing_threads() -> ThreadPoolExecutor:
    """Return the threads that hash; blake3 and numpy leave the interpreter lock alone."""
    return ThreadPoolExecutor(available_cores(), thread_name_prefix="dbnd-digest")


# Airflow forks its task processes, and threads do not survive a fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=hashing_threads.cache_clear)


def _json(value: Any, *, sort_keys: bool = False) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=sort_keys).encode()
