"""Run a recorded attempt again, here: the same inputs by digest, the same parameters, other code.

Everything comes from the store alone, and nothing of the original run is touched: what the replay
makes goes to a store of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.conversion import without_none
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, execute
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.masking import MASK
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.past.addresses import Address
from airflow_provider_dbnd.core.past.diff import Difference, compare
from airflow_provider_dbnd.core.past.history import ended
from airflow_provider_dbnd.core.past.versions import Version
from airflow_provider_dbnd.core.remote.bootstrap import unpack as unpack_archive
from airflow_provider_dbnd.core.remote.function_reference import FunctionReference, find_definition
from airflow_provider_dbnd.core.remote.job import spec_of
from airflow_provider_dbnd.core.resolution import (
    Sources,
    Value,
    as_declared,
    check_keys,
    missing,
    resolve,
)
from airflow_provider_dbnd.core.runner import new_run_id
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    CodeDeliveryError,
    ConfigurationError,
    ParameterError,
)

#: Folders in which no code of the project is looked for.
_NOT_CODE = ("__pycache__", "node_modules", "site-packages")


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """A recorded attempt and what was made of it again."""

    recorded: Manifest
    made: Manifest
    store: ArtifactStore
    replayed: ArtifactStore

    def outputs(self) -> Iterator[tuple[str, Difference | None]]:
        """Yield each output, with what differs from the recorded one or None where nothing does."""
        for name in dict.fromkeys((*self.recorded.outputs, *self.made.outputs)):
            before, after = self.recorded.outputs.get(name), self.made.outputs.get(name)
            if before == after:
                yield name, None
                continue
            difference = compare(
                self._version(self.recorded, name, self.store),
                self._version(self.made, name, self.replayed),
            )
            yield name, None if difference.same else difference

    def metrics(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield (name, recorded, now) of each metric that differs."""
        for name in dict.fromkeys((*self.recorded.metrics, *self.made.metrics)):
            before, after = self.recorded.metrics.get(name), self.made.metrics.get(name)
            if before != after:
                yield name, before, after

    def _version(self, manifest: Manifest, name: str, store: ArtifactStore) -> Version:
        identity = manifest.identity
        return Version(
            address=Address(pipeline=identity.pipeline, task=identity.task_id, output=name),
            run_id=identity.run_id,
            encoded=manifest.outputs.get(name),
            ended=ended(manifest),
            store=store,
        )


def replay_spec(
    recorded: Manifest,
    definition: Definition,
    sources: Sources,
    into: ArtifactStore,
) -> TaskSpec:
    """Return what runs the recorded attempt again.

    :param sources: what the caller sets instead of the recorded values.
    :param into: where its results go.
    """
    identity = recorded.identity
    check_keys(sources, {identity.task_id: list(definition.signature.inputs)})
    arguments = {
        name: as_declared(spec, value)
        for name, spec in definition.signature.inputs.items()
        if (value := _argument(recorded, spec, sources, into)) is not None
    }
    return TaskSpec(
        identity=replace(identity, run_id=new_run_id("replay__"), try_number=1),
        arguments=arguments,
        store=into,
        elements=any(isinstance(output, list) for output in recorded.outputs.values()),
    )


def run_again(
    recorded: Manifest,
    definition: Definition,
    spec: TaskSpec,
    store: ArtifactStore,
    call: Callable[[TaskSpec, Definition], Manifest] = execute,
) -> Replay:
    """Run *spec*; nothing is published."""
    made = call(spec, _unpublished(definition))
    # The recorded one was read from JSON, which has no word for nan.
    made = Manifest.from_json(made.to_json())
    return Replay(recorded=recorded, made=made, store=store, replayed=spec.store)


