"""A module of the project: its names, its source, and how both are found."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from airflow_provider_dbnd.core.code.project import Project
from airflow_provider_dbnd.core.code.scopes import Imported
from airflow_provider_dbnd.core.code.source import Source, source_of
from airflow_provider_dbnd.exceptions import FingerprintError


@dataclass(frozen=True, eq=False)
class Module:
    """A loaded module of the project, by the namespace its functions see."""

    names: Mapping[str, Any]
    file: str

    @cached_property
    def source(self) -> Source:
        """The module's source file as it is now."""
        return source_of(self.file, self.names)

    @cached_property
    def label(self) -> str:
        """The module's name for people, the same however its file was loaded."""
        name = str(self.names.get("__name__", ""))
        if name == "__main__":
            name = getattr(self.names.get("__spec__"), "name", name)
        stem = os.path.splitext(os.path.basename(self.file))[0]
        return name if "." in name or stem == "__init__" else stem

    @cached_property
    def root(self) -> str:
        """The folder from which the module is imported."""
        folder = os.path.dirname(os.path.abspath(self.file))
        for _ in range(self.label.count(".") + self.file.endswith("__init__.py")):
            folder = os.path.dirname(folder)
        return folder

    def absolute(self, name: str) -> str:
        """Return the full name of a module imported here."""
        package = self.names.get("__package__") or str(self.names.get("__name__", ""))
        try:
            return importlib.util.resolve_name(name, package) if name.startswith(".") else name
        except ImportError:  # beyond the top package: nothing is there
            return name


def imported_module(project: Project, module: Module, imported: Imported) -> ModuleType | str:
    """Return the module of the project that an import inside a function takes from.

    For one from outside, or that is not there, return its name.
    """
    start = module.absolute(imported.start)
    if not project.has_package(start.partition(".")[0]):
        return start
    if not all([_load(module.absolute(name), module) for name in imported.modules]):
        return f"absent {start}"
    found = sys.modules[start]
    names = vars(found)
    if imported.attribute is not None and "__path__" in names and imported.attribute not in names:
        _load(f"{start}.{imported.attribute}", module)
    return found


def _load(name: str, module: Module) -> bool:
    """Import a module, as the function that imports it is about to; tell whether it is there."""
    try:
        importlib.import_module(name)
    except (ModuleNotFoundError, TypeError):  # TypeError: a relative name that leads nowhere
        return False
    # Whatever the user's module raises.
    except Exception as exc:
        raise FingerprintError(
            f"{module.label} imports {name} in a function, and that fails: {exc!r}."
        ) from exc
    return True
