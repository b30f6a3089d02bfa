"""The code that travels with a task: the project's files, this package, and the libraries it needs.

Each archive is a zip of its own, stored once under a key that names its content.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import importlib.metadata
import io
import os
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from airflow_provider_dbnd.core.bootstrap import python_tag
from airflow_provider_dbnd.core.settings import FILE_NAME, Settings
from airflow_provider_dbnd.core.store import ArtifactStore, key
from airflow_provider_dbnd.exceptions import CodeDeliveryError, ConfigurationError

Kind = Literal["runner", "libraries", "project"]

#: Folder of the store that holds archives of code.
CODE = "_code"

#: What ``core`` imports at run time, besides the libraries of the data and of the store.
_LIBRARIES = (
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-extensions",
    "typing-inspection",
    "blake3",
    "fsspec",
    *(("tomli",) if sys.version_info < (3, 11) else ()),
)

_BUNDLE_KEYS = ("exclude", "max_mb")
_MAX_MB = 50
_NEVER = ("__pycache__", "node_modules", "*.pyc", "*.pyo", "*.egg-info")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A zip of code in the store. ``python`` says which Python can load it, where that matters."""

    kind: Kind
    uri: str
    sha256: str
    python: str | None = None


def project_root(file: str, settings: Settings) -> str:
    """Return the folder whose files travel with the functions of *file*.

    The folder of ``dbnd.toml``; else the folder that the file's package, or the file, is imported
    from.
    """
    folder = Path(file).resolve().parent
    if settings.file and Path(settings.file).name == FILE_NAME:
        home = Path(settings.file).resolve().parent
        if folder.is_relative_to(home):
            return str(home)
    paths = {Path(entry or os.getcwd()).resolve() for entry in sys.path}
    importable = [each for each in (folder, *folder.parents) if each in paths]
    if importable:
        return str(importable[0])
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return str(folder)


def is_installed(file: str) -> bool:
    """Tell whether *file* belongs to an installed library or to Python, and to no project."""
    where = Path(file).resolve()
    paths = sysconfig.get_paths()
    return any(where.is_relative_to(paths[name]) for name in ("stdlib", "purelib", "platlib"))


def project_archive(store: ArtifactStore, root: str, settings: Settings) -> Archive:
    """Store the files below *root* that are not excluded."""
    options = settings.bundle
    _check(options)
    excluded = (*_NEVER, *options.get("exclude", ()))
    files = dict(_project_files(root, excluded, settings))
    limit = float(options.get("max_mb", _MAX_MB)) * 2**20
    sizes = {name: os.path.getsize(path) for name, path in files.items()}
    if sum(sizes.values()) > limit:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
        listed = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MB)" for name in largest)
        raise CodeDeliveryError(
            f"the project in {root} is too large to travel with a task: expected at most "
            f"{limit / 2**20:g} MB, got {sum(sizes.values()) / 2**20:.1f} MB. The largest files are "
            f"{listed}. Keep data out of the project, list patterns in [bundle] exclude of "
            f"{FILE_NAME}, or raise [bundle] max_mb."
        )
    return _stored(store, "project", files)


def runner_archives(store: ArtifactStore) -> Iterator[Archive]:
    """Store this package, and the libraries it needs, which an image may not have."""
    runner, libraries = _own_files(), _library_files()
    yield _stored(store, "runner", runner)
    yield _stored(store, "libraries", libraries, python=python_tag())


def _check(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        fits = isinstance(value, list) if name == "exclude" else isinstance(value, int | float)
        if name not in _BUNDLE_KEYS or not fits:
            raise ConfigurationError(
                f"[bundle] of {FILE_NAME}: expected exclude (a list of patterns) and max_mb (a "
                f"number), got {name} = {value!r}."
            )


def _project_files(
    root: str, excluded: Iterable[str], settings: Settings
) -> Iterator[tuple[str, str]]:
    store = settings.store if "://" not in settings.store else None
    for folder, folders, names in os.walk(root):
        relative = os.path.relpath(folder, root)
        folders[:] = sorted(
            name
            for name in folders
            if not _is_left_out(os.path.normpath(os.path.join(relative, name)), excluded)
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
            and os.path.join(folder, name) != store
        )
        for name in sorted(names):
            path = os.path.normpath(os.path.join(relative, name))
            if not _is_left_out(path, excluded) and os.path.isfile(os.path.join(folder, name)):
                yield path.replace(os.sep, "/"), os.path.join(folder, name)


def _is_left_out(path: str, excluded: Iterable[str]) -> bool:
    name = os.path.basename(path)
    return name.startswith(".") or any(
        fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(path, pattern) for pattern in excluded
    )


@functools.cache
def _own_files() -> Mapping[str, str]:
    home = Path(__file__).resolve().parent.parent
    return {
        f"{home.name}/{path.relative_to(home).as_posix()}": str(path)
        for path in sorted(home.rglob("*"))
        if path.suffix in (".py", ".typed")
    }


@functools.cache
def _library_files() -> Mapping[str, str]:
    return {
        name: path
        for library in _LIBRARIES
        for name, path in sorted(_files_of(library))
        if not name.startswith("..") and not name.endswith(".pyc")
    }


def _files_of(library: str) -> Iterator[tuple[str, str]]:
    distribution = importlib.metadata.distribution(library)
    for file in distribution.files or ():
        path = str(file.locate())
        if os.path.isfile(path):
            yield file.as_posix(), path


def _stored(
    store: ArtifactStore, kind: Kind, files: Mapping[str, str], python: str | None = None
) -> Archive:
    # Compiled libraries hardly shrink, and every task's process would spend the time anew.
    method = zipfile.ZIP_STORED if kind == "libraries" else zipfile.ZIP_DEFLATED
    data, sha256 = _zipped(tuple(sorted(files.items())), method, _state(files))
    where = key(CODE, f"{kind}-{sha256[:32]}.zip")
    # The key names the bytes, so what is there is right.
    uri = store.uri(where) if store.exists(where) else store.put_bytes(where, data)
    return Archive(kind=kind, uri=uri, sha256=sha256, python=python)


def _state(files: Mapping[str, str]) -> tuple[tuple[int, int], ...]:
    """Return what changes when one of the files does."""
    states = map(os.stat, files.values())
    return tuple((state.st_mtime_ns, state.st_size) for state in states)


@functools.lru_cache(maxsize=8)
def _zipped(
    files: tuple[tuple[str, str], ...],
    method: int,
    state: object,  # noqa: ARG001 - part of the cache's key
) -> tuple[bytes, str]:
    """Return a zip of *files* and its hash: the same for the same names and contents, on any day."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, path in files:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = method
            info.external_attr = 0o644 << 16
            zipped.writestr(info, Path(path).read_bytes())
    data = buffer.getvalue()
    return data, hashlib.sha256(data).hexdigest()
