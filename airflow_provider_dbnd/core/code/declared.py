"""What a task declares it depends on besides its code: packages, modules, files, folders."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

from airflow_provider_dbnd.core.code.project import Project
from airflow_provider_dbnd.core.code.source import source_of
from airflow_provider_dbnd.core.digest import bytes_digest, digest_of
from airflow_provider_dbnd.exceptions import ConfigurationError

_GENERATED = frozenset(("__pycache__",))


def declared_part(name: str, project: Project, folder: str) -> tuple[str, str]:
    """Return the label and the version or digest of what is declared as *name*.

    :param folder: where relative paths start
    """
    path = os.path.join(folder, name)
    if os.path.exists(path):
        return f"file {name}", _content(path)
    version = _version(name)
    if version is not None:
        return f"package {name}", version
    spec = _spec(name)
    if spec is None:
        raise ConfigurationError(
            f"declared dependency {name!r} is not there: expected a file or folder in {folder}, an "
            "installed package, or a module that can be imported."
        )
    return f"module {name}", _module(spec, project)


@lru_cache(maxsize=1024)
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except (ImportError, ValueError):
        return None


def _module(spec: ModuleSpec, project: Project) -> str:
    """Return the digest of a module of the project, and the version of any other."""
    places = list(spec.submodule_search_locations or filter(None, [spec.origin]))
    if any(map(project.has, places)):
        return digest_of(_content(place, code=True).encode() for place in places).hex()
    top = spec.name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return platform.python_version()
    owners = importlib.metadata.packages_distributions().get(top, [])
    return " ".join(f"{owner} {_version(owner)}" for owner in sorted(set(owners)))


def _content(path: str, *, code: bool = False) -> str:
    """Return the digest of a file, or of all files in a folder with their names.

    :param code: whether only that counts of Python files which matters to Python
    """
    if os.path.isdir(path):
        parts = [
            p for file in _files(path) for p in (os.path.relpath(file, path), _one(file, code))
        ]
        return digest_of(part.encode() for part in parts).hex()
    return _one(path, code)


def _one(path: str, code: bool) -> str:
    if code and path.endswith(".py"):
        source = source_of(path, {})
        form = source.whole
        return bytes_digest("\n".join((form.shape, *map(ascii, form.references))).encode())
    with open(path, "rb") as file:
        return bytes_digest(file.read())


def _files(folder: str) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - _GENERATED)
        yield from (os.path.join(here, name) for name in sorted(names))
