"""Run one task: load its arguments, call the function, store its results, leave a manifest.

This is the only place where a user's function is called for a run, whatever the engine.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import logging
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.attempt import Attempt, running
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.manifest import (
    Identity,
    Manifest,
    ParameterRecord,
    Status,
    write_manifest,
)
from airflow_provider_dbnd.core.parameters import LOGICAL_DATE, MISSING
from airflow_provider_dbnd.core.resolution import (
    MASK,
    Sources,
    Value,
    converted,
    misfit,
    missing,
    resolve,
    shown,
)
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.core.store import ArtifactStore
from airflow_provider_dbnd.core.values import Decoder, Encoder, publish
from airflow_provider_dbnd.exceptions import DbndError, ParameterError

log = logging.getLogger("airflow_provider_dbnd")


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One attempt to run: who it is, with which argument values, and where its data lives.

    ``arguments`` holds resolved values by parameter name; data is in them as references or URIs.
    ``elements`` asks for one artifact an element, since a task is fanned out over the result.
    """

    identity: Identity
    arguments: Mapping[str, Value]
    store: ArtifactStore
    elements: bool = False
    skips: tuple[type[BaseException], ...] = field(default=())


def arguments_of(
    task_id: str, definition: Definition, given: Mapping[str, Value | Any], sources: Sources
) -> dict[str, Value]:
    """Resolve every parameter of a task by the one order of sources.

    A *given* argument that already is a :class:`Value` (of a pipeline's parameter) keeps its source.
    """
    arguments: dict[str, Value] = {}
    for name, spec in definition.signature.inputs.items():
        argument = given.get(name, MISSING)
        carried = argument if isinstance(argument, Value) else None
        value = resolve(task_id, spec, carried.value if carried else argument, sources)
        if value is None:
            if spec.required:
                raise missing(task_id, spec, sources)
            continue
        arguments[name] = carried if carried is not None and value.source == "call" else value
    return arguments


def execute(spec: TaskSpec, definition: Definition) -> Manifest:
    """Run one attempt and return its manifest, which is in the store by then.

    The function's own exception propagates unchanged after a failed manifest is written.
    """
    started = dt.datetime.now(dt.timezone.utc)
    clock = time.perf_counter()
    scratch = tempfile.mkdtemp(prefix="dbnd-")
    attempt = Attempt(identity=spec.identity, scratch=scratch)
    run = _Run(spec, definition, Decoder(store=spec.store, scratch=scratch))
    status: Status = "failed"
    error: dict[str, str] | None = None
    try:
        with running(attempt):
            run.call()
        status = "success"
    except BaseException as exc:
        if isinstance(exc, spec.skips):
            status = "skipped"
        error = {
            "type": type(exc).__name__,
            "message": run.masked(str(exc)),
            "traceback": run.masked("".join(traceback.format_exception(exc))),
        }
        raise
    finally:
        manifest = Manifest(
            identity=spec.identity,
            status=status,
            started=started.isoformat(),
            seconds=round(time.perf_counter() - clock, 6),
            function=_function_record(definition),
            environment=_environment(),
            parameters=run.parameters,
            inputs=run.decoder.inputs,
            outputs=run.outputs,
            published=run.published,
            metrics=attempt.metrics,
            calls=tuple(attempt.calls),
            error=error,
        )
        _record(spec.store, manifest, failing=error is not None)
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest


