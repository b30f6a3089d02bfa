"""Outputs of past runs, found by what names a version and loaded.

A version is one output of a task in one run: of its last attempt, where that succeeded. Finding one
reads manifests only, as few as the question allows (see :mod:`.history`): ``run`` those of one task
in one run, ``tag`` one small object, the newest and ``as_of`` a few. ``partition`` and ``dates``
read one manifest of the task for each of its runs, since the key does not tell of which date the
data is.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_dbnd.core.attempt import current_attempt
from airflow_provider_dbnd.core.conversion import strip_annotated
from airflow_provider_dbnd.core.manifest import RUNS, Identity, Manifest
from airflow_provider_dbnd.core.past.addresses import (
    Address,
    Moment,
    Selector,
    end_of,
    parse,
    partition_of,
    selector,
    start_of,
    time_of,
)
from airflow_provider_dbnd.core.past.history import (
    Entry,
    entries,
    last_attempts,
    newest_first,
    readable,
    unknown_pipeline,
)
from airflow_provider_dbnd.core.past.tags import tagged
from airflow_provider_dbnd.core.past.versions import Version, first_gap, is_version, outputs_of
from airflow_provider_dbnd.core.settings import load_settings
from airflow_provider_dbnd.core.signature import OutputSlot, record_outputs
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.suggestions import closest, did_you_mean
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError, ParameterError

_SHOWN_PARTITIONS = 5


def load(
    name: str,
    type: Any = Any,
    *,
    run: str | None = None,
    as_of: Moment | None = None,
    partition: Moment | None = None,
    dates: tuple[Moment, Moment] | None = None,
    tag: str | None = None,
    store: ArtifactStore | str | None = None,
    load_options: Mapping[str, Any] | None = None,
) -> Any:
    """Load an output of a past run; without a word on the version the newest.

    :param name: ``pipeline/task/output``, or ``pipeline/task`` for its only output or, where there
        are several, a dict of them, or the dataclass or NamedTuple *type* they are the fields of. ``task[2]`` is one instance of a mapped task.
    :param type: what to load it as (``polars.DataFrame``, ``Path``, ``Artifact``...), by default
        what the task returned.
    :param run: the id of a run.
    :param as_of: what was the newest at a time; a day means its end.
    :param partition: the partition key or the logical date it is of.
    :param dates: first and last logical date: a dict of one value for each partition between.
    :param tag: the version promoted to a tag, such as ``prod``.
    :param store: URL; by default the store of the running task, of ``DBND_STORE`` or ``dbnd.toml``.
    """
    chosen = selector(run=run, as_of=as_of, partition=partition, tag=tag)
    opened = open_store(store)
    if dates is None:
        address, chosen = _parsed(name, chosen)
        return _whole(address, find(opened, address, chosen), type, load_options)
    address, chosen = _parsed(name, chosen)
    if chosen != Selector(as_of=chosen.as_of):
        raise ParameterError("dates name versions by themselves: leave run, partition and tag out.")
    spans = find_dates(opened, address, dates, as_of=chosen.as_of)
    return {text: _whole(address, found, type, load_options) for text, found in spans.items()}


def find(store: ArtifactStore, address: Address, chosen: Selector) -> dict[str, Version]:
    """Return the versions of the outputs that *address* names, by output."""
    _task_of(address)
    if chosen.tag is not None:
        return tagged(store, address, chosen)
    if chosen.run is not None:
        return outputs_of(store, _of_run(store, address, chosen.run), address)
    return next(history(store, address, chosen))


def history(
    store: ArtifactStore,
    address: Address,
    chosen: Selector | None = None,
    *,
    listing: bool = False,
) -> Iterator[dict[str, Version]]:
    """Yield the versions of a task's outputs, the newest first; an error where there is none.

    :param listing: leave out, with a warning, what cannot be read, and runs without the output.
    """
    chosen = chosen or Selector()
    found = task_entries(store, address)
    seen: set[str] = set()

    def wanted(identity: Identity) -> bool:
        partition = partition_of(identity)
        seen.add(partition or "")
        return partition == chosen.partition

    attempts = newest_first(
        store,
        found,
        until=chosen.as_of,
        wanted=None if chosen.partition is None else wanted,
        skip_damaged=listing,
    )
    error: ArtifactNotFoundError | None = None
    empty = True
    for each in attempts:
        if not is_version(each.manifests, address):
            continue
        try:
            outputs = outputs_of(store, each.manifests, address)
        except ArtifactNotFoundError as exc:
            if not listing:
                raise
            error = error or exc
            continue
        empty = False
        yield outputs
    if empty:
        raise error or _no_version(address, chosen, found, seen - {""})


def newest_versions(store: ArtifactStore, address: Address | None = None) -> Iterator[Version]:
    """Yield the newest version of every output: of all pipelines, of one, of a task or an output.

    One listing, and a manifest or few for each task. A damaged one is named in a warning, and the
    version before it given.
    """
    if address is not None and address.task is not None:
        yield from next(history(store, address, listing=True)).values()
        return
    tasks: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries(store, key(RUNS, address.pipeline) if address else RUNS):
        tasks[entry.pipeline, entry.task].append(entry)
    if address is not None and not tasks:
        raise unknown_pipeline(store, address.pipeline)
    for _, found in sorted(tasks.items()):
        for attempts in newest_first(store, found, skip_damaged=True):
            identity = attempts.manifests[0].identity
            of_task = Address(pipeline=identity.pipeline, task=identity.task_id)
            if is_version(attempts.manifests, of_task):
                yield from outputs_of(store, attempts.manifests, of_task).values()
                break


def find_dates(
    store: ArtifactStore,
    address: Address,
    dates: tuple[Moment, Moment],
    *,
    as_of: dt.datetime | None = None,
) -> dict[str, dict[str, Version]]:
    """Return the newest version of each partition from the first date to the last, in order."""
    first, last = start_of(dates[0]), end_of(dates[1])

    def wanted(identity: Identity) -> bool:
        time = time_of(identity)
        return time is not None and first <= time <= last

    spans: dict[str, list[Manifest]] = {}
    times: dict[str, dt.datetime] = {}
    found = task_entries(store, address)
    for attempts in newest_first(store, found, until=as_of, wanted=wanted):
        identity = attempts.manifests[0].identity
        text, time = partition_of(identity), time_of(identity)
        assert text is not None
        assert time is not None
        if is_version(attempts.manifests, address) and text not in spans:
            spans[text], times[text] = attempts.manifests, time
    if not spans:
        raise ArtifactNotFoundError(
            f"{address} has no version between {dates[0]} and {dates[1]} in {store.url}: no "
            "successful run of these logical dates or partitions is there."
        )
    return {text: outputs_of(store, spans[text], address) for text in sorted(spans, key=times.get)}  # type: ignore[arg-type]


def task_entries(store: ArtifactStore, address: Address) -> list[Entry]:
    """Return the manifests of a task in all runs, unread; an error where there are none."""
    wanted = key(_task_of(address))
    tasks: set[str] = set()
    found = []
    for entry in entries(store, key(RUNS, address.pipeline)):
        tasks.add(entry.task)
        if entry.task == wanted:
            found.append(entry)
    if not tasks:
        raise unknown_pipeline(store, address.pipeline)
    if not found:
        raise ArtifactNotFoundError(
            f"Pipeline {address.pipeline!r} has no task {address.task!r} in {store.url}"
            f"{did_you_mean(_task_of(address), map(readable, tasks))}"
        )
    if address.index is None:
        return found
    of_index = [entry for entry in found if entry.map_index == address.index]
    if not of_index:
        raise _no_instance(address, {entry.map_index for entry in found})
    return of_index


def open_store(store: ArtifactStore | str | None = None) -> ArtifactStore:
    """Return the store of a URL, of the running task, or of the settings, in this order."""
    if isinstance(store, ArtifactStore):
        return store
    attempt = current_attempt()
    if store is None and attempt is not None and attempt.store is not None:
        return attempt.store
    settings = load_settings(os.getcwd())
    return ArtifactStore(store or settings.store, storage_options=settings.storage_options)


def _parsed(name: str, given: Selector) -> tuple[Address, Selector]:
    address, written = parse(name)
    if written != Selector() and given != Selector():
        raise ParameterError(
            f"{name!r} names a version already: leave {str(given).lstrip('@')!r} out."
        )
    return address, given if written == Selector() else written


def _whole(
    address: Address,
    found: Mapping[str, Version],
    type_: Any,
    load_options: Mapping[str, Any] | None,
) -> Any:
    """Load one output as itself, several as a dict or as the record they are the fields of."""
    fields = record_outputs(type_) if address.output is None else {}
    if fields and {slot.name for slot in fields.values()} == set(found):
        return _record(type_, fields, found, load_options)
    values = {name: each.load(type_, load_options=load_options) for name, each in found.items()}
    return next(iter(values.values())) if len(values) == 1 else values


def _record(
    type_: Any,
    fields: Mapping[str, OutputSlot],
    found: Mapping[str, Version],
    load_options: Mapping[str, Any] | None,
) -> Any:
    values = {
        name: found[slot.name].load(slot.annotation, load_options=load_options)
        for name, slot in fields.items()
    }
    record = strip_annotated(type_)
    if not next(iter(found.values())).mapped:
        return record(**values)
    rows = zip(*values.values(), strict=True)
    return [record(**dict(zip(values, row, strict=True))) for row in rows]


def _task_of(address: Address) -> str:
    if address.task is None:
        raise ParameterError(
            f"{str(address)!r} names a pipeline: expected PIPELINE/TASK or PIPELINE/TASK/OUTPUT."
        )
    return address.task


def _of_run(store: ArtifactStore, address: Address, run_id: str) -> list[Manifest]:
    manifests = last_attempts(store, address.pipeline, run_id, _task_of(address))
    if address.index is not None:
        chosen = [m for m in manifests if m.identity.map_index == address.index]
        if not chosen:
            raise _no_instance(address, {m.identity.map_index for m in manifests})
        manifests = chosen
    for manifest in manifests:
        if manifest.status != "success":
            index = manifest.identity.map_index
            which = f"{address.task}[{index}]" if index >= 0 else address.task
            raise ArtifactNotFoundError(
                f"Task {which!r} is {manifest.status} in run {run_id!r} of {address.pipeline!r}: "
                "it left no result. Choose another run."
            )
    gap = first_gap(manifests, address)
    if gap is not None:
        raise ArtifactNotFoundError(
            f"Instance {gap} of task {address.task!r} left no manifest in run {run_id!r} of "
            f"{address.pipeline!r}: its result is not complete. Choose another run, or one instance."
        )
    return manifests


def _no_instance(address: Address, indexes: set[int]) -> ArtifactNotFoundError:
    there = f"it has the instances 0 to {max(indexes)}" if max(indexes) >= 0 else "it is not mapped"
    return ArtifactNotFoundError(
        f"Task {address.task!r} of {address.pipeline!r} has no instance {address.index}: {there}."
    )


def _no_version(
    address: Address, chosen: Selector, found: Sequence[Entry], partitions: set[str]
) -> ArtifactNotFoundError:
    what = f"{address} has no version{_said(chosen)}"
    if chosen.partition is not None and partitions:
        near = closest(chosen.partition, partitions)
        shown = sorted(partitions)[-_SHOWN_PARTITIONS:] if near is None else partitions
        return ArtifactNotFoundError(f"{what}{did_you_mean(chosen.partition, shown)}")
    if chosen.as_of is not None:
        oldest = min(entry.written for entry in found)
        with contextlib.suppress(OverflowError, ValueError):
            time = dt.datetime.fromtimestamp(oldest, dt.timezone.utc)
            return ArtifactNotFoundError(f"{what}: its first manifest is of {time:%Y-%m-%d %T}Z.")
    return ArtifactNotFoundError(f"{what}: no attempt of the task succeeded.")


def _said(chosen: Selector) -> str:
    partition = f" of partition {chosen.partition!r}" if chosen.partition else ""
    as_of = f" as of {chosen.as_of:%Y-%m-%d %T}Z" if chosen.as_of else ""
    return f"{partition}{as_of}"
