"""Run one task: load its arguments, call the function, store its results, leave a manifest.

This is the only place where a user's function is called for a run, whatever the engine.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import json
import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import brief
from airflow_provider_dbnd.core.attempt import Attempt, running
from airflow_provider_dbnd.core.conversion import accepts_none, type_text
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.files import holds_files
from airflow_provider_dbnd.core.logical_date import dated, takes_run_value
from airflow_provider_dbnd.core.manifest import (
    Identity,
    Manifest,
    ParameterRecord,
    Status,
    to_json,
    write_manifest,
)
from airflow_provider_dbnd.core.masking import MASK, masked, texts_of
from airflow_provider_dbnd.core.output_path import filled, names_in
from airflow_provider_dbnd.core.parameters import MISSING, RunValue
from airflow_provider_dbnd.core.references import references
from airflow_provider_dbnd.core.resolution import (
    Sources,
    Value,
    as_declared,
    converted,
    hidden_texts,
    misfit,
    missing,
    resolve,
)
from airflow_provider_dbnd.core.results import check_result
from airflow_provider_dbnd.core.scratch import scratch_folder
from airflow_provider_dbnd.core.signature import Input, OutputSlot
from airflow_provider_dbnd.core.spark.session import session
from airflow_provider_dbnd.core.storage import claims
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.tracebacks import user_traceback
from airflow_provider_dbnd.core.values import Decoder, Encoder, publish
from airflow_provider_dbnd.exceptions import DbndError, ParameterError

if TYPE_CHECKING:
    from airflow_provider_dbnd.core.reuse.flight import Lease

log = logging.getLogger("airflow_provider_dbnd")


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One attempt to run: who it is, with which argument values, and where its data lives.

    ``arguments`` holds resolved values by parameter name; data is in them as references or URIs.
    ``elements`` asks for one artifact an element, since a task is fanned out over the result.
    ``folder`` is where relative output paths start, if not beside the function's file; ``engine``,
    ``code`` and ``reuse`` go to the manifest as they are. ``lease`` keeps other runs from computing
    the same result.
    """

    identity: Identity
    arguments: Mapping[str, Value]
    store: ArtifactStore
    elements: bool = False
    folder: str | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, Any] = field(default_factory=dict)
    reuse: Mapping[str, Any] = field(default_factory=dict)
    lease: Lease | None = None


def arguments_of(
    task_id: str, definition: Definition, given: Mapping[str, Value | Any], sources: Sources
) -> dict[str, Value]:
    """Resolve every parameter of a task by the one order of sources.

    A *given* argument that is a :class:`Value` already, a pipeline parameter's, keeps its source.
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
        if carried is not None and value.source == "call":
            value = as_declared(spec, replace(carried, value=value.value))
        arguments[name] = value
    return arguments


def value_of_run(identity: Identity, spec: Input, value: Value) -> Value:
    """Return the value with what only the run knows filled in, such as its logical date.

    It is hidden from here on where its parameter is.
    """
    value = as_declared(spec, value)
    if not takes_run_value(value.value):
        return value
    if identity.logical_date is None:
        raise ParameterError(
            f"parameter {spec.name!r} of task {identity.task_id!r} takes the run's logical date, "
            "but this run has none. Trigger it with one, or set the parameter."
        )
    typed = dated(value.value, spec.annotation, identity.logical_date)
    bare = isinstance(value.value, RunValue)
    return replace(value, value=typed, source="logical date of the run" if bare else value.source)


def is_skip(error: BaseException) -> bool:
    """Tell whether a task skipped itself, the way Airflow's tasks do."""
    # By its name: code that runs without Airflow cannot import it.
    return any(kind.__name__ == "AirflowSkipException" for kind in type(error).__mro__)


def execute(spec: TaskSpec, definition: Definition) -> Manifest:
    """Run one attempt and return its manifest, which is in the store by then.

    The function's own exception propagates unchanged after a failed manifest is written.
    """
    with scratch_folder() as scratch:
        return _Run(spec, definition, scratch).execute()


def reuse_result(spec: TaskSpec, definition: Definition, found: Manifest) -> Manifest:
    """Let the result of an earlier attempt stand for this one; return this attempt's manifest."""
    with scratch_folder() as scratch:
        return _Run(spec, definition, scratch).reuse(found)


def arguments_in_memory(spec: TaskSpec, definition: Definition) -> dict[str, Any]:
    """Return what the function of *spec* would be called with; nothing runs and nothing is written."""
    with scratch_folder() as scratch:
        return _Run(spec, definition, scratch).arguments()


def hidden_texts_of(spec: TaskSpec, definition: Definition) -> list[str]:
    """Return the texts of the hidden arguments of *spec*, which no output may show."""
    inputs, task = definition.signature.inputs, spec.identity.task_id
    return [t for name, v in spec.arguments.items() for t in hidden_texts(task, inputs[name], v)]


