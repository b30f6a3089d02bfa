"""Past runs, read as far as one looks: listings for names, manifests for records, data to load it."""

from __future__ import annotations

import datetime as dt
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from airflow_provider_dbnd.core.manifest import RUNS, Manifest, ParameterRecord, Status, to_json
from airflow_provider_dbnd.core.past.addresses import Address, partition_of
from airflow_provider_dbnd.core.past.history import (
    Entry,
    ended,
    entries,
    last_of_each,
    newest_first,
    newest_run,
    newest_runs,
    read_all,
    started,
    unknown_pipeline,
    unknown_run,
    unknown_task,
)
from airflow_provider_dbnd.core.past.lookup import open_store, task_entries
from airflow_provider_dbnd.core.past.versions import Version, is_version, outputs_of
from airflow_provider_dbnd.core.references import key_of, references
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError, DbndError, ParameterError

#: In place of a run's id: the run whose last attempt ended last.
LATEST = "latest"


class TaskRun:
    """A task in a past run: the last attempt of it or, mapped, of each of its instances.

    An index gives one instance, ``run["describe"][2].metrics``, and iterating all of them.
    """

    def __init__(
        self, store: ArtifactStore, manifests: list[Manifest], *, attempts: int = 1
    ) -> None:
        self._store, self.manifests, self.attempts = store, manifests, attempts
        identity = manifests[0].identity
        self.name = identity.task_id
        self.mapped = identity.map_index >= 0

    @property
    def status(self) -> Status:
        """``failed`` if any instance is, ``skipped`` if all are, else ``success``."""
        return _status(self.manifests)

    @property
    def started(self) -> dt.datetime:
        """When the first of the last attempts began."""
        return min(map(started, self.manifests))

    @property
    def ended(self) -> dt.datetime:
        """When the last of them was over."""
        return max(map(ended, self.manifests))

    @property
    def seconds(self) -> float:
        """From start to end."""
        return (self.ended - self.started).total_seconds()

    @property
    def outputs(self) -> Mapping[str, Version]:
        """The results by name, to load one by one; none of a task that did not succeed."""
        if self.status != "success":
            return {}
        identity = self.manifests[0].identity
        address = Address(pipeline=identity.pipeline, task=self.name, index=self._index)
        return outputs_of(self._store, self.manifests, address)

    @property
    def parameters(self) -> Mapping[str, ParameterRecord]:
        """Each parameter as it was used, hidden ones masked, and where its value came from."""
        return self._one("parameters").parameters

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What was read for each parameter: references, or URIs with their checksums."""
        return self._one("inputs").inputs

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the task logged."""
        return self._one("metrics").metrics

    @property
    def error(self) -> Mapping[str, str] | None:
        """Type, message and traceback of the first failure, None where there is none."""
        return next((m.error for m in self.manifests if m.status == "failed"), None)

    def __getitem__(self, index: int) -> TaskRun:
        for instance in self:
            if instance._index == index:
                return instance
        there = f"instances 0 to {self.manifests[-1].identity.map_index}"
        raise ArtifactNotFoundError(
            f"Task {self.name!r} has no instance {index}: "
            f"{there if self.mapped else 'it is not mapped'}."
        )

    def __iter__(self) -> Iterator[TaskRun]:
        return (_Instance(self._store, [m]) for m in self.manifests if self.mapped)

    def __repr__(self) -> str:
        lines = [f"<{self.name}  {self.status}, {self.seconds:.2f} s>"]
        lines += [f"  {version!r}" for version in self.outputs.values()]
        if not self.mapped:
            lines += [f"  {name} = {value}" for name, value in self.metrics.items()]
        return "\n".join(lines)

    @property
    def _index(self) -> int | None:
        return None

    def _one(self, what: str) -> Manifest:
        if self.mapped and self._index is None:
            raise ParameterError(
                f"Task {self.name!r} is mapped: each of its {len(self.manifests)} instances has "
                f"{what} of its own, run[{self.name!r}][0].{what}."
            )
        return self.manifests[0]


class _Instance(TaskRun):
    """One instance of a mapped task."""

    @property
    def _index(self) -> int | None:
        return self.manifests[0].identity.map_index


