"""Users' inputs: which files a path means, be it a file, a folder or a glob, and what was read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_dbnd.core.storage.filesystem import Location, parse
from airflow_provider_dbnd.core.storage.object_info import version_of
from airflow_provider_dbnd.core.storage.parts import LISTING

_MAGIC = re.compile(r"[*?\[]")
#: Files that Spark, Hadoop and Dask leave beside the data, and our own list of a folder's parts.
_MARKERS = {
    "_SUCCESS",
    "_metadata",
    "_common_metadata",
    "_temporary",
    "_committed",
    "_started",
    LISTING,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A user's input as a local file."""

    path: str
    checksum: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """A user's input that was not read here. ``checksum`` covers names, sizes and versions.

    ``uris`` are its files, and ``folder`` tells whether ``uri`` is one they are all in.
    """

    uri: str
    uris: tuple[str, ...]
    folder: bool
    checksum: str
    size: int


def files_of(
    uri: str, open_filesystem: Callable[[str], tuple[Any, str]]
) -> dict[str, Mapping[str, Any]]:
    """Return the URIs of the files *uri* means, sorted, with what the file system says of each."""
    where = parse(uri)
    if where.scheme in ("http", "https"):
        return {uri: {}}
    fs, path = open_filesystem(uri)
    info = _info(fs, path)
    if info is not None:
        return _below(fs, path, where) if info["type"] == "directory" else {uri: info}
    if not _MAGIC.search(path):
        return {}
    files: dict[str, Mapping[str, Any]] = {}
    for name, match in fs.glob(path, detail=True).items():
        if _hidden(name.rstrip("/").rpartition("/")[2]):
            continue
        if match["type"] == "directory":
            files |= _below(fs, name, where)
        else:
            files[_uri(where, name)] = match
    return dict(sorted(files.items()))


def surveyed(uri: str, files: Mapping[str, Mapping[str, Any]]) -> Survey:
    """Sum up the *files* that *uri* means."""
    from airflow_provider_dbnd.core.digest import digest_of

    seen = [text for name, info in files.items() for text in (name, version_of(info))]
    return Survey(
        uri=uri,
        uris=tuple(files),
        folder=all(each.startswith(f"{uri.rstrip('/')}/") for each in files),
        checksum=f"listing:{digest_of(text.encode() for text in seen).hex()}",
        size=sum(int(info.get("size") or 0) for info in files.values()),
    )


def _info(fs: Any, path: str) -> Mapping[str, Any] | None:
    try:
        info: Mapping[str, Any] = fs.info(path)
    except FileNotFoundError:
        return None
    return info


def _below(fs: Any, folder: str, where: Location) -> dict[str, Mapping[str, Any]]:
    root = folder.strip("/")
    files: dict[str, Mapping[str, Any]] = {}
    for name, info in fs.find(folder, detail=True).items():
        parts = name.strip("/")[len(root) :].strip("/").split("/")
        if info["type"] == "file" and parts[-1] and not any(map(_hidden, parts)):
            files[_uri(where, name)] = info
    return dict(sorted(files.items()))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _MARKERS


def _uri(where: Location, name: str) -> str:
    """Return the URI of fsspec's *name*, with the connection and host of *where*."""
    path = "/" + name.strip("/")
    inside = where.scheme not in ("file", "webhdfs", "hdfs") and where.host
    return str(where.at(path.removeprefix(f"/{where.host}") if inside else path))