class _Run:
    """The steps of one attempt, and what they leave for the manifest."""

    def __init__(self, spec: TaskSpec, definition: Definition, scratch: str) -> None:
        self.spec, self.definition = spec, definition
        self.attempt = Attempt(identity=spec.identity, store=spec.store)
        self.decoder = Decoder(store=spec.store, scratch=scratch)
        self.parameters: dict[str, ParameterRecord] = {}
        self.outputs: dict[str, Any] = {}
        self.published: dict[str, str] = {}
        self._scratch = scratch
        self._secrets: list[str] = []
        self._loaded: dict[str, Any] = {}
        self._started = dt.datetime.now(dt.timezone.utc)
        self._clock = time.perf_counter()

    def execute(self) -> Manifest:
        try:
            with running(self.attempt):
                outputs = self._stored(self._call())
            claims.claim(self.spec.store, outputs)
            self.outputs = outputs
        except BaseException as exc:
            self._record_failure(exc)
            raise
        manifest = self._manifest("success")
        self._commit(manifest)
        # What load() reads inside a task is an input that the key does not know.
        if manifest.reuse and not self.attempt.loaded:
            self._offer(manifest)
        return manifest

    def reuse(self, found: Manifest) -> Manifest:
        claims.claim(self.spec.store, found.outputs)
        inputs = self.definition.signature.inputs
        paths = [slot.declaration.path for slot in self.definition.signature.outputs]
        in_paths = {name for path in paths if path for name in names_in(path)}
        for name, value in self.spec.arguments.items():
            given = value_of_run(self.spec.identity, inputs[name], value)
            self._record(inputs[name], given)
            files = holds_files(inputs[name].annotation)
            if any(references(given.value)) or (files and name not in in_paths):
                continue
            loaded = converted(self.spec.identity.task_id, inputs[name], given)
            self._record_typed(inputs[name], given, loaded)
            self._loaded[name] = loaded
        for slot in self.definition.signature.outputs:
            if path := slot.declaration.path:
                self._publish(
                    slot.name, found.outputs[slot.name], self._publish_uri(path, slot.name)
                )
        self.outputs = dict(found.outputs)
        hit = {**asdict(found.identity), "seconds": found.seconds}
        manifest = replace(
            self._manifest("success"),
            inputs=found.inputs,
            metrics=found.metrics,
            reuse={**self.spec.reuse, "hit": hit},
        )
        self._commit(manifest)
        return manifest

    def arguments(self) -> dict[str, Any]:
        inputs = self.definition.signature.inputs
        for name, value in self.spec.arguments.items():
            self._loaded[name] = self._load(
                inputs[name], value_of_run(self.spec.identity, inputs[name], value)
            )
        injected = {name: session() for name in self.definition.signature.injected}
        return {**self._loaded, **injected}

    def _call(self) -> Any:
        args, kwargs = self.definition.signature.spread(self.arguments())
        return self.definition.function(*args, **kwargs)

    def _record(self, spec: Input, value: Value) -> None:
        record = MASK if value.hidden else to_json(value.value)
        log.info("parameter %s = %s (%s)", spec.name, brief(record), value.source)
        self.parameters[spec.name] = ParameterRecord(value=record, source=value.source)

    def _record_typed(self, spec: Input, value: Value, loaded: Any) -> None:
        """Record what the function gets for the text it was given as; files stay by name."""
        if loaded is value.value or self.parameters[spec.name].value == MASK:
            return
        if not holds_files(spec.annotation) and not any(references(value.value)):
            record = ParameterRecord(value=to_json(loaded), source=value.source)
            self.parameters[spec.name] = record

    def _load(self, spec: Input, value: Value) -> Any:
        self._record(spec, value)
        if value.hidden:
            self._secrets += texts_of(value.value)
        loaded = self._decoded(spec, value)
        if value.hidden:
            self._secrets += texts_of(loaded)
        self._record_typed(spec, value, loaded)
        return loaded

    def _decoded(self, spec: Input, value: Value) -> Any:
        task = self.spec.identity.task_id
        try:
            loaded = self.decoder.load(
                value.value, spec.name, spec.annotation, spec.declaration, value.base
            )
        except DbndError as exc:
            where = f"parameter {spec.name!r} of task {task!r} (from {value.source})"
            raise type(exc)(self._masked(f"{where}: {exc}")) from (None if value.hidden else exc)
        if formats.is_data_type(spec.annotation):
            return _as_data(task, spec, replace(value, value=loaded))
        return converted(task, spec, replace(value, value=loaded))

    def _stored(self, result: Any) -> dict[str, Any]:
        identity = self.spec.identity
        encoder = Encoder(
            store=self.spec.store,
            pipeline=identity.pipeline,
            task_id=identity.task_id,
            elements=self.spec.elements,
        )
        values, outputs = self.definition.signature.split(result), dict[str, Any]()
        self._check(values)
        for slot in self.definition.signature.outputs:
            try:
                outputs[slot.name] = self._store_output(encoder, slot, values[slot.name])
            except DbndError as exc:
                where = f"output {slot.name!r} of task {identity.task_id!r}"
                raise type(exc)(f"{where}: {exc}") from exc
        return outputs

    def _check(self, values: Mapping[str, Any]) -> None:
        """Look at all outputs before the first of them is stored or published."""
        for slot in self.definition.signature.outputs:
            value = values[slot.name]
            waits = self.definition.kind == "sensor" and (value is None or value is False)
            if not waits:
                where = f"output {slot.name!r} of task {self.spec.identity.task_id!r}"
                check_result(value, slot.annotation, where)

    def _store_output(self, encoder: Encoder, slot: OutputSlot, value: Any) -> Any:
        path = slot.declaration.path
        uri = self._publish_uri(path, slot.name) if path else None
        encoded = encoder.encode(value, slot.name, slot.declaration, slot.annotation)
        if uri is not None:
            self._publish(slot.name, encoded, uri)
        return encoded

    def _publish(self, name: str, encoded: Any, uri: str) -> None:
        base = self.spec.folder or self.definition.signature.folder
        self.published[name] = publish(self.spec.store, encoded, uri, base=base, into=self._scratch)

    def _publish_uri(self, template: str, name: str) -> str:
        identity = self.spec.identity
        shown_in_path = {
            k: v for k, v in self._loaded.items() if isinstance(v, str | int | float | dt.date)
        }
        known = {
            **shown_in_path,
            "store": self.spec.store.url.rstrip("/"),
            "pipeline": identity.pipeline,
            "task": identity.task_id,
            "output": name,
            "run_id": identity.run_id,
        }
        return filled(template, known)

    def _record_failure(self, error: BaseException) -> None:
        status: Status = "skipped" if is_skip(error) else "failed"
        manifest = self._manifest(
            status,
            error={
                "type": type(error).__name__,
                "message": self._masked(str(error)),
                "traceback": self._masked(user_traceback(error)),
            },
        )
        try:
            self._commit(manifest)
        except DbndError as exc:
            # The task's own error is what the user has to see.
            log.warning("The manifest of the failed attempt could not be written: %s", exc)

    def _commit(self, manifest: Manifest) -> None:
        claims.claim_inputs(self.spec.store, manifest.inputs)
        log.info("manifest: %s", write_manifest(self.spec.store, manifest))

    def _offer(self, manifest: Manifest) -> None:
        from airflow_provider_dbnd.core.reuse.index import record

        try:
            record(self.spec.store, manifest)
        except DbndError as exc:
            # The result is committed; only finding it again is lost.
            log.warning("later runs may not find this result, and compute it again then: %s", exc)

    def _manifest(self, status: Status, error: Mapping[str, str] | None = None) -> Manifest:
        return Manifest(
            identity=self.spec.identity,
            status=status,
            started=self._started.isoformat(),
            seconds=round(time.perf_counter() - self._clock, 6),
            function=_function_record(inspect.unwrap(self.definition.function)),
            environment=_environment(),
            parameters=self.parameters,
            inputs={
                **{n: self._shown_inputs(n, read) for n, read in self.decoder.inputs.items()},
                **{f"load {name}": [read] for name, read in self.attempt.loaded.items()},
            },
            outputs=self.outputs,
            published=self.published,
            metrics=self.attempt.metrics,
            calls=tuple(self.attempt.calls),
            engine=self.spec.engine,
            code=self.spec.code,
            reuse=self.spec.reuse,
            error=error,
        )

    def _shown_inputs(self, name: str, read: list[Any]) -> Any:
        return MASK if self.parameters[name].value == MASK else read

    def _masked(self, text: str) -> str:
        return masked(text, self._secrets)


