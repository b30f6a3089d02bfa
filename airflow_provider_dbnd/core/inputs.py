"""Which files a user means: a file, a folder, a glob."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from airflow_provider_dbnd.core.filesystem import Location, parse

_MAGIC = re.compile(r"[*?\[]")
#: Files that Spark, Hadoop and Dask leave beside the data.
_MARKERS = {"_SUCCESS", "_metadata", "_common_metadata", "_temporary", "_committed", "_started"}


def files(uri: str, open_filesystem: Callable[[str], tuple[Any, str]]) -> list[str]:
    """Return the URIs of the files *uri* means, sorted; empty if there are none."""
    where = parse(uri)
    if where.scheme in ("http", "https"):
        return [uri]
    fs, path = open_filesystem(uri)
    found = _kind(fs, path)
    if found == "file":
        return [uri]
    if found == "directory":
        return _below(fs, path, where)
    if not _MAGIC.search(path):
        return []
    matches = fs.glob(path, detail=True)
    names: list[str] = []
    for name, info in sorted(matches.items()):
        if _hidden(name.rstrip("/").rpartition("/")[2]):
            continue
        names += _below(fs, name, where) if info["type"] == "directory" else [_uri(where, name)]
    return sorted(set(names))


def _kind(fs: Any, path: str) -> str | None:
    try:
        return str(fs.info(path)["type"])
    except FileNotFoundError:
        return None


def _below(fs: Any, folder: str, where: Location) -> list[str]:
    root = folder.strip("/")
    names = []
    for name, info in fs.find(folder, detail=True).items():
        parts = name.strip("/")[len(root) :].strip("/").split("/")
        if info["type"] == "file" and parts[-1] and not any(map(_hidden, parts)):
            names.append(_uri(where, name))
    return sorted(names)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _MARKERS


def _uri(where: Location, name: str) -> str:
    """Return the URI of fsspec's *name*, with the connection and host of *where*."""
    path = "/" + name.strip("/")
    inside = where.scheme not in ("file", "webhdfs", "hdfs") and where.host
    return str(where.at(path.removeprefix(f"/{where.host}") if inside else path))
