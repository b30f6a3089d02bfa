"""What every engine has in common: a spec goes out, the job runs, a manifest comes back."""

from __future__ import annotations

import contextlib
import inspect
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.remote import bootstrap
from airflow_provider_dbnd.core.remote.job import (
    Job,
    Place,
    forget,
    read_failure,
    read_result,
    recall,
    remember,
    send,
    was_stopped,
)
from airflow_provider_dbnd.core.reuse.flight import Lease
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.lease_trigger import LeaseTrigger
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ConfigurationError,
    EngineError,
    TaskFailedError,
)
from airflow_provider_dbnd.operators.task import DbndOperatorMixin

_CODE = ("bundle", "image")


class RemoteTask(DbndOperatorMixin, DecoratedOperator):
    """A task whose function runs elsewhere, by an operator of Airflow that this class is put before.

    A subclass says how its operator is given the job (:meth:`configure`) and what runs it
    (:meth:`launch`); deferral, reconnecting, killing and logs stay the operator's.

    :param code: ``bundle`` sends the project along; ``image`` expects it installed where it runs.
    :param python: the Python to call there.
    """

    #: Whether jobs see the local files of the worker.
    shares_disk: ClassVar[bool] = False
    #: Options that have to be set: of each tuple one at least.
    required: ClassVar[Sequence[Sequence[str]]] = ()
    #: Options of the operator that hold unless the user sets them.
    defaults: ClassVar[Mapping[str, Any]] = {}

    _sent: TaskSpec | None = None
    _job: Job | None = None
    #: Whether an earlier try sent the job; it may have submitted it without recording its name.
    _sent_before = False

    custom_operator_name = "@task.dbnd"
    template_fields: Sequence[str] = ("op_args", "op_kwargs", "parameters")
    template_fields_renderers = {"op_args": "py", "op_kwargs": "py", "parameters": "json"}

    def __init__(
        self, *, code: str | None = None, python: str | None = None, **kwargs: Any
    ) -> None:
        self.parameters = None
        options = {**self.defaults, **kwargs}
        code, python = code or options.get("code"), python or options.get("python")
        self.code, self.python = code or "bundle", python or "python3"
        if self.code not in _CODE:
            raise ConfigurationError(f"code={self.code!r}: expected one of {', '.join(_CODE)}.")
        super().__init__(**{k: v for k, v in options.items() if k not in ("code", "python")})

    def sees_disk(self, store: ArtifactStore) -> bool:  # noqa: ARG002 - where it matters
        """Tell whether jobs see the local files of the worker, the data being in *store*."""
        return self.shares_disk

    @abstractmethod
    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Give the operator the job's program and arguments."""

    @abstractmethod
    def launch(self, context: Any) -> None:
        """Run the job to its end, or defer."""

    @abstractmethod
    def external_id(self) -> str:
        """Return what the engine calls the job."""

    def explain(self, error: BaseException | None) -> str:
        """Return why the job ended without a result, and what to do, as far as the engine knows."""
        return f"{type(error).__name__}: {error}" if error else "the job left no result"

    def may_go_on(self) -> bool:
        """Tell whether the job may run still, though its operator has given up: a retry takes it up."""
        return False

    def follows(self, job: Job) -> bool:
        """Tell whether :meth:`launch` takes up *job* of an earlier try if it runs still.

        Where it does not, another job is sent: two never run on one spec, and each leaves a manifest
        of its own.
        """
        return job.name is not None

    def tidy(self) -> None:
        """Remove what is left of the job of an earlier try that nobody waits for any more."""

    def execute(self, context: Any) -> Any:
        """Run the function elsewhere; its results are in the store, references go to XCom."""
        spec = self.task_spec(context)

        def run(spec: TaskSpec) -> Manifest:
            return self.run_switched(context, spec) or self.run_job(context, spec)

        manifest = self.reusing(spec, run)
        if manifest.reuse.get("hit"):
            self._leave(spec)
        return self.push_outputs(context, self.finished(context, spec, manifest))

    def resumed(self, context: Any, resume: Any) -> Any:
        """Take up a deferred task: *resume* is the operator's own part of it."""
        spec = self.task_spec(context)
        job = recall(spec.store, spec.identity)
        if job is None:
            raise self._error("the record of the job is gone from the store", "Run the task again.")
        lease = None if job.lease is None else Lease(spec.store, **job.lease)
        self._sent, self._job = replace(spec, lease=lease), job
        with lease.held() if lease is not None else contextlib.nullcontext():
            manifest = self._result_of(spec, job, resume)
        return self.push_outputs(context, self.finished(context, spec, manifest))

    def defer(self, *, trigger: Any, **kwargs: Any) -> NoReturn:
        """Leave the worker; where single flight is on, the task stays the one that computes."""
        assert self._sent is not None
        assert self._job is not None
        lease = self._sent.lease
        if lease is not None:
            lease.keep()
            # Airflow shows the arguments of a trigger: what is secret stays out, as it does of the job.
            options = self._job.options
            trigger = LeaseTrigger.around(trigger, lease, self._sent.store.url, options)
        super().defer(trigger=trigger, **kwargs)

    def run_job(self, context: Mapping[str, Any], spec: TaskSpec) -> Manifest:
        """Send the job of *spec*, unless one is out already, and return its manifest."""
        engine, settings = self.binding.engine, self.binding.dag.settings
        place = Place(
            engine=engine.name,
            type=engine.type,
            shares_disk=self.sees_disk(spec.store),
            code=self.code,
        )
        job = send(spec, self.binding.definition, settings, place)
        earlier = recall(spec.store, spec.identity)
        if earlier is not None and earlier.fingerprint == job.fingerprint:
            found = self._left_by(spec, earlier)
            if isinstance(found, Manifest):
                return found
            self._sent_before = found is not None
            job = found or job
        job = replace(job, lease=None if spec.lease is None else spec.lease.to_json())
        self._sent, self._job = spec, job
        self.configure(job, spec.store)
        self.sends(spec, job)
        return self._result_of(spec, job, lambda: self.launch(context))

    def _left_by(self, spec: TaskSpec, earlier: Job) -> Manifest | Job | None:
        """Return what there is of the job that a worker sent before it died.

        Its manifest, if it is done and needs not run again; the job, if it is to be followed.
        """
        try:
            manifest = read_result(spec.store, earlier.manifest, earlier.checksum)
            over = manifest is not None or read_failure(spec.store, earlier) is not None
        except ArtifactCorruptedError as exc:
            self.log.warning("the result of an earlier try is not taken: %s", exc)
            manifest, over = None, True
        if not over:
            if self.follows(earlier):
                self.log.info("taking up the job that an earlier try sent: %s", earlier.spec)
                return earlier
            self.log.warning(
                "the job of an earlier try may run still, and its result is not waited for: %s",
                earlier.spec,
            )
            return None
        self._sent, self._job = spec, earlier
        self.tidy()
        if manifest is None or manifest.status == "failed":
            return None
        self.log.info("taking the result of the job that an earlier try sent: %s", earlier.spec)
        return self._taken(spec, manifest)

    def _result_of(self, spec: TaskSpec, job: Job, run: Any) -> Manifest:
        """Let the operator *run* to the job's end, and return the manifest or raise what it tells."""
        error: Exception | None = None
        try:
            run()
        except Exception as exc:  # noqa: BLE001 - told below, with what the job itself left
            error = exc
        try:
            manifest = read_result(spec.store, job.manifest, job.checksum)
        except ArtifactCorruptedError:
            forget(spec.store, spec.identity)
            raise
        # Of a job that was stopped the engine knows why.
        if manifest is None or was_stopped(manifest):
            if not self.may_go_on():
                forget(spec.store, spec.identity)
            if isinstance(error, AirflowSkipException):
                raise error  # an exit code that the user's options give this meaning
            reason = read_failure(spec.store, job) or self.explain(error)
            raise self._error(reason, f"Its spec is {job.spec}.") from error
        if error is not None and manifest.status == "success":
            self.log.warning("the job succeeded, but its engine reported: %s", error)
        return self._taken(spec, manifest)

    def _taken(self, spec: TaskSpec, manifest: Manifest) -> Manifest:
        forget(spec.store, spec.identity)
        if manifest.status == "skipped":
            raise AirflowSkipException((manifest.error or {}).get("message", ""))
        if manifest.status == "failed":
            raise _failure(manifest, self.external_id()) from None
        return manifest

    def _leave(self, spec: TaskSpec) -> None:
        """Forget what an earlier try sent: there is a result without it."""
        try:
            earlier = recall(spec.store, spec.identity)
        except ArtifactCorruptedError as exc:
            self.log.warning("%s", exc)
            forget(spec.store, spec.identity)
            return
        if earlier is not None:
            self._sent, self._job = spec, earlier
            self.tidy()
            forget(spec.store, spec.identity)

    def on_kill(self) -> None:
        """Kill the job; the next try sends another."""
        super().on_kill()
        self.forgets()

    def sends(self, spec: TaskSpec, job: Job) -> None:
        """Record that *job* is sent, so that another process can take it up."""
        self._sent, self._job = spec, job
        remember(spec.store, spec.identity, job)

    def forgets(self) -> None:
        """Delete the record of the job: its result was taken, or is not wanted."""
        if self._sent is not None:
            forget(self._sent.store, self._sent.identity)

    @property
    def running_job(self) -> str | None:
        """What the engine calls the job that an earlier try sent and that may run still."""
        return self._job.name if self._job is not None else None

    def started(self, name: str) -> None:
        """Record what the engine calls the job, so that another process can take it up."""
        assert self._sent is not None
        assert self._job is not None
        self.sends(self._sent, replace(self._job, name=name))

    def _error(self, reason: str, remedy: str) -> EngineError:
        engine = self.binding.engine
        return EngineError(
            f"engine {engine.name!r} ({engine.type}), job {self.external_id()}: {reason.rstrip('.')}. "
            f"{remedy}"
        )

    def program(self, job: Job) -> list[str]:
        """Return the command that runs *job* in an image."""
        if self.code == "image":
            program = ["-m", "airflow_provider_dbnd.core.execute"]
        else:
            program = ["-c", inspect.getsource(bootstrap)]
        return [self.python, *program, *job.arguments()]


def local_folder(store: ArtifactStore) -> str | None:
    """Return the folder of a store on the local disk, made if it is not there."""
    if store.medium != "local":
        return None
    folder = store.url.removeprefix("file://")
    os.makedirs(folder, exist_ok=True)
    return folder


class FinalFailureError(TaskFailedError, AirflowFailException):
    """A task's function failed and asked not to be tried again."""


def _failure(manifest: Manifest, job: str) -> TaskFailedError:
    error = manifest.error or {}
    # By its name: where the function ran, Airflow may not be there.
    final = error.get("type") == AirflowFailException.__name__
    return (FinalFailureError if final else TaskFailedError)(
        f"task {manifest.identity.task_id!r} failed in job {job}: {error.get('type')}: "
        f"{error.get('message')}\n{error.get('traceback', '').rstrip()}"
    )
