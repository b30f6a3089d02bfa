"""Naming a decorated function so that another process finds it again."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.remote.bundle import is_installed, is_library
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import CodeDeliveryError


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionReference:
    """Where a task is: its module, the module's file if that is one of the project, its name there.

    The name is what the module calls the task, or that of the task's function. ``first`` tells whether
    the project's modules come before installed ones of the same name.
    """

    name: str
    file: str | None = None
    module: str | None = None
    first: bool = True


def refer(definition: Definition, root: str) -> FunctionReference:
    """Return the reference to a task's function; *root* is the project's folder."""
    function = inspect.unwrap(definition.function)
    name, file = function.__qualname__, function.__code__.co_filename
    if "<locals>" in name or "<lambda>" in name:
        raise CodeDeliveryError(
            f"task {definition.name!r}: function {name!r} cannot be found by another process, since "
            "it is defined inside a function. Define it at the top of a module."
        )
    if not os.path.isfile(file):
        raise CodeDeliveryError(
            f"task {definition.name!r}: function {name!r} is in no file ({file}), so its code cannot "
            "travel. Write it to a .py file, or run it on the 'local' engine."
        )
    bound = _bound_name(definition, function.__globals__)
    if bound is None:
        raise CodeDeliveryError(
            f"task {definition.name!r}: no name of module {function.__module__} is the task of "
            f"function {name!r}, so another process does not find it. Decorate the function with "
            "@task, or assign task(...) to a name at the top of that module."
        )
    if is_installed(file):
        return FunctionReference(name=bound, module=function.__module__)
    path = os.path.relpath(os.path.realpath(file), os.path.realpath(root))
    if path.startswith(os.pardir):
        raise CodeDeliveryError(
            f"task {definition.name!r}: {file} is not below the project's folder {root}, so its code "
            "does not travel. Move it there, or install it in the image."
        )
    path = path.replace(os.sep, "/")
    folders = {os.path.realpath(root), os.path.realpath(os.path.dirname(file))}
    return FunctionReference(
        name=bound, module=_module_of(path), file=path, first=_is_first(folders)
    )


def find_definition(reference: FunctionReference, project: str | None) -> Definition:
    """Load the module of *reference* and return the task's definition.

    :param project: the folder with the project's files, where they travelled.
    """
    where = reference.file if reference.file and project else reference.module
    try:
        module = _load(reference, project)
    except Exception as exc:
        raise CodeDeliveryError(
            f"{where} cannot be imported where the task runs: {type(exc).__name__}: {exc}. "
            f"{_remedy(exc)}"
        ) from exc
    found = dict(_definitions(vars(module)))
    if reference.name in found:
        return found[reference.name]
    for definition in found.values():
        if inspect.unwrap(definition.function).__qualname__ == reference.name:
            return definition
    raise CodeDeliveryError(
        f"{where} has no task {reference.name!r} where the task runs"
        f"{did_you_mean(reference.name, found)}"
    )


def _remedy(error: Exception) -> str:
    missing = str(error.name) if isinstance(error, ModuleNotFoundError) else ""
    if missing.partition(".")[0] == "airflow":
        return (
            "Airflow is not needed there if the tasks are in a module of their own that does not "
            "import it, and the DAG file imports them from that; or install Airflow in the image."
        )
    return (
        "Install what is missing there, put it into the project's folder, or import it inside the "
        "functions that need it."
    )


def _load(reference: FunctionReference, project: str | None) -> ModuleType:
    file = reference.file
    if file is None or project is None:
        return importlib.import_module(str(reference.module))
    path = os.path.join(project, *file.split("/"))
    # As where it came from: modules beside the file, and below the project's folder, are importable.
    folders = list(dict.fromkeys((os.path.dirname(path), project)))
    sys.path[:] = [*folders, *sys.path] if reference.first else [*sys.path, *folders]
    name = _module_of(file)
    if not _is_ours(name.partition(".")[0], project):
        # The name means a module of Python or of a library, and others import it as that.
        name = f"_dbnd_{name.replace('.', '_')}"
    inside = [os.path.dirname(path)] if file.endswith("/__init__.py") else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _is_ours(module: str, project: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return True
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    return any(place is not None and Path(place).is_relative_to(project) for place in places)


def _is_first(folders: set[str]) -> bool:
    """Tell whether one of *folders* comes before installed libraries on the path."""
    for entry in map(os.path.realpath, sys.path):
        if entry in folders:
            return True
        if is_library(entry):
            return False
    return False


def _bound_name(definition: Definition, names: Mapping[str, Any]) -> str | None:
    """Return the name that a module gives the task, were it also changed by ``override``."""
    own = inspect.unwrap(definition.function).__name__
    found = [name for name, each in _definitions(names) if each.signature is definition.signature]
    return own if own in found else next(iter(found), None)


def _definitions(names: Mapping[str, Any]) -> Iterator[tuple[str, Definition]]:
    for name, value in names.items():
        definition = _definition(value)
        if definition is not None:
            yield name, definition


def _definition(value: Any) -> Definition | None:
    # Not by getattr: a DAG that nobody has looked at would be built, which takes Airflow.
    definition = inspect.getattr_static(value, "definition", None)
    return definition if isinstance(definition, Definition) else None