def _as_data(task: str, spec: Input, value: Value) -> Any:
    """Pass data that is in memory: as it is, or in the container the annotation asks for."""
    if value.value is None and accepts_none(spec.annotation):
        return None
    if not formats.can_convert(type(value.value), spec.annotation):
        reason = f"Give a path, a URL or a {type_text(spec.annotation)}"
        raise misfit(task, spec, value, reason)
    return formats.convert_in_memory(value.value, spec.annotation)


@functools.lru_cache(maxsize=1024)
def _function_record(function: Callable[..., Any]) -> Mapping[str, Any]:
    return {
        "module": function.__module__,
        "name": function.__qualname__,
        "file": os.path.basename(function.__code__.co_filename),
        # Where code travelled to is gone when the job is.
        "path": None if "DBND_PROJECT" in os.environ else function.__code__.co_filename,
        "line": function.__code__.co_firstlineno,
        "source": _source_digest(function),
    }


def _source_digest(function: Callable[..., Any]) -> str | None:
    from airflow_provider_dbnd.core.digest import bytes_digest

    try:
        source = inspect.getsource(function)
    except OSError:  # typed into an interpreter
        return None
    digest: str = bytes_digest(source.encode())
    return digest


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "versions": {
            name: sys.modules[name].__version__
            for name in ("pandas", "pyarrow", "polars", "pyspark")
            if hasattr(sys.modules.get(name), "__version__")
        },
    }


if __name__ == "__main__":
    # python -m airflow_provider_dbnd.core.execute SPEC, where this package is installed.
    from airflow_provider_dbnd.core.remote.bootstrap import main

    sys.exit(main(sys.argv[1], *map(json.loads, sys.argv[2:3])))
