"""What past runs left in the store: their manifests, found by listing, read only where asked for.

A manifest's key names pipeline, run, task, map index and try, so one listing of a pipeline's prefix
answers which runs and tasks there are, and the store's times say where to look first. It reads
nothing, but grows with the manifests of that pipeline: 100 000 of them take some seconds on a local
disk, and a hundred requests of a bucket that lists flat. What is read after that are the manifests that are shown:
those of one run for ``Run``, of the newest runs for ``dbnd runs --limit``, of one attempt in most
cases for ``load``.

The time of an attempt is its own record's, ``started`` and ``seconds``. A store's time of an object
is never earlier, give or take a clock, so it tells when to stop looking; in a copy of a store, whose
times are those of the copying, more is read and the answer is the same.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain

from airflow_provider_dbnd.core.manifest import RUNS, Identity, Manifest, read_manifest
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore, Info
from airflow_provider_dbnd.core.suggestions import closest, did_you_mean
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, ArtifactNotFoundError

log = logging.getLogger("airflow_provider_dbnd")

#: Prefix of the ids of runs that test one task: they hold no results of other tasks.
TEST_RUN = "test__"

#: How far the clocks of workers and store may be apart, in seconds.
SKEW = 60.0

#: An object this much younger than its content was copied here.
_COPIED = 3600.0
#: Requests at once where each takes a network's time.
_READERS = 16
_LARGEST_BATCH = 64
_SHOWN_NAMES = 8
_ESCAPED = re.compile(r"(?:~[0-9A-F]{2})+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One manifest as a listing shows it; names are written as in keys."""

    key: str
    pipeline: str
    run: str
    task: str
    map_index: int
    try_number: int
    written: float

    @property
    def run_prefix(self) -> str:
        """The folder of the run."""
        return f"{RUNS}/{self.pipeline}/{self.run}"


@dataclass(kw_only=True, slots=True)
class RunEntry:
    """One run as a listing shows it: when it last wrote a manifest, and how many it has."""

    prefix: str
    written: float = 0.0
    manifests: int = 0


def entries(store: ArtifactStore, prefix: str = RUNS) -> Iterator[Entry]:
    """Yield the manifests below a folder of the store, unread."""
    return (entry for info in store.list(prefix) if (entry := _entry(info)) is not None)


def newest_runs(store: ArtifactStore, pipeline: str | None = None) -> list[RunEntry]:
    """Return the runs of one pipeline, or of all, the last written first."""
    runs: dict[str, RunEntry] = {}
    for entry in entries(store, key(RUNS, pipeline) if pipeline else RUNS):
        run = runs.setdefault(entry.run_prefix, RunEntry(prefix=entry.run_prefix))
        run.written = max(run.written, entry.written)
        run.manifests += 1
    if pipeline and not runs:
        raise unknown_pipeline(store, pipeline)
    return sorted(runs.values(), key=lambda run: run.written, reverse=True)


def newest_run(store: ArtifactStore, pipeline: str) -> str:
    """Return the id of the run of *pipeline* whose last attempt ended last; tests do not count."""
    attempts = newest_first(store, entries(store, key(RUNS, pipeline)))
    newest = next((attempt.manifests[-1] for attempt in attempts), None)
    if newest is None:
        raise unknown_pipeline(store, pipeline)
    return newest.identity.run_id


def last_attempts(store: ArtifactStore, pipeline: str, run_id: str, task_id: str) -> list[Manifest]:
    """Return the last attempt of each instance of a task in a run, in map order."""
    found = read_all(store, entries(store, key(RUNS, pipeline, run_id, task_id)))
    last = last_of_each(manifest for _, manifest in found)
    if not last:
        raise unknown_task(store, pipeline, run_id, task_id)
    return last


def attempts_of_run(store: ArtifactStore, pipeline: str, run_id: str) -> Iterator[Manifest]:
    """Yield every manifest of a run, read one at a time."""
    for entry in entries(store, key(RUNS, pipeline, run_id)):
        yield read_manifest(store, entry.key)


