"""A project whose tasks are sent to another Python: one that has no Airflow, and nothing of ours."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.manifest import Identity, Manifest
from airflow_provider_dbnd.core.remote import bootstrap
from airflow_provider_dbnd.core.remote.job import Job, Place, read_failure, read_result, send
from airflow_provider_dbnd.core.resolution import Value
from airflow_provider_dbnd.core.settings import load_settings
from airflow_provider_dbnd.core.storage.store import ArtifactStore

#: What an image for data has. Our own code needs more.
DATA = ("numpy", "pandas", "pyarrow", "dateutil", "six.py", "pytz", "tzdata")

_serial = itertools.count()


def python_with(folder: Path, *libraries: str) -> str:
    """Return a Python of this version in which only *libraries* are installed."""
    site = folder / "python"
    site.mkdir(parents=True, exist_ok=True)
    for library in libraries:
        spec = importlib.util.find_spec(library.removesuffix(".py"))
        assert spec is not None
        assert spec.origin is not None
        home = Path(spec.origin).parent
        installed = home if library.endswith(".py") else home.parent
        for name in (library, f"{library}.libs"):
            if (installed / name).exists():
                (site / name).symlink_to(installed / name)
    program = site / "run"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" -S -s "$@"\n')
    program.chmod(0o755)
    return str(program)


def command(job: Job, python: str) -> list[str]:
    """Return what runs *job* in an image."""
    return [python, "-c", inspect.getsource(bootstrap), *job.arguments()]


@dataclass(kw_only=True)
class Elsewhere:
    """The project in *folder*, the store, and the Python that jobs run on."""

    folder: Path
    store: ArtifactStore
    python: str
    place: Place = field(default_factory=lambda: Place(engine="there", type="process"))

    def write(self, file: str, text: str) -> Path:
        """Write a file of the project; a Python file may use task, parameter, output."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        head = "from airflow_provider_dbnd import output, parameter, pipeline, task\n"
        path.write_text(head + text if "@task" in text else text)
        return path

    def task(self, name: str = "f", file: str = "flow.py") -> Definition:
        """Load a file and return a task in it."""
        definition: Definition = getattr(self.module(file), name).definition
        return definition

    def module(self, file: str = "flow.py") -> Any:
        """Load a file as Airflow does, under a name of its own."""
        module = f"unusual_prefix_{next(_serial)}_flow"
        spec = importlib.util.spec_from_file_location(module, self.folder / file)
        assert spec is not None
        assert spec.loader is not None
        loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    def spec(
        self, definition: Definition, values: Mapping[str, Any] | None = None, **identity: Any
    ) -> TaskSpec:
        """Return an attempt with argument *values*."""
        known = {"pipeline": "p", "run_id": "r", "task_id": definition.name, **identity}
        arguments = {
            name: value if isinstance(value, Value) else self.value(value)
            for name, value in (values or {}).items()
        }
        return TaskSpec(identity=Identity(**known), arguments=arguments, store=self.store)

    def value(self, value: Any, **more: Any) -> Value:
        return Value(**{"value": value, "source": "call", "base": str(self.folder), **more})

    def send(
        self,
        definition: Definition,
        values: Mapping[str, Any] | None = None,
        **identity: Any,
    ) -> Job:
        """Send an attempt to the place."""
        settings = load_settings(self.folder)
        return send(self.spec(definition, values, **identity), definition, settings, self.place)

    def run(
        self, job: Job, python: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a job to its end."""
        return subprocess.run(
            command(job, python or self.python),
            cwd="/",
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def result(self, job: Job) -> Manifest | None:
        return read_result(self.store, job.manifest, job.checksum)

    def failure(self, job: Job) -> str | None:
        return read_failure(self.store, job)

    def outcome(self, definition: Definition, values: Mapping[str, Any] | None = None) -> Any:
        """Send, run, and return the result of a task with one output."""
        job = self.send(definition, values)
        done = self.run(job)
        manifest = self.result(job)
        assert manifest is not None, done.stdout + done.stderr
        assert manifest.error is None, manifest.error["traceback"]
        return manifest.outputs["result"]