class _Run:
    """The steps of one attempt, and what they leave for the manifest."""

    def __init__(self, spec: TaskSpec, definition: Definition, decoder: Decoder) -> None:
        self.spec, self.definition, self.decoder = spec, definition, decoder
        self.parameters: dict[str, ParameterRecord] = {}
        self.outputs: dict[str, Any] = {}
        self.published: dict[str, str] = {}
        self._hidden: list[str] = []
        self._loaded: dict[str, Any] = {}

    def call(self) -> None:
        inputs = self.definition.signature.inputs
        for name, value in self.spec.arguments.items():
            self._loaded[name] = self._load(inputs[name], value)
        args, kwargs = self.definition.signature.spread(self._loaded)
        self._store(self.definition.function(*args, **kwargs))

    def masked(self, text: str) -> str:
        """Replace hidden values that made it into *text*."""
        for secret in self._hidden:
            text = text.replace(secret, MASK)
        return text

    def _load(self, spec: Input, value: Value) -> Any:
        value = self._run_value(spec, value)
        hidden = spec.declaration.hidden
        if hidden and value.value not in (None, ""):
            self._hidden.append(str(value.value))
        record = MASK if hidden else _recorded(value.value)
        self.parameters[spec.name] = ParameterRecord(value=record, source=value.source)
        try:
            loaded = self.decoder.load(
                value.value, spec.name, spec.annotation, spec.declaration, value.base
            )
        except DbndError as exc:
            exc.add_note(self._where(spec, value)) if hasattr(exc, "add_note") else None
            raise
        if loaded is value.value and formats.is_data_type(spec.annotation):
            return _checked_data(self.spec.identity.task_id, spec, value)
        if spec.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            return loaded
        if formats.is_data_type(spec.annotation):
            return loaded
        return converted(
            self.spec.identity.task_id,
            spec,
            Value(value=loaded, source=value.source, base=value.base),
        )

    def _where(self, spec: Input, value: Value) -> str:
        return f"(parameter {spec.name!r} of task {self.spec.identity.task_id!r}, value from {value.source})"

    def _run_value(self, spec: Input, value: Value) -> Value:
        if value.value is not LOGICAL_DATE:
            return value
        date = self.spec.identity.logical_date
        if date is None:
            raise ParameterError(
                f"parameter {spec.name!r} of task {self.spec.identity.task_id!r} takes the run's logical date, but "
                f"this run has none. Trigger it with one, or set the parameter."
            )
        return Value(value=date, source="logical date of the run", base=value.base)

    def _store(self, result: Any) -> None:
        identity = self.spec.identity
        encoder = Encoder(
            store=self.spec.store,
            pipeline=identity.pipeline,
            task_id=identity.task_id,
            elements=self.spec.elements,
        )
        values = self.definition.signature.split(result)
        for slot in self.definition.signature.outputs:
            encoded = encoder.encode(
                values[slot.name], slot.name, slot.declaration, slot.annotation
            )
            self.outputs[slot.name] = encoded
            if slot.declaration.path:
                uri = self._publish_uri(slot.declaration.path, slot.name)
                self.published[slot.name] = publish(self.spec.store, encoded, uri, slot.name)

    def _publish_uri(self, template: str, name: str) -> str:
        identity = self.spec.identity
        known = {
            **{k: v for k, v in self._loaded.items() if isinstance(v, str | int | float | dt.date)},
            "store": self.spec.store.url.rstrip("/"),
            "pipeline": identity.pipeline,
            "task": identity.task_id,
            "output": name,
            "run_id": identity.run_id,
        }
        try:
            return template.format(**known)
        except (KeyError, IndexError) as exc:
            raise ParameterError(
                f"output {name!r} of task {identity.task_id!r}: path {template!r} names {exc}, which is no parameter "
                f"of the task; it may use {', '.join(sorted(known))}."
            ) from exc


def _checked_data(task: str, spec: Input, value: Value) -> Any:
    """Pass an object that is already in memory, where it is what the annotation says."""
    if value.value is None or formats.can_convert(type(value.value), spec.annotation):
        return formats.convert_in_memory(value.value, spec.annotation)
    raise misfit(
        task, spec, value, f"A {type(value.value).__qualname__} is not a URI and not such data"
    )


def _recorded(value: Any) -> Any:
    """Return *value* for the manifest: JSON as it is, anything else by its repr."""
    if isinstance(value, dict | list | str | int | float | bool) or value is None:
        return value
    return shown(value)


def _record(store: ArtifactStore, manifest: Manifest, *, failing: bool) -> None:
    try:
        uri = write_manifest(store, manifest)
    except DbndError:
        if not failing:
            raise
        # The function's own error is what the user has to see; this one is logged with it.
        log.exception("The manifest of the failed attempt could not be written")
    else:
        log.info("manifest: %s", uri)


def _function_record(definition: Definition) -> dict[str, Any]:
    function = inspect.unwrap(definition.function)
    code = getattr(function, "__code__", None)
    return {
        "module": function.__module__,
        "name": function.__qualname__,
        "file": os.path.basename(code.co_filename) if code else None,
        "line": code.co_firstlineno if code else None,
    }


@functools.cache
def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "versions": {
            name: v for name in ("pandas", "pyarrow", "polars") if (v := _loaded_version(name))
        },
    }


def _loaded_version(name: str) -> str | None:
    return getattr(sys.modules.get(name), "__version__", None)