class Run:
    """A past run of a pipeline. Making one reads nothing.

    >>> run = Run("drift", "latest")  # doctest: +SKIP
    >>> run.status, run.metrics["score.drift"]  # doctest: +SKIP
    ('success', 9.02)
    >>> run["prepare"].outputs["result_1"].load()  # doctest: +SKIP

    The status is that of the attempts that ended: tasks still to come leave no trace in a store.

    :param run_id: its id; ``latest`` is the run whose last attempt ended last, tests left out.
    :param store: URL; by default the store of the running task, of ``DBND_STORE`` or ``dbnd.toml``.
    """

    def __init__(
        self, pipeline: str, run_id: str = LATEST, *, store: ArtifactStore | str | None = None
    ) -> None:
        self.pipeline = pipeline
        self._run_id, self._given_store = run_id, store
        self._manifests: list[Manifest] | None = None

    @classmethod
    def _of(cls, store: ArtifactStore, manifests: list[Manifest]) -> Run:
        """Make a run of manifests that were read already."""
        identity = manifests[0].identity
        run = cls(identity.pipeline, identity.run_id, store=store)
        run._manifests = manifests
        return run

    @functools.cached_property
    def store(self) -> ArtifactStore:
        """Where its manifests and data are."""
        return open_store(self._given_store)

    @functools.cached_property
    def id(self) -> str:
        """The run's id."""
        return newest_run(self.store, self.pipeline) if self._run_id == LATEST else self._run_id

    @functools.cached_property
    def tasks(self) -> Mapping[str, TaskRun]:
        """The tasks that left a manifest, in the order they started; their data stays unread."""
        if self._manifests is None:
            self._manifests = [manifest for _, manifest in read_all(self.store, self._entries)]
        found: dict[str, list[Manifest]] = defaultdict(list)
        for manifest in self._manifests:
            found[manifest.identity.task_id].append(manifest)
        tasks = map(self._task, found.values())
        return {task.name: task for task in sorted(tasks, key=lambda task: task.started)}

    def __getitem__(self, task: str) -> TaskRun:
        if self._manifests is None:
            wanted = [entry for entry in self._entries if entry.task == key(task)]
            manifests = [manifest for _, manifest in read_all(self.store, wanted)]
        else:
            manifests = [m for m in self._manifests if m.identity.task_id == task]
        if not manifests:
            raise unknown_task(self.store, self.pipeline, self.id, task)
        return self._task(manifests)

    @property
    def status(self) -> Status:
        """``failed`` if any task is, ``skipped`` if all are, else ``success``."""
        return _status([m for task in self.tasks.values() for m in task.manifests])

    @property
    def started(self) -> dt.datetime:
        """When its first task began."""
        return min(task.started for task in self.tasks.values())

    @property
    def ended(self) -> dt.datetime:
        """When its last task was over."""
        return max(task.ended for task in self.tasks.values())

    @property
    def seconds(self) -> float:
        """From start to end."""
        return (self.ended - self.started).total_seconds()

    @property
    def logical_date(self) -> str | None:
        """The date the run is of, as recorded."""
        return self._first.identity.logical_date

    @property
    def partition(self) -> str | None:
        """The partition the run is of: its key in Airflow, else its logical date."""
        return partition_of(self._first.identity)

    @property
    def parameters(self) -> Mapping[str, ParameterRecord]:
        """The parameters of all tasks as ``task.parameter``, of an instance ``task[0].parameter``."""
        return {
            f"{where}.{name}": record
            for where, manifest in self._attempts()
            for name, record in manifest.parameters.items()
        }

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics of all tasks as ``task.metric``, of an instance ``task[0].metric``."""
        return {
            f"{where}.{name}": value
            for where, manifest in self._attempts()
            for name, value in manifest.metrics.items()
        }

    def __repr__(self) -> str:
        try:
            lines = list(self._lines())
        except DbndError as exc:
            # A repr is asked for by debuggers too, where an error would hide the object.
            lines = [f"<Run {self.pipeline} {self._run_id}: {exc}>"]
        return "\n".join(lines)

    def _lines(self) -> Iterator[str]:
        yield (
            f"<Run {self.pipeline} {self.id}  {self.status}, {self.started:%Y-%m-%d %T}Z, "
            f"{self.seconds:.2f} s>"
        )
        width = max(map(len, self.tasks))
        for name, task in self.tasks.items():
            instances = f"  {len(task.manifests)} instances" if task.mapped else ""
            outputs = ", ".join(task.outputs)
            error = f"  {task.error['type']}: {task.error['message']}" if task.error else ""
            line = f"  {name:{width}}  {task.status}  {task.seconds:.2f} s{instances}  {outputs}{error}"
            yield line.rstrip()

    @property
    def _first(self) -> Manifest:
        return next(iter(self.tasks.values())).manifests[0]

    @functools.cached_property
    def _entries(self) -> list[Entry]:
        found = list(entries(self.store, key(RUNS, self.pipeline, self.id)))
        if not found:
            raise unknown_run(self.store, self.pipeline, self.id)
        return found

    def _task(self, manifests: list[Manifest]) -> TaskRun:
        return TaskRun(self.store, last_of_each(manifests), attempts=len(manifests))

    def _attempts(self) -> Iterator[tuple[str, Manifest]]:
        for name, task in self.tasks.items():
            for manifest in task.manifests:
                index = f"[{manifest.identity.map_index}]" if task.mapped else ""
                yield f"{name}{index}", manifest


def latest_successful(
    pipeline: str, *, task: str | None = None, store: ArtifactStore | str | None = None
) -> Run:
    """Return the newest run of *pipeline* none of whose tasks failed.

    :param task: the newest run in which this task succeeded instead, whatever became of the others:
        name the last task of the pipeline where runs may still be under way.
    :param store: URL; by default the store of the running task, of ``DBND_STORE`` or ``dbnd.toml``.
    """
    opened = open_store(store)
    wanted = Address(pipeline=pipeline, task=task)
    found = task_entries(opened, wanted) if task else entries(opened, key(RUNS, pipeline))
    seen: set[str] = set()
    for attempts in newest_first(opened, found):
        run_id = attempts.manifests[0].identity.run_id
        if run_id in seen:
            continue
        seen.add(run_id)
        run = Run(pipeline, run_id, store=opened)
        if is_version(attempts.manifests, wanted) if task else run.status == "success":
            return run
    if not seen:
        raise unknown_pipeline(opened, pipeline)
    what = (
        f"run of {pipeline!r} in which {task!r} succeeded"
        if task
        else f"successful run of {pipeline!r}"
    )
    raise ArtifactNotFoundError(
        f"Store {opened.url} has no {what}: none of {len(seen)} runs is one."
    )


def recent_runs(store: ArtifactStore, pipeline: str | None = None, *, limit: int) -> list[Run]:
    """Return the newest runs, of one pipeline or of all, the one that ended last first.

    The store's times choose them, and only their manifests are read; one that is damaged is named
    in a warning.
    """
    newest = newest_runs(store, pipeline)[:limit]
    found = chain.from_iterable(entries(store, run.prefix) for run in newest)
    manifests: dict[str, list[Manifest]] = {run.prefix: [] for run in newest}
    for entry, manifest in read_all(store, found, skip_damaged=True):
        manifests[entry.run_prefix].append(manifest)
    runs = [Run._of(store, each) for each in manifests.values() if each]
    return sorted(runs, key=lambda run: run.ended, reverse=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """A parameter of an attempt that was given a version, or a part of one."""

    run_id: str
    task: str
    parameter: str


def readers(version: Version, runs: Iterable[Run]) -> Iterator[Reader]:
    """Yield who read a version, among the tasks of some runs: a store keeps no list of them."""
    keys = {key_of(reference) for reference in references(version.encoded)}
    for run in runs:
        for task, manifest in run._attempts():
            for name in manifest.parameters:
                read = references(manifest.inputs.get(name, []))
                if any(key_of(reference) in keys for reference in read) or (
                    not keys and run.id == version.run_id and _was_given(manifest, name, version)
                ):
                    yield Reader(run_id=run.id, task=task, parameter=name)


def _was_given(manifest: Manifest, name: str, version: Version) -> bool:
    """Tell whether a parameter has the value of an output that is no artifact."""
    record = manifest.parameters[name]
    source = f"task {version.address.task}"
    return record.source == source and record.value == to_json(version.encoded)


def _status(manifests: list[Manifest]) -> Status:
    found = {manifest.status for manifest in manifests}
    if "failed" in found:
        return "failed"
    return "skipped" if found == {"skipped"} else "success"
