"""The footer of a parquet file, and how to move it: for row groups written as a file of their own.

pyarrow joins footers (``FileMetaData.append_row_groups``) but leaves the positions in them as they
are. A footer is one Thrift struct in the compact protocol; all but positions is copied as it is.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

MAGIC = b"PAR1"

_POSITION, _ORDINAL = "position", "ordinal"

#: Where positions in the file, and the number of a row group, are: field numbers of parquet.thrift.
#: The number of a row group is written by pyarrow 18, and not by 20.
#: Indexes of pages and Bloom filters have some as well, and are not written here.
_COLUMN_META_DATA = {9: _POSITION, 11: _POSITION}
_COLUMN_CHUNK = {2: _POSITION, 3: _COLUMN_META_DATA}
_ROW_GROUP = {1: _COLUMN_CHUNK, 5: _POSITION, 7: _ORDINAL}
_FILE_META_DATA = {4: _ROW_GROUP}

#: Types of the compact protocol; of some all values have one size. A boolean takes a byte in a list alone.
_BINARY, _MAP, _STRUCT = 8, 11, 12
_BOOLS, _INTEGERS, _LISTS = (1, 2), (4, 5, 6), (9, 10)
_SIZES = {1: 1, 2: 1, 3: 1, 7: 8, 13: 16}


def footer_of(file: memoryview) -> memoryview:
    """Return the footer of a parquet file in memory: its size and a magic number end the file."""
    end = len(file) - 8
    return file[end - int.from_bytes(file[end : end + 4], "little") : end]


def tail_size(path: str) -> int:
    """Return the bytes from the footer on: it is followed by its length and "PAR1"."""
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        return 8 + int.from_bytes(file.read(4), "little")


def enclosed(footer: bytes) -> bytes:
    """Return a parquet file that has a footer alone."""
    return MAGIC + footer + len(footer).to_bytes(4, "little") + MAGIC


def moved(footer: memoryview, *, by: int, after: int) -> bytes:
    """Return the footer of row groups that come *by* bytes and *after* row groups later."""
    walk = _Walk(footer, {_POSITION: by, _ORDINAL: after})
    walk.struct(_FILE_META_DATA)
    return walk.copied()


class _Walk:
    """Goes through a Thrift struct and copies it, adding to some of its integers."""

    def __init__(self, data: memoryview, more: Mapping[str, int]) -> None:
        self._data, self._more = data, more
        self._at = self._copied = 0
        self._pieces: list[Any] = []

    def copied(self) -> bytes:
        """Return what came out."""
        return b"".join([*self._pieces, self._data[self._copied : self._at]])

    def struct(self, fields: Mapping[int, Any]) -> None:
        """Go through a struct, of which *fields* are to be changed or have such in them."""
        field = 0
        while header := self._byte():
            delta = header >> 4
            field = field + delta if delta else _signed(self._varint())
            kind = header & 15
            if kind not in _BOOLS:  # their header is their value
                self._value(kind, fields.get(field))

    def _value(self, kind: int, field: Any) -> None:
        if kind in _INTEGERS:
            self._integer(field)
        elif kind == _BINARY:
            size = self._varint()
            self._at += size
        elif kind == _STRUCT:
            self.struct(field or {})
        elif kind in _LISTS:
            self._list(field)
        elif kind == _MAP:
            self._map()
        else:
            self._at += _SIZES[kind]

    def _integer(self, field: str | None) -> None:
        start = self._at
        number = _signed(self._varint())
        # A position of 0 says that there is none, or that a writer left it out.
        if field is None or not self._more[field] or (field == _POSITION and not number):
            return
        self._pieces += [self._data[self._copied : start], _varint(number + self._more[field])]
        self._copied = self._at

    def _list(self, field: Any) -> None:
        header = self._byte()
        size = header >> 4
        for _ in range(self._varint() if size == 15 else size):
            self._value(header & 15, field)

    def _map(self) -> None:
        if size := self._varint():
            kinds = self._byte()
            for _ in range(size):
                self._value(kinds >> 4, None)
                self._value(kinds & 15, None)

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7


def _signed(number: int) -> int:
    """Undo zigzag, in which integers are written: 0, -1, 1, -2, ...

    >>> [_signed(number) for number in range(4)]
    [0, -1, 1, -2]
    """
    return number >> 1 ^ -(number & 1)


def _varint(number: int) -> bytes:
    """Write an integer of 0 or more in zigzag, 7 bits a byte.

    >>> _varint(1), _varint(100)
    (b'\\x02', b'\\xc8\\x01')
    """
    number <<= 1
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])
