"""A folder of part files that is one artifact, and the list of its parts that makes it one.

A cluster writes many files at once, and no store makes several files appear in one step. So the list
is written last: a folder without it is no artifact, and what it does not name is no part of one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from airflow_provider_dbnd.core.digest import bytes_digest

#: The list's name in its folder. Spark, Hadoop and Arrow take what starts with "_" for no data.
LISTING = "_parts.json"

#: The scheme of checksums over the list, which has the size and the checksum of each part.
PARTS_SCHEME = "parts:"

_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One file of a folder. ``checksum`` is over its bytes."""

    name: str
    size: int
    checksum: str
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The parts of a folder, in the order of their rows.

    ``schema`` is what a format notes of its columns, as text.
    """

    parts: tuple[Part, ...]
    schema: str

    @property
    def size(self) -> int:
        """The bytes of all parts."""
        return sum(part.size for part in self.parts)

    @property
    def rows(self) -> int:
        """The rows of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def checksum(self) -> str:
        """Cover the list and, through its checksums, the parts."""
        return listing_checksum(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Serialise, the same for the same parts."""
        stored = {
            "version": _VERSION,
            "schema": self.schema,
            "parts": [asdict(part) for part in self.parts],
        }
        return json.dumps(stored, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Listing:
        """Read what :meth:`to_bytes` made; ValueError, KeyError or TypeError for anything else."""
        stored = json.loads(data)
        if stored["version"] != _VERSION:
            raise ValueError(f"version {stored['version']!r}, expected {_VERSION}")
        return cls(parts=tuple(Part(**part) for part in stored["parts"]), schema=stored["schema"])


def listing_checksum(data: bytes) -> str:
    """Return the checksum of a list by its bytes."""
    return PARTS_SCHEME + bytes_digest(data)
