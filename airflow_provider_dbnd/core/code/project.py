"""Where the project ends: what is in it is followed, what is outside counts by nothing."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import lru_cache
from importlib.util import find_spec

_SELF = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_INSTALLED = ("site-packages", "dist-packages")


class Project:
    """The user's own code, as seen from one of its files.

    It is all that is not of the standard library, of this package, of Spark, or installed in a
    ``site-packages`` folder. A package installed in editable mode belongs to it, and so does the
    installed package that *file* itself is of.
    """

    def __init__(self, file: str) -> None:
        path = os.path.abspath(file)
        self._own = _package_folder(path)
        self._known: dict[str, bool] = {}

    def has(self, file: object) -> bool:
        """Tell whether a file belongs to the project."""
        if not isinstance(file, str) or not file or file.startswith("<"):
            return False
        known = self._known.get(file)
        if known is None:
            path = os.path.abspath(file)
            own = self._own is not None and f"{path}{os.sep}".startswith(self._own + os.sep)
            known = self._known[file] = own or not _is_outside(path)
        return known

    def has_package(self, name: str) -> bool:
        """Tell whether a top-level module may belong to the project, without importing it."""
        if name in sys.stdlib_module_names:
            return False
        spec = getattr(sys.modules.get(name), "__spec__", None)
        places = _places(name) if spec is None else _places_of(spec)
        return not places or any(map(self.has, places))


@lru_cache(maxsize=256)
def project_of(file: str) -> Project:
    """Return the project that a file is of."""
    return Project(file)


def _is_outside(path: str) -> bool:
    if not set(_INSTALLED).isdisjoint(path.split(os.sep)):
        return True
    return any(path.startswith(folder + os.sep) for folder in _outside())


@lru_cache(maxsize=1)
def _outside() -> tuple[str, ...]:
    found = {
        _SELF,
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        os.path.dirname(os.__file__),
    }
    # Spark puts its own Python files on the path of a driver without installing them.
    if spark := os.environ.get("SPARK_HOME"):
        found.add(spark)
    return tuple(sorted(found | set(map(os.path.realpath, found))))


def _package_folder(path: str) -> str | None:
    """Return the folder of the package a file is of, for one that would be outside otherwise."""
    if path.startswith(_SELF + os.sep):
        return _SELF
    parts = path.split(os.sep)
    ends = [i for i, part in enumerate(parts[:-1]) if part in _INSTALLED]
    return os.sep.join(parts[: ends[-1] + 2]) if ends else None


@lru_cache(maxsize=1024)
def _places(name: str) -> tuple[str, ...]:
    try:
        return _places_of(find_spec(name))
    except (ImportError, ValueError):
        return ()


def _places_of(spec: object) -> tuple[str, ...]:
    origin = getattr(spec, "origin", None)
    if origin is not None:
        return (origin,)
    # A namespace package has folders only.
    return tuple(getattr(spec, "submodule_search_locations", None) or ())