def last_of_each(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return the last attempt of each instance, in map order.

    The last to start, not the highest try: a run that was started anew under its old id counts its
    tries from one again.
    """
    last: dict[int, Manifest] = {}
    for manifest in manifests:
        known = last.get(manifest.identity.map_index)
        if known is None or _age(known) < _age(manifest):
            last[manifest.identity.map_index] = manifest
    return [last[index] for index in sorted(last)]


def started(manifest: Manifest) -> dt.datetime:
    """Return when an attempt began."""
    return dt.datetime.fromisoformat(manifest.started)


def ended(manifest: Manifest) -> dt.datetime:
    """Return when an attempt was over: its time in all questions of which is newer."""
    return started(manifest) + dt.timedelta(seconds=manifest.seconds)


def read_all(
    store: ArtifactStore, found: Iterable[Entry], *, skip_damaged: bool = False
) -> Iterator[tuple[Entry, Manifest]]:
    """Read manifests, several at once from a remote store; those deleted meanwhile are left out.

    :param skip_damaged: name a manifest that cannot be read in a warning instead of raising.
    """

    def read(entry: Entry) -> list[tuple[Entry, Manifest]]:
        try:
            return [(entry, read_manifest(store, entry.key))]
        except ArtifactNotFoundError:
            return []
        except ArtifactCorruptedError as exc:
            if not skip_damaged:
                raise
            log.warning("skipped: %s", exc)
            return []

    found = list(found)
    if store.medium == "local" or len(found) <= 1:
        yield from chain.from_iterable(map(read, found))
        return
    with ThreadPoolExecutor(_READERS, "dbnd-manifests") as pool:
        yield from chain.from_iterable(pool.map(read, found))


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """The last attempts of a group of manifests: of one task in one run, for most questions."""

    manifests: list[Manifest]

    @property
    def ended(self) -> dt.datetime:
        """When the last of them was over."""
        return max(map(ended, self.manifests))


def newest_first(
    store: ArtifactStore,
    found: Iterable[Entry],
    *,
    until: dt.datetime | None = None,
    wanted: Callable[[Identity], bool] | None = None,
    skip_damaged: bool = False,
) -> Iterator[Attempts]:
    """Yield the last attempts of each task in each run, the one that ended last first.

    Reads as few manifests as the order allows, so take only as many as are needed. Runs that test
    one task are left out.

    :param until: what was there at a time: attempts that ended later do not count.
    :param wanted: is asked with one attempt of a group before the others are read.
    """
    groups = _groups(store, found, until)
    ready: list[tuple[float, int, Attempts]] = []
    position, size = 0, 1
    while position < len(groups) or ready:
        # A group cannot have ended after it was written: what is older than the best is not read.
        best = -ready[0][0] if ready else -math.inf
        batch = groups[position : position + size]
        batch = [group for group in batch if group[0].written + SKEW > best]
        if not batch:
            yield heappop(ready)[2]
            continue
        for number, manifests in enumerate(_read_groups(store, batch, wanted, skip_damaged)):
            last = last_of_each(m for m in manifests if until is None or ended(m) <= until)
            if last:
                attempts = Attempts(manifests=last)
                heappush(ready, (-attempts.ended.timestamp(), position + number, attempts))
        position, size = position + len(batch), min(2 * size, _LARGEST_BATCH)


def unknown_pipeline(store: ArtifactStore, pipeline: str) -> ArtifactNotFoundError:
    """The error for a pipeline that left nothing."""
    known = {readable(entry.pipeline) for entry in entries(store)}
    remedy = did_you_mean(pipeline, known) if known else "."
    return ArtifactNotFoundError(
        f"Store {store.url} has no run of {pipeline!r}{remedy} Run it once, or name another store "
        "by DBND_STORE."
    )


def unknown_run(store: ArtifactStore, pipeline: str, run_id: str) -> ArtifactNotFoundError:
    """The error for a run that left nothing."""
    runs = newest_runs(store, pipeline)
    known = [readable(run.prefix.rpartition("/")[2]) for run in runs]
    if closest(run_id, known) is None:
        known = known[:_SHOWN_NAMES]
    return ArtifactNotFoundError(
        f"Store {store.url} has no run {run_id!r} of {pipeline!r}{did_you_mean(run_id, known)}"
    )


def unknown_task(
    store: ArtifactStore, pipeline: str, run_id: str, task_id: str
) -> ArtifactNotFoundError:
    """The error for a task that left nothing in a run."""
    tasks = {readable(entry.task) for entry in entries(store, key(RUNS, pipeline, run_id))}
    if not tasks:
        return unknown_run(store, pipeline, run_id)
    return ArtifactNotFoundError(
        f"Run {run_id!r} of {pipeline!r} has no manifest of task {task_id!r} in {store.url}"
        f"{did_you_mean(task_id, tasks)}"
    )


def readable(part: str) -> str:
    """Return the name that a part of a key was made of; one cut for its length stays cut.

    >>> readable("manual__2026-11-20T10~3A00")
    'manual__2026-11-20T10:00'
    """
    return _ESCAPED.sub(
        lambda found: bytes.fromhex(found[0].replace("~", "")).decode("utf-8", "replace"), part
    )


def _entry(info: Info) -> Entry | None:
    parts = info.key.split("/")
    stem, dot, ending = parts[-1].partition(".")
    if len(parts) != 6 or (dot, ending) != (".", "json") or not stem.isdecimal():
        return None
    _, pipeline, run, task, index, _ = parts
    if not index.removeprefix("-").isdecimal():
        return None
    return Entry(
        key=info.key,
        pipeline=pipeline,
        run=run,
        task=task,
        map_index=int(index),
        try_number=int(stem),
        # Where a file system has no times nothing is known to be older than anything.
        written=info.mtime or math.inf,
    )


def _age(manifest: Manifest) -> tuple[dt.datetime, int]:
    return started(manifest), manifest.identity.try_number


def _groups(
    store: ArtifactStore, found: Iterable[Entry], until: dt.datetime | None
) -> list[list[Entry]]:
    """Return the manifests of each task in each run, the last written first, within and without."""
    kept = [entry for entry in found if not entry.run.startswith(TEST_RUN)]
    if until is not None and kept and not _is_copy(store, kept):
        kept = [entry for entry in kept if entry.written <= until.timestamp() + SKEW]
    groups: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in kept:
        groups[entry.pipeline, entry.run, entry.task].append(entry)
    for group in groups.values():
        group.sort(key=lambda entry: entry.written, reverse=True)
    return sorted(groups.values(), key=lambda group: group[0].written, reverse=True)


def _is_copy(store: ArtifactStore, found: list[Entry]) -> bool:
    """Tell whether the store's times are those of a copy, by its oldest manifest."""
    oldest = min(found, key=lambda entry: entry.written)
    read = read_all(store, [oldest], skip_damaged=True)
    return any(oldest.written - ended(manifest).timestamp() > _COPIED for _, manifest in read)


def _read_groups(
    store: ArtifactStore,
    groups: list[list[Entry]],
    wanted: Callable[[Identity], bool] | None,
    skip_damaged: bool,
) -> list[list[Manifest]]:
    """Read groups together; all of a group only if one of it is *wanted*."""
    if wanted is None:
        return _by_group(store, groups, skip_damaged)
    firsts = _by_group(store, [group[:1] for group in groups], skip_damaged)
    rest = [
        group[1:] if any(wanted(m.identity) for m in first) else []
        for group, first in zip(groups, firsts, strict=True)
    ]
    more = _by_group(store, rest, skip_damaged)
    return [
        [m for m in (*first, *others) if wanted(m.identity)]
        for first, others in zip(firsts, more, strict=True)
    ]


def _by_group(
    store: ArtifactStore, groups: list[list[Entry]], skip_damaged: bool
) -> list[list[Manifest]]:
    together = chain.from_iterable(groups)
    read = dict(read_all(store, together, skip_damaged=skip_damaged))
    return [[read[entry] for entry in group if entry in read] for group in groups]
