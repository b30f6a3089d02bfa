"""References to stored data: what travels between tasks instead of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MARKER = "dbnd_artifact"
VERSION = 1

#: A reference must stay readable in the Airflow UI and cheap in the metadata DB.
MAX_REFERENCE_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A typed, versioned reference to one stored object.

    ``digest`` names the data, whatever the stored format; ``checksum`` covers what is stored and is
    verified on read. ``rows`` and ``schema`` (column name, type) are there for tabular data.

    >>> a = Artifact(uri="memory://s/p/t/result/ab.json", type="dict", format="json",
    ...              digest="ab", checksum="blake3:ab", size=2)
    >>> Artifact.from_json(a.to_json()) == a
    True
    """

    uri: str
    type: str
    format: str
    digest: str
    checksum: str
    size: int
    rows: int | None = None
    schema: tuple[tuple[str, str], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plain dict that goes to XCom: JSON primitives only, under 4 KB."""
        reference: dict[str, Any] = {
            MARKER: VERSION,
            "uri": self.uri,
            "type": self.type,
            "format": self.format,
            "digest": self.digest,
            "checksum": self.checksum,
            "size": self.size,
        }
        if self.rows is not None:
            reference["rows"] = self.rows
        if self.schema is not None:
            reference["schema"] = dict(_head(self.schema, MAX_REFERENCE_BYTES - _size(reference)))
            if len(reference["schema"]) < len(self.schema):
                reference["columns"] = len(self.schema)
        return reference

    @classmethod
    def from_json(cls, reference: Mapping[str, Any]) -> Artifact:
        """Read a reference made by :meth:`to_json`."""
        schema = reference.get("schema")
        return cls(
            uri=reference["uri"],
            type=reference["type"],
            format=reference["format"],
            digest=reference["digest"],
            checksum=reference["checksum"],
            size=reference["size"],
            rows=reference.get("rows"),
            schema=None if schema is None else tuple(schema.items()),
        )


def is_reference(value: object) -> bool:
    """Tell whether *value* is the JSON form of an :class:`Artifact`."""
    return isinstance(value, dict) and MARKER in value


def brief(encoded: Any, limit: int = 200) -> str:
    """Return an encoded value for a log line: references by their URI, the rest cut."""
    if is_reference(encoded):
        return str(encoded["uri"])
    if isinstance(encoded, list | dict):
        each = encoded.values() if isinstance(encoded, dict) else encoded
        if references := sum(map(is_reference, each)):
            return f"{references} artifacts"
    text = repr(encoded)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _size(value: object) -> int:
    return len(json.dumps(value))


def _head(schema: tuple[tuple[str, str], ...], room: int) -> list[tuple[str, str]]:
    """Return as many leading columns as fit into *room* bytes of JSON."""
    kept: list[tuple[str, str]] = []
    # 64 bytes cover the keys "schema" and "columns" with their punctuation.
    room -= 64
    for name, type_ in schema:
        room -= _size({name: type_}) + 2
        if room < 0:
            break
        kept.append((name, type_))
    return kept
