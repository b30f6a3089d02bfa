"""What fsspec's ``info`` tells of an object, which each file system names its own way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

#: What file systems call that which changes whenever an object is written.
_VERSIONS = ("ETag", "etag", "modificationTime")


def modified(info: Mapping[str, Any]) -> float:
    """Return the modification time in seconds since the epoch; 0 where nothing tells."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            # fsspec's memory file system gives aware times, some others naive ones in UTC.
            return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).timestamp()
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, str):
            return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    if "modificationTime" in info:
        return float(info["modificationTime"]) / 1000
    return 0.0


def version_of(info: Mapping[str, Any]) -> str:
    """Return what changes when the object gets other content, as well as can be told."""
    return stamp_of(info) or f"{info.get('size')}:{modified(info)}"


def stamp_of(info: Mapping[str, Any]) -> str | None:
    """Return what changes whenever the object is written; None where nothing tells for sure."""
    version = next((info[name] for name in _VERSIONS if info.get(name)), None)
    return None if version is None else f"{info.get('size')}:{version}"
