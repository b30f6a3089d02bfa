"""Naming a decorated function so that another process finds it again."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from airflow_provider_dbnd.core.bundle import is_installed
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import CodeDeliveryError


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionReference:
    """Where a function is: a file of the project, or an installed module, and its name there."""

    name: str
    file: str | None = None
    module: str | None = None


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
    if is_installed(file):
        return FunctionReference(name=name, module=function.__module__)
    path = os.path.relpath(os.path.realpath(file), os.path.realpath(root))
    if path.startswith(os.pardir):
        raise CodeDeliveryError(
            f"task {definition.name!r}: {file} is not below the project's folder {root}, so its code "
            "does not travel. Move it there, or install it in the image."
        )
    return FunctionReference(name=name, file=path.replace(os.sep, "/"))


def find_definition(reference: FunctionReference, project: str | None) -> Definition:
    """Load the module of *reference* and return the task's definition."""
    where = reference.file or reference.module
    try:
        module = _load(reference, project)
    except Exception as exc:
        raise CodeDeliveryError(
            f"{where} cannot be imported where the task runs: {type(exc).__name__}: {exc}. Install "
            "what is missing there, or import it inside the functions that need it."
        ) from exc
    found = next(_definitions(module, reference.name), None)
    if found is None:
        names = [name for name, value in vars(module).items() if _definition(value) is not None]
        raise CodeDeliveryError(
            f"{where} has no task {reference.name!r} where the task runs"
            f"{did_you_mean(reference.name, names)}"
        )
    return found


def _load(reference: FunctionReference, project: str | None) -> ModuleType:
    if reference.file is None:
        return importlib.import_module(str(reference.module))
    if project is None:
        raise ModuleNotFoundError("the project's files did not travel with the task")
    path = os.path.join(project, *reference.file.split("/"))
    folder = os.path.dirname(path)
    # As where it came from: modules beside the file, and below the project's folder, are importable.
    for each in (project, folder):
        if each not in sys.path:
            sys.path.insert(0, each)
    name = _module_name(reference.file)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(file: str) -> str:
    name = file.removesuffix(".py").replace("/", ".")
    while name in sys.stdlib_module_names or name == "airflow_provider_dbnd":
        name += "_"
    return name


def _definitions(module: ModuleType, qualname: str) -> Iterator[Definition]:
    """Yield what is bound to the name, then tasks made of that function under another name."""
    value: Any = module
    for part in qualname.split("."):
        value = getattr(value, part, None)
    if (definition := _definition(value)) is not None:
        yield definition
    for each in vars(module).values():
        definition = _definition(each)
        if definition and inspect.unwrap(definition.function).__qualname__ == qualname:
            yield definition


def _definition(value: Any) -> Definition | None:
    definition = getattr(value, "definition", None)
    return definition if isinstance(definition, Definition) else None
