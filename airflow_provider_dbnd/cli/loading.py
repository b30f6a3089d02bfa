"""Finding decorated functions in a file or a module."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeAlias

from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.core.tracebacks import user_traceback
from airflow_provider_dbnd.decorators.pipeline import Pipeline
from airflow_provider_dbnd.decorators.task import Task
from airflow_provider_dbnd.exceptions import ConfigurationError

Runnable: TypeAlias = "Pipeline[..., object] | Task[..., object]"


def load_module(target: str) -> ModuleType:
    """Import a file by path, or a module by its dotted name."""
    if not target.endswith(".py") and os.sep not in target:
        if not all(target.split(".")):
            raise ConfigurationError(
                f"{target!r} names no file and no module: expected FILE.py[:NAME] or "
                "package.module[:NAME]."
            )
        sys.path.insert(0, os.getcwd())
        with _import_errors(target):
            return importlib.import_module(target)
    path = os.path.abspath(target)
    if not os.path.isfile(path):
        raise ConfigurationError(f"No such file: {target}.")
    name = _free_name(os.path.splitext(os.path.basename(path))[0])
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{target} is not a Python file (.py).")
    module = importlib.util.module_from_spec(spec)
    # As for a script: files beside this one can be imported.
    sys.path.insert(0, os.path.dirname(path))
    sys.modules[name] = module
    try:
        with _import_errors(target):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _free_name(name: str) -> str:
    """Return a module name that hides no module: a file may be called as one of the library's."""
    while name in sys.modules or name in sys.stdlib_module_names:
        name += "_"
    return name


@contextlib.contextmanager
def _import_errors(target: str) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        raise ConfigurationError(
            f"{target} cannot be imported:\n{user_traceback(exc).rstrip()}"
        ) from exc


def runnables(module: ModuleType) -> dict[str, Runnable]:
    """Return the tasks and pipelines a module defines, by name."""
    return {name: value for name, value in vars(module).items() if type(value) in (Pipeline, Task)}


def find(target: str) -> Runnable:
    """Return what ``FILE[:NAME]`` names; without NAME the only pipeline, else the only task."""
    place, colon, name = target.rpartition(":")
    if not colon or os.sep in name or name.endswith(".py"):
        place, name = target, ""
    module = load_module(place)
    found = runnables(module)
    if name:
        if name not in found:
            raise ConfigurationError(
                f"{place} has no task or pipeline {name!r}{did_you_mean(name, found)}"
            )
        return found[name]
    candidates = {n: r for n, r in found.items() if isinstance(r, Pipeline)} or found
    if not candidates:
        raise ConfigurationError(
            f"{place} has no function decorated with @pipeline or @task of airflow_provider_dbnd."
        )
    if len(set(map(id, candidates.values()))) > 1:
        names = ", ".join(sorted(candidates))
        raise ConfigurationError(f"{place} has several: {names}. Name one: {place}:NAME.")
    name, chosen = next(iter(candidates.items()))
    if _makes_dags_itself(module):
        print(
            f"{place}: this is {chosen.definition.kind} {name!r}, written {place}:{name}. A DAG in the "
            "file that as_dag() did not make is run by `airflow dags test`.",
            file=sys.stderr,
        )
    return chosen


def _makes_dags_itself(module: ModuleType) -> bool:
    return any(map(_is_of_airflow, list(vars(module).values())))


def _is_of_airflow(value: object) -> bool:
    """Tell whether it is what Airflow makes DAGs of, or a DAG that is no pipeline's."""
    maker = inspect.isclass(value) or inspect.isfunction(value)
    kind: Any = value if maker else type(value)
    if kind.__name__ not in ("DAG", "dag") or not kind.__module__.startswith("airflow."):
        return False
    # Not before the file imported Airflow: that takes seconds.
    from airflow_provider_dbnd.decorators.dag import is_of_pipeline

    return maker or not is_of_pipeline(value)
