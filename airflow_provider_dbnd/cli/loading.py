"""Finding decorated functions in a file or a module."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import TypeAlias

from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.decorators.pipeline import Pipeline
from airflow_provider_dbnd.decorators.task import Task
from airflow_provider_dbnd.exceptions import ConfigurationError

Runnable: TypeAlias = "Pipeline[..., object] | Task[..., object]"


def load_module(target: str) -> ModuleType:
    """Import a file by path, or a module by its dotted name."""
    if not target.endswith(".py") and os.sep not in target:
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(target)
    path = os.path.abspath(target)
    if not os.path.isfile(path):
        raise ConfigurationError(f"No such file: {target}.")
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As for a script: files beside this one can be imported.
    sys.path.insert(0, os.path.dirname(path))
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


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
    pipelines = [r for r in found.values() if isinstance(r, Pipeline)]
    candidates = pipelines or list(found.values())
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ConfigurationError(f"{place} has no function decorated with @pipeline or @task.")
    names = ", ".join(sorted(n for n, r in found.items() if r in candidates))
    raise ConfigurationError(f"{place} has several: {names}. Name one: {place}:NAME.")


def folder_of(runnable: Runnable) -> str:
    """Return the folder of the file that defines *runnable*: where its relative paths start."""
    return os.path.dirname(os.path.abspath(runnable.definition.function.__code__.co_filename))
