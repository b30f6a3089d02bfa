"""Spark programs that are none of our functions: artifacts go to them as paths, and come from folders.

A typed function declares the program and is never called. The program's home is the worker: there its
parameters are resolved, inputs become paths, folders for outputs are opened, and what lies in these at
the end becomes artifacts. The program itself runs where the task's engine runs Spark, which needs
nothing of this package, and everything that holds for a task holds for it as well.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import json
import os
import shutil
import typing
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact, is_reference
from airflow_provider_dbnd.core.conversion import without_none
from airflow_provider_dbnd.core.digest import file_checksum
from airflow_provider_dbnd.core.execute import TaskSpec, execute
from airflow_provider_dbnd.core.manifest import Manifest, to_json
from airflow_provider_dbnd.core.remote.bundle import CODE
from airflow_provider_dbnd.core.remote.job import Job, recall
from airflow_provider_dbnd.core.resolution import Value
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.core.spark.session import PROGRAM, hadoop_url
from airflow_provider_dbnd.core.storage.claims import claim_keys
from airflow_provider_dbnd.core.storage.filesystem import absolute, kind_of, parse
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.parts import PARTS_SCHEME
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import Encoder
from airflow_provider_dbnd.engines.remote import RemoteTask
from airflow_provider_dbnd.exceptions import (
    ArtifactNotFoundError,
    ConfigurationError,
    FormatError,
    ParameterError,
)

_HADOOP = ("s3", "gs", "abfs", "hdfs", "webhdfs")


class SparkEngine(RemoteTask):
    """A task on Spark: one of our functions in a driver, or a program of another kind."""

    deferrable: bool

    @abstractmethod
    def use(self, program: str, java_class: str | None, arguments: list[str]) -> None:
        """Give the operator a program that is none of ours."""

    @abstractmethod
    def taken_up(self) -> Any:
        """Return the job that an earlier try started, if it runs or has succeeded; else None."""

    def reads_worker(self) -> bool:
        """Tell whether spark-submit and the driver read files of the worker."""
        return False

    def run_job(self, context: Mapping[str, Any], spec: TaskSpec) -> Manifest:
        """Run the function, or the program that it declares."""
        if not getattr(self.binding.definition.function, PROGRAM, False):
            return super().run_job(context, spec)
        # The worker waits: it is what takes over the outputs.
        self.deferrable = False
        engine = {"name": self.binding.engine.name, "type": self.binding.engine.type}
        signature = self.binding.definition.signature
        inputs, arguments = dict(signature.inputs), dict(spec.arguments)
        for name, value in spec.arguments.items():
            if is_data(inputs[name].annotation):
                inputs[name], arguments[name] = _referred(spec, inputs[name], value)
        base = arguments["application"].base

        @functools.wraps(signature.function)
        def run(**values: Any) -> Any:
            program = self._located(values.pop("application"), base, spec.store)
            java_class, template = values.pop("java_class"), values.pop("args")
            known = {name: _shown(value, spec.store) for name, value in values.items()}
            with self._folder(spec, program, [java_class, template, known]) as folder:
                written = {slot.name: f"{folder}/{slot.name}" for slot in signature.outputs}
                urls = {name: _url(uri, spec.store) for name, uri in written.items()}
                self.use(program, java_class, filled(template, {**known, **urls}))
                self._launched(context)
                engine["job"] = self.external_id()
                return self._taken_over(spec, written)

        program = replace(signature, function=run, inputs=inputs)
        return execute(
            replace(spec, arguments=arguments, engine=engine),
            replace(self.binding.definition, signature=program),
        )

    def _launched(self, context: Any) -> None:
        try:
            self.launch(context)
        except Exception as exc:
            raise self._error(self.explain(exc), "Look at its log.") from exc

    def _taken_over(self, spec: TaskSpec, written: Mapping[str, str]) -> Any:
        """Make artifacts of what lies in the folders; return them as the function would."""
        identity = spec.identity
        encoder = Encoder(store=spec.store, pipeline=identity.pipeline, task_id=identity.task_id)
        slots = self.binding.definition.signature.outputs
        outputs: dict[str, Artifact] = {}
        for slot in slots:
            try:
                outputs[slot.name] = encoder.take_folder(
                    written[slot.name], slot.name, _frame(slot.annotation)
                )
            except ArtifactNotFoundError as exc:
                raise self._error(
                    f"the program ended well, but wrote nothing to output {slot.name!r}",
                    f"It has to write parquet to the folder {written[slot.name]} that it was given.",
                ) from exc
        single = self.binding.definition.signature.shape == "single"
        return outputs[slots[0].name] if single else outputs or None

    @contextlib.contextmanager
    def _folder(self, spec: TaskSpec, program: str, content: list[Any]) -> Iterator[str]:
        """Give the folder for outputs: that of a job which goes on from an earlier try, or a new one."""
        folders = spec.store.folders
        fingerprint = hashlib.sha256(json.dumps([program, *content]).encode()).hexdigest()
        earlier = recall(spec.store, spec.identity)
        if earlier is not None and earlier.fingerprint == fingerprint:
            self._sent, self._job = spec, earlier
        if self._job is None or self.taken_up() is None:
            job = Job(
                spec=folders.new_staging(),
                checksum="",
                manifest=spec.identity.key(),
                failure="",
                fingerprint=fingerprint,
                options={},
                program=program,
            )
            self.sends(spec, job)
        assert self._job is not None
        folder = self._job.spec
        try:
            yield folder
        except BaseException:
            if not self.may_go_on():
                self.forgets()
                folders.discard(folder)
            raise
        self.forgets()
        folders.discard(folder)

    def _located(self, application: str, base: str, store: ArtifactStore) -> str:
        """Return where Spark finds the program: a file of the project goes to the store if need be."""
        where = absolute(application, base)
        if parse(where).scheme != "file":
            return _url(where, store)
        path = parse(where).path
        if not os.path.isfile(path):
            raise ConfigurationError(
                f"application {application!r}: there is no file {path}. Give a URL, or a path from "
                "the folder of the file that declares it"
            )
        if self.reads_worker():
            return path
        return _url(stored_program(path, store), store)


def stored_program(path: str, store: ArtifactStore) -> str:
    """Put the file of a program into the store, where its content names it, and return its URI."""
    checksum = file_checksum(path)
    where = key(CODE, checksum.partition(":")[2][:32], os.path.basename(path))
    if store.exists(where):
        claim_keys(store, [where])
        return store.uri(where)
    with store.staging() as staged:
        # The store takes what it is given away.
        shutil.copyfile(path, staged)
        return store.commit(staged, where, checksum=checksum, heals=True)


def is_data(annotation: Any) -> bool:
    """Tell whether a program is given a parameter of this type as a path."""
    wanted = without_none(annotation)
    if typing.get_origin(wanted) is list:
        return is_data(typing.get_args(wanted)[0])
    return wanted is Artifact or formats.is_data_type(wanted)


def filled(template: list[str], known: Mapping[str, Any]) -> list[str]:
    """Return the arguments of the program; an argument that is a list alone becomes several.

    >>> filled(["--in", "{rows}", "{days}", "--out={to}"], {"rows": "a", "days": ["1", "2"], "to": "b"})
    ['--in', 'a', '1', '2', '--out=b']
    """
    arguments: list[str] = []
    for each in template:
        whole = known.get(each[1:-1]) if each.startswith("{") and each.endswith("}") else None
        try:
            arguments += whole if isinstance(whole, list) else [each.format_map(known)]
        except (LookupError, ValueError) as exc:
            raise ParameterError(
                f"args: {each!r} cannot be filled in ({type(exc).__name__}: {exc}). In braces there "
                f"may be {', '.join(known)}; other braces are doubled."
            ) from exc
    return arguments


def _frame(annotation: Any) -> Any:
    """Return what to read an output as where the reader does not say."""
    return "pandas.DataFrame" if annotation is Artifact else annotation


def _referred(spec: TaskSpec, input_: Input, value: Value) -> tuple[Input, Value]:
    """Return input and value as references, which are not loaded: a URI becomes one as well."""
    given = value.value
    if given is None:
        return replace(input_, annotation=Artifact | None), value
    if isinstance(given, list):
        found = [_reference(spec.store, input_.name, each, value.base) for each in given]
        return replace(input_, annotation=list[Artifact]), replace(value, value=found)
    found = _reference(spec.store, input_.name, given, value.base)
    return replace(input_, annotation=Artifact), replace(value, value=found)


def _reference(store: ArtifactStore, name: str, value: Any, base: str) -> Any:
    if is_reference(value):
        return value
    if not isinstance(value, str | os.PathLike):
        raise ParameterError(
            f"parameter {name!r} goes to the program as a path: expected an artifact, a path or a URL, "
            f"got {type(value).__name__}."
        )
    survey = store.survey(os.fspath(value), base)
    uri = survey.uri
    return Artifact(
        uri=uri,
        type="",
        format=formats.extension_of(uri),
        digest="",
        checksum=survey.checksum,
        size=survey.size,
    ).to_json()


def _shown(value: Any, store: ArtifactStore) -> Any:
    """Return a value as it stands in an argument: a path, text, or several of them."""
    if isinstance(value, list | tuple):
        return [_shown(each, store) for each in value]
    if isinstance(value, Artifact):
        return _path_of(value, store)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(to_json(value))
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return "" if value is None else str(to_json(value))


def _path_of(artifact: Artifact, store: ArtifactStore) -> str:
    """Return the path of an artifact, which is there in its size."""
    if artifact.format in ("arrow", "feather"):
        raise FormatError(
            f"Spark programs do not read Arrow files such as {artifact.uri}. Declare "
            "output.parquet for the task that makes it"
        )
    if artifact.checksum.startswith(PARTS_SCHEME):
        store.folders.listing(artifact.uri, checksum=artifact.checksum, size=artifact.size)
    elif artifact.digest:
        store.open(artifact.uri, size=artifact.size).close()
    return _url(artifact.uri, store)


def _url(uri: str, store: ArtifactStore) -> str:
    scheme = parse(uri).scheme
    if kind_of(scheme) not in (*_HADOOP, "file"):
        return uri
    return hadoop_url(uri, store.filesystem(uri) if scheme != "file" else None)