def _argument(
    recorded: Manifest, spec: Input, sources: Sources, into: ArtifactStore
) -> Value | None:
    task = recorded.identity.task_id
    record = recorded.parameters.get(spec.name)
    hidden = record is not None and record.value == MASK
    given = resolve(task, replace(spec, default=MISSING), MISSING, sources)
    if given is not None:
        # A pipeline's hidden parameter may have come to a task's that is not.
        given = replace(given, hidden=given.hidden or hidden)
        if hidden or given.source not in _file_sources(sources):
            return given
    if record is None:
        if spec.required:
            raise missing(task, spec, sources)
        return None
    source = f"run {recorded.identity.run_id}, {record.source}"
    if hidden:
        raise ParameterError(
            f"parameter {spec.name!r} of task {task!r} is hidden, so its value was not recorded. Give "
            f"it by --set {spec.name}=..."
        )
    read = recorded.inputs.get(spec.name, [])
    files = [each for each in read if "dbnd_artifact" not in each]
    if not files or not _loads_files(spec.annotation):
        return Value(value=record.value, source=source, base="")
    for each in files:
        _check_unchanged(spec, task, each, into)
    uris = [each["uri"] for each in files]
    return Value(value=uris[0] if len(uris) == 1 else uris, source=source, base="")


def _file_sources(sources: Sources) -> frozenset[str]:
    """Values in files may have changed since: what was recorded goes before them."""
    return frozenset(layer.source for layer in sources.settings.parameters)


def _loads_files(annotation: Any) -> bool:
    wanted = without_none(annotation)
    return wanted is Path or formats.is_data_type(wanted)


def _check_unchanged(spec: Input, task: str, read: Mapping[str, Any], into: ArtifactStore) -> None:
    from airflow_provider_dbnd.core.scratch import scratch_folder

    with scratch_folder() as scratch:
        found = into.fetch_input(read["uri"], into=scratch)
    if found.checksum != read["checksum"]:
        raise ArtifactCorruptedError(
            f"parameter {spec.name!r} of task {task!r}: {read['uri']} changed since that run: expected "
            f"{read['checksum']}, found {found.checksum}. Bring the file back, or replay on the new one: "
            f"--set {spec.name}={read['uri']}"
        )


def _unpublished(definition: Definition) -> Definition:
    """Return the definition without paths that outputs are copied to."""
    slots = tuple(
        replace(slot, declaration=replace(slot.declaration, path=None))
        for slot in definition.signature.outputs
    )
    return replace(definition, signature=replace(definition.signature, outputs=slots))


def working_definition(recorded: Manifest, folder: str, file: str | None = None) -> Definition:
    """Return the task as the code here has it.

    :param folder: where its file is looked for, unless *file* names it or it is where it was.
    """
    function = recorded.function
    path = file or function.get("path")
    if path is None or not os.path.isfile(path):
        if file is not None:
            raise ConfigurationError(f"No such file: {file}.")
        if "/" not in str(function["file"]) and function.get("installed"):
            return find_definition(
                FunctionReference(name=function["name"], module=function["module"]), None
            )
        path = _search(folder, str(function["file"]), str(function["name"]))
    where = os.path.abspath(path)
    reference = FunctionReference(name=function["name"], file=os.path.basename(where))
    return find_definition(reference, os.path.dirname(where))


def recorded_definition(recorded: Manifest, store: ArtifactStore, into: str) -> Definition:
    """Return the task as the code that travelled with it has it."""
    document = spec_of(store, recorded)
    archives = {each["kind"]: each for each in document["code"]["archives"]}
    if "project" not in archives:
        raise CodeDeliveryError(
            f"the code of task {recorded.identity.task_id!r} was not recorded: it was installed in the "
            "image. Replay the code that is here: leave --recorded-code out."
        )
    uri = store.fetch(archives["project"]["uri"], into=into)
    folder = unpack_archive({**archives["project"], "uri": f"file://{uri}"}, into, {})
    return find_definition(FunctionReference(**document["function"]), folder)


def _search(folder: str, name: str, function: str) -> str:
    wanted = f"def {function.rpartition('.')[2]}("
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in _NOT_CODE]
        path = os.path.join(where, name)
        if name in files and wanted in Path(path).read_text("utf-8", "replace"):
            found.append(path)
    if len(found) == 1:
        return found[0]
    seen = f"found in {', '.join(sorted(found))}" if found else f"not found below {folder}"
    raise ConfigurationError(
        f"the file {name!r} with function {function!r}, which the run was made with, is {seen}. Name it "
        "by --file."
    )
