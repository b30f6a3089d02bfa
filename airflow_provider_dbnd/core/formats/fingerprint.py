"""The fingerprint of a table: two hashes for every block of every column, and what covers them.

A table is cut into blocks of :data:`BLOCK_ROWS` rows. Of each block of a column, a leaf names the
data: the digest in a reference is over the leaves. A sum is what reading compares, of the blocks and
columns that are read: the checksum in a reference is over the whole fingerprint.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from airflow_provider_dbnd.core.digest import SIZE, Both, digest_of, part_hasher
from airflow_provider_dbnd.core.formats import canonical
from airflow_provider_dbnd.core.formats.threads import Shared
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, FormatError

#: Rows hashed together: small enough to stay in the processor's cache, large enough to cost little.
BLOCK_ROWS = 131_072

#: The scheme of checksums over the fingerprint instead of the file's bytes.
CHECKSUM_SCHEME = "columns:"

#: Values up to which hashing takes less time than waking another thread.
_ALONE = 2 * BLOCK_ROWS

_DIGEST_TAG = b"dbnd-frame-1"
_VERSION = 2


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
    sums: bytes

    def sum(self, block: int) -> bytes:
        """Return the checksum of one block."""
        return self.sums[block * SIZE : (block + 1) * SIZE]

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
                    [c.name, c.type, c.dictionary, c.filled, _text(c.leaves), _text(c.sums)]
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
                    sums=base64.b64decode(sums, validate=True),
                )
                for name, type_, dictionary, filled, leaves, sums in stored["columns"]
            ),
        )


class Fingerprinter:
    """Fingerprints a table given batch by batch, on other threads than the caller's.

    Every batch but the last must hold a whole number of blocks (see :func:`blocks`).
    """

    def __init__(self, schema: Any) -> None:
        self.rows = 0
        self._schema = schema
        self._types = [_logical_type(field) for field in schema]
        self._leaves: list[list[bytes]] = [[] for _ in schema]
        self._sums: list[list[bytes]] = [[] for _ in schema]
        self._filled = [True] * len(schema)
        self._dictionaries: list[str | None] = [None] * len(schema)
        self._categories: list[Any] = [None] * len(schema)
        self._pending: tuple[list[int], Shared[tuple[bytes, bytes, bool]]] = [], Shared([])

    def add(self, batch: Any) -> None:
        """Start hashing *batch*, which must not change until :meth:`settle` is called."""
        self.settle()
        columns: list[int] = []
        jobs = []
        for index, array in enumerate(batch.columns):
            self._check_dictionary(index, array)
            for start in range(0, len(array), BLOCK_ROWS):
                columns.append(index)
                jobs.append(partial(block_hashes, array.slice(start, BLOCK_ROWS)))
        alone = batch.num_columns * batch.num_rows <= _ALONE
        self._pending = columns, Shared(jobs, alone=alone)
        self.rows += batch.num_rows

    def settle(self) -> None:
        """Hash what is left of the batch added last."""
        columns, hashing = self._pending
        for index, (leaf_, sum_, filled) in zip(columns, hashing.results(), strict=True):
            self._leaves[index].append(leaf_)
            self._sums[index].append(sum_)
            self._filled[index] &= filled
        self._pending = [], Shared([])

    def finish(self, extras: Mapping[str, Any]) -> Fingerprint:
        """Return the fingerprint of all batches added."""
        self.settle()
        columns = (
            Column(
                name=field.name,
                type=self._types[index],
                dictionary=self._dictionaries[index],
                filled=self._filled[index],
                leaves=b"".join(self._leaves[index]),
                sums=b"".join(self._sums[index]),
            )
            for index, field in enumerate(self._schema)
        )
        return Fingerprint(rows=self.rows, columns=tuple(columns), extras=extras)

    def _check_dictionary(self, index: int, array: Any) -> None:
        categories = getattr(array, "dictionary", None)
        if self.rows and (categories is None or _same(categories, self._categories[index])):
            return
        found = dictionary_hash(array)
        if self.rows and found != self._dictionaries[index]:
            raise FormatError(
                f"column {self._schema[index].name!r} has other categories from row {self.rows} on: "
                "expected those of the first rows; give all parts of a stream the same categories"
            )
        self._dictionaries[index], self._categories[index] = found, categories


def _logical_type(field: Any) -> str:
    try:
        return canonical.logical_type(field.type)
    except FormatError as error:
        raise FormatError(f"column {field.name!r}: {error}") from error


def _same(one: Any, other: Any) -> bool:
    """Tell whether two arrays are surely the same, which costs less than to hash them.

    Arrow takes -0.0 for 0.0, so of fractions it cannot tell.
    """
    kind = str(one.type)
    return "float" not in kind and "double" not in kind and bool(one.equals(other))


def fingerprint_of(schema: Any, batches: Iterator[Any], extras: Mapping[str, Any]) -> Fingerprint:
    """Fingerprint a table that is not being written."""
    fingerprinter = Fingerprinter(schema)
    for batch in batches:
        fingerprinter.add(batch)
    return fingerprinter.finish(extras)


def block_hashes(array: Any) -> tuple[bytes, bytes, bool]:
    """Return leaf and sum of a block of a column, and whether its buffer is canonical under nulls."""
    both = Both()
    filled = canonical.update(both, array)
    return *both.result(), filled


def block_sum(array: Any) -> tuple[bytes, bool]:
    """Return what :func:`block_hashes` does, without the leaf."""
    state = part_hasher()
    filled = canonical.update(state, array)
    return bytes(state.digest()), filled


def verify(
    table: Any, columns: Mapping[str, Column], *, first_block: int, path: str, buffers: bool
) -> None:
    """Compare *table*, cut out at a block boundary, with what its fingerprint promises.

    :param buffers: whether what lies under nulls is as it was written too
    """
    expected: list[tuple[Column, int]] = []
    jobs = []
    for name in table.column_names:
        column = columns[name]
        data = table.column(name)
        _verify_structure(data, column, path)
        for number, start in enumerate(range(0, table.num_rows, BLOCK_ROWS), first_block):
            expected.append((column, number))
            jobs.append(partial(_sum_or_error, data, start))
    found = Shared(jobs, alone=table.num_columns * table.num_rows <= _ALONE).results()
    for (column, number), hashed in zip(expected, found, strict=True):
        if isinstance(hashed, Exception):
            reason = repr(hashed)
            raise corrupted(path, f"readable column {column.name!r}", reason) from hashed
        sum_, filled = hashed
        if sum_ != column.sum(number) or (buffers and column.filled and not filled):
            place = f"column {column.name!r}, rows from {number * BLOCK_ROWS}"
            raise corrupted(path, f"{place}: {column.sum(number).hex()}", sum_.hex())


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


def _sum_or_error(data: Any, start: int) -> tuple[bytes, bool] | Exception:
    import pyarrow as pa

    block = data.slice(start, BLOCK_ROWS)
    try:
        return block_sum(
            block.chunk(0) if block.num_chunks == 1 else pa.concat_arrays(block.chunks)
        )
    except Exception as error:  # noqa: BLE001 - the first block's is raised when all are done
        return error


def dictionary_hash(array: Any) -> str | None:
    """Hash the dictionary of a dictionary-encoded array, None for others."""
    import pyarrow as pa

    if not pa.types.is_dictionary(array.type):
        return None
    return block_hashes(array.dictionary)[0].hex()


def blocks(batches: Iterator[Any], schema: Any, *, fleeting: bool = False) -> Iterator[Any]:
    """Cut a stream of record batches anew, into batches of one block each.

    Copies a block where it spans two batches, otherwise slices. Yields one empty batch for none.

    :param fleeting: a batch may change when the next one is asked for, as a task may fill one frame
        again and again, so what has to wait for the next one is copied
    """
    waiting: list[Any] = []
    missing = BLOCK_ROWS
    empty = empty_batch(schema)
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
            waiting.append(_joined([rest], copied=True) if fleeting else rest)
            missing -= rest.num_rows
    if waiting:
        yield _joined(waiting)
    elif not yielded:
        yield empty


def empty_batch(schema: Any) -> Any:
    """Return a record batch without rows."""
    import pyarrow as pa

    # Unlike an array of an empty list, this one can have any type.
    arrays = [pa.nulls(0, field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _joined(batches: list[Any], *, copied: bool = False) -> Any:
    import pyarrow as pa

    if len(batches) == 1 and not copied:
        return batches[0]
    try:
        return pa.concat_batches(batches)
    except pa.ArrowNotImplementedError as error:
        raise FormatError(
            f"the parts of a stream cannot be put together: {error}; give their categorical columns "
            "the same categories"
        ) from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _json(value: Any, *, sort_keys: bool = False) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=sort_keys).encode()
