"""The files of a user's project that travel with its tasks."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core.settings import FILE_NAME, Settings
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import CodeDeliveryError, ConfigurationError

_KEYS = ("exclude", "max_mb", "record")
_MAX_MB = 50
#: The settings stay here: the job needs none of them, and they may hold secrets.
_NEVER = ("__pycache__", "node_modules", "*.pyc", "*.pyo", "*.egg-info", FILE_NAME)
#: Seconds before the files are listed again: git takes a second or two to switch a large branch.
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


class ProjectFiles:
    """The files below a project's folder, but for what is hidden, excluded, or no part of it."""

    def __init__(self, root: str, settings: Settings, store: ArtifactStore) -> None:
        options = settings.bundle
        _check_options(options)
        self.root = root
        given = (pattern.removeprefix("./").rstrip("/") for pattern in options.get("exclude", ()))
        self._excluded = (*_NEVER, *given)
        self._limit = float(options.get("max_mb", _MAX_MB)) * 2**20
        apart = (settings.file, store.url.removeprefix("file://"))
        self._apart = {os.path.realpath(path) for path in apart if path and "://" not in path}

    def contents(self) -> dict[str, bytes]:
        """Read the files. Editors and git take some away for a moment: then all are listed again."""
        for pause in (0, *_PAUSES):
            time.sleep(pause)
            try:
                files = dict(self._files())
                self._check(files)
                return read_all(files)
            except FileNotFoundError as exc:
                vanished = exc.filename
            except OSError as exc:
                raise CodeDeliveryError(
                    f"{exc.filename} in the project's folder {self.root} cannot be read: "
                    f"{exc.strerror}. Allow it to be read, or list it in [bundle] exclude of {FILE_NAME}."
                ) from exc
        raise CodeDeliveryError(
            f"the project's folder {self.root} does not hold still: {vanished} vanished while it was "
            f"read. List what changes all the time in [bundle] exclude of {FILE_NAME}."
        )

    def _files(self) -> Iterator[tuple[str, str]]:
        """Yield name and path; links are followed, as Python does when it imports."""
        for folder, folders, names in os.walk(self.root, followlinks=True, onerror=_raise):
            relative = os.path.relpath(folder, self.root)
            folders[:] = sorted(
                name
                for name in folders
                if self._travels(relative, name) and _is_part(os.path.join(folder, name))
            )
            for name in sorted(names):
                path = os.path.join(folder, name)
                if self._travels(relative, name) and os.path.isfile(path):
                    yield os.path.normpath(os.path.join(relative, name)).replace(os.sep, "/"), path

    def _travels(self, folder: str, name: str) -> bool:
        path = os.path.normpath(os.path.join(folder, name))
        if name.startswith(".") or any(
            fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(path, pattern)
            for pattern in self._excluded
        ):
            return False
        where = os.path.join(self.root, path)
        return (os.path.realpath(where) if os.path.islink(where) else where) not in self._apart

    def _check(self, files: Mapping[str, str]) -> None:
        for name in files:
            try:
                name.encode()
            except UnicodeEncodeError as exc:
                raise CodeDeliveryError(
                    f"file {name!r} in the project's folder {self.root} has a name that is not UTF-8. "
                    f"Rename it, or list it in [bundle] exclude of {FILE_NAME}."
                ) from exc
        sizes = {name: os.path.getsize(path) for name, path in files.items()}
        total = sum(sizes.values())
        if total <= self._limit:
            return
        largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
        listed = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MB)" for name in largest)
        raise CodeDeliveryError(
            f"the project in {self.root} is too large to travel with a task: expected at most "
            f"{self._limit / 2**20:g} MB, got {total / 2**20:.1f} MB. The largest files are "
            f"{listed}. Keep data out of the project, list patterns in [bundle] exclude of "
            f"{FILE_NAME}, or raise [bundle] max_mb."
        )


def read_all(paths: Mapping[str, str]) -> dict[str, bytes]:
    """Return the content of each file, by the name it travels under."""
    return {name: _read(path) for name, path in paths.items()}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        exc.filename = path  # only opening a file names it
        raise


def _raise(error: OSError) -> None:
    raise error


def _is_part(folder: str) -> bool:
    """Tell whether *folder* is neither a virtual environment nor a link back to where it is in."""
    if os.path.exists(os.path.join(folder, "pyvenv.cfg")):
        return False
    if not os.path.islink(folder):
        return True
    return os.path.realpath(folder) not in map(os.path.realpath, Path(folder).parents)


def _check_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name == "exclude":
            fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
        else:
            fits = isinstance(value, bool if name == "record" else int | float)
        if name not in _KEYS or not fits:
            raise ConfigurationError(
                f"[bundle] of {FILE_NAME}: expected exclude (a list of patterns), max_mb (a number) and "
                f"record (true or false), got {name} = {value!r}."
            )
