"""Reading a stored table with verification, for any file that can give ranges of rows."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.canonical import logical_type
from airflow_provider_dbnd.core.formats.fingerprint import (
    BLOCK_ROWS,
    Column,
    Fingerprint,
    corrupted,
    verify,
)
from airflow_provider_dbnd.core.formats.frames import Loaded, Stored
from airflow_provider_dbnd.exceptions import FormatError


class StoredTable(Stored):
    """A tabular file opened for reading; whatever is read is verified against its fingerprint.

    A file written by others has no fingerprint and is read as it is.
    """

    format: str

    #: Whether buffers come back as they were written, also where there are nulls.
    keeps_buffers = False

    def __init__(self, path: str, schema: Any, rows: int, fingerprint: Fingerprint | None) -> None:
        twice = [name for name, times in Counter(schema.names).items() if times > 1]
        if twice:
            raise FormatError(
                f"{path} has several columns of one name: {', '.join(map(repr, twice))}; "
                "rename them where the file is made"
            )
        self.path = path
        self.rows = rows
        self.schema = schema
        self._columns: dict[str, Column] = {}
        self._filled: frozenset[str] = frozenset()
        self.extras: Mapping[str, Any] = {}
        if fingerprint is not None:
            self.extras = fingerprint.extras
            self._columns = {column.name: column for column in fingerprint.columns}
            if self.keeps_buffers:
                self._filled = frozenset(c.name for c in fingerprint.columns if c.filled)
            found = tuple((field.name, logical_type(field.type)) for field in schema)
            if (found, rows) != (fingerprint.schema, fingerprint.rows):
                raise corrupted(
                    path, f"{fingerprint.rows} rows of {fingerprint.schema}", f"{rows} of {found}"
                )

    @override
    def load(self, columns: list[str] | None = None, rows: tuple[int, int] | None = None) -> Loaded:
        return self._load(columns, rows, memory=self.memory())

    @override
    def stream(self, columns: list[str] | None = None) -> Iterator[Loaded]:
        for start in range(0, max(self.rows, 1), BLOCK_ROWS):
            # Without the map a container makes buffers of its own where it needs writable ones,
            # so that the pages of earlier blocks can be given back.
            yield self._load(columns, (start, start + BLOCK_ROWS), memory=None)
            self.release()

    def dataset(self) -> Any:
        """Return what reads the stored bytes lazily, and unverified."""
        from pyarrow import dataset

        return dataset.dataset(self.path, format=self.format)

    def memory(self) -> Any:
        """Return the private map that the buffers of :meth:`read_rows` lie in, if there is one."""
        return None

    def release(self) -> None:
        """Give memory back between blocks."""

    @abstractmethod
    def read_rows(self, columns: list[str], start: int, stop: int) -> Any:
        """Return the Arrow table of some columns from row *start* to *stop*."""

    def _load(self, columns: list[str] | None, rows: tuple[int, int] | None, memory: Any) -> Loaded:
        names = self._known(columns)
        start, stop = self._range(rows)
        first_block = start // BLOCK_ROWS
        read_from = first_block * BLOCK_ROWS
        read_to = min(-(-stop // BLOCK_ROWS) * BLOCK_ROWS, self.rows)
        table = self.read_rows(names, read_from, read_to)
        if self._columns:
            verify(
                table,
                self._columns,
                first_block=first_block,
                path=self.path,
                buffers=self.keeps_buffers,
            )
        return Loaded(
            table=table.slice(start - read_from, stop - start),
            extras=self.extras,
            filled=self._filled,
            schema=self.schema,
            memory=memory,
            first_row=start,
            rows=stop - start,
            whole=(start, stop) == (0, self.rows),
        )

    def _known(self, columns: list[str] | None) -> list[str]:
        if columns is None:
            return list(self.schema.names)
        unknown = [name for name in columns if name not in self.schema.names]
        if unknown:
            raise FormatError(
                f"{self.path} has no column {', '.join(map(repr, unknown))}; "
                f"it has: {', '.join(self.schema.names)}"
            )
        return list(columns)

    def _range(self, rows: tuple[int, int] | None) -> tuple[int, int]:
        start, stop, _ = slice(*(rows or (None, None))).indices(self.rows)
        return start, max(start, stop)
