"""Delete what a plan lets go, in an order that leaves the store consistent wherever it stops."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, islice
from typing import TypeVar

from airflow_provider_dbnd.core.gc.plan import Plan, made_plan
from airflow_provider_dbnd.core.gc.policy import Policy
from airflow_provider_dbnd.core.gc.report import Report
from airflow_provider_dbnd.core.past.lookup import open_store
from airflow_provider_dbnd.core.remote.travel import INPUTS
from airflow_provider_dbnd.core.storage import claims
from airflow_provider_dbnd.core.storage.errors import store_errors
from airflow_provider_dbnd.core.storage.filesystem import parse
from airflow_provider_dbnd.core.storage.objects import STAGING
from airflow_provider_dbnd.core.storage.parts import LISTING
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import StoreError

T = TypeVar("T")

#: What lives and goes as one: its name, and those of its objects in the order in which they go.
_Unit = tuple[str, list[str]]

_BATCH = 500
_AT_ONCE = 16

log = logging.getLogger("airflow_provider_dbnd")


def clean_up(
    *,
    keep_last: int | None = None,
    keep_days: float | None = None,
    grace: dt.timedelta | str | None = None,
    delete: bool = False,
    store: ArtifactStore | str | None = None,
) -> Report:
    """Find what old runs left and nothing needs any more; delete it if *delete* says so.

    A run stays if one of the rules keeps it, a tag is on one of its versions, or it is under way.
    Without a rule all runs stay. ``dbnd gc`` does the same, and reads table ``[gc]`` for the rules.

    :param keep_last: as many runs of each pipeline, the last written.
    :param keep_days: runs that wrote something in the last days.
    :param grace: nothing younger is deleted; as a timedelta or text, an hour or more, by default ``"1d"``.
    :param store: URL; by default the store of the running task, of ``DBND_STORE`` or ``dbnd.toml``.
    :raises ConfigurationError: for a rule that makes no sense.
    :raises StoreError: where the store is so slow that nothing can be deleted safely.

    >>> clean_up(keep_last=3, store="memory://clean-up-of-nothing").total
    Tally(objects=0, bytes=0)
    """
    policy = Policy.of({}, keep_last=keep_last, keep_days=keep_days, grace=grace)
    return collect(open_store(store), policy, delete=delete)


def collect(store: ArtifactStore, policy: Policy, *, delete: bool = False) -> Report:
    """Find what *policy* lets go, and delete it if *delete* says so."""
    with tempfile.TemporaryDirectory(prefix="dbnd-gc.") as folder:
        plan = made_plan(store, policy, folder, delete=delete)
        _leftovers(store, plan, delete=delete)
        if delete:
            _Sweep(store, plan).run()
        return plan.report


class _Sweep:
    def __init__(self, store: ArtifactStore, plan: Plan) -> None:
        self._store, self._plan = store, plan
        self._at_once = _BATCH

    def run(self) -> None:
        self._withdraw()
        with ThreadPoolExecutor(_AT_ONCE, "dbnd-gc") as pool:
            for names in _batches(name for (name,) in self._plan.records):
                # A record that goes although it was written anew costs one reuse.
                list(pool.map(self._record, names))
            self._condemn(((name, [name]) for (name,) in self._plan.manifests), pool)
            self._condemn(_units(self._plan.objects), pool)

    def _condemn(self, units: Iterable[_Unit], pool: ThreadPoolExecutor) -> None:
        coming, waiting = iter(units), list[_Unit]()
        while waiting := waiting or list(islice(coming, self._at_once)):
            batch, later = waiting[: self._at_once], waiting[self._at_once :]
            left = self._delete(batch, pool)
            if _count(left) == _count(batch):
                self._at_once = self._fewer(batch)
            waiting = left + later

    def _fewer(self, batch: list[_Unit]) -> int:
        """Return how many units to condemn at once, as looking at those of *batch* took all the time."""
        if len(batch) == 1:
            raise StoreError(
                f"to look at the claims and the times of {_count(batch)} objects took more than "
                f"{claims.LASTS:g} s, for which a clean-up may act on what it saw, so "
                f"{self._store.uri(batch[0][0])} was not deleted. Run dbnd gc again when the store "
                "answers faster; it goes on from here."
            )
        return max(1, len(batch) // 4)

    def _delete(self, units: list[_Unit], pool: ThreadPoolExecutor) -> list[_Unit]:
        """Delete units and return those, with their objects, for which there was no time."""
        names = [each for name, members in units for each in _claimable(name, members)]
        # From before tasks can see the condemnation.
        until = time.monotonic() + claims.LASTS
        with claims.condemned(self._store, names):
            claimed = claims.claimed(self._store, names, self._plan.before)
            if time.monotonic() > until:
                return units
            objects = [each for _, members in units for each in members]
            young = {
                n
                for n, old in zip(objects, pool.map(self._is_old, objects), strict=True)
                if not old
            }
            delete = partial(self._unit, wanted=claimed | young, until=until)
            left = list(pool.map(lambda unit: delete(*unit), units))
        return [(name, rest) for (name, _), rest in zip(units, left, strict=True) if rest]

    def _unit(self, name: str, members: list[str], *, wanted: set[str], until: float) -> list[str]:
        """Delete a unit unless somebody wants it; return the objects for which there was no time."""
        if not wanted.isdisjoint((name, *members)):
            self._plan.report.spared += 1
            return []
        for done, each in enumerate(members):
            if time.monotonic() > until:
                return members[done:]
            self._store.delete(each)
        self._tidy(name)
        return []

    def _is_old(self, name: str) -> bool:
        written = self._store.written(name)
        return written is None or 0 < written < self._plan.before

    def _record(self, name: str) -> None:
        found = self._store.written(name)
        if found is not None and found < self._plan.before:
            self._store.delete(name)

    def _tidy(self, name: str) -> None:
        """Remove the folders of a run that are empty now; object stores have none."""
        if self._store.medium != "local" or not name.startswith("_"):
            return
        folders = parse(self._store.uri(name)).path.split("/")
        depth = len(name.split("/"))
        for up in range(1, depth - 2):
            with contextlib.suppress(OSError):
                os.rmdir("/".join(folders[:-up]))

    def _withdraw(self) -> None:
        """Remove what a clean-up that was killed condemned."""
        for found in self._store.list(claims.CONDEMNED):
            if claims.is_over(found):
                self._store.delete(found.key)


def _leftovers(store: ArtifactStore, plan: Plan, *, delete: bool) -> None:
    """Take what writers that were killed left in the folder for what is being written."""
    for name, size, files in old_staging(store, plan.before):
        plan.report.other["staging"].add(size, files)
        if delete:
            _remove_staging(store, name)


def old_staging(store: ArtifactStore, before: float) -> Iterator[tuple[str, int, int]]:
    """Yield name, bytes and files of what was staged and not touched since *before*."""
    uri = f"{store.url}/{STAGING}"
    with store_errors(uri, "list"):
        objects, root = store.locate(uri)
        found: dict[str, tuple[int, int, float]] = {}
        for path, size, mtime in objects.walk(root):
            name = path.lstrip("/")[len(root.strip("/")) :].strip("/").split("/")[0]
            total, files, last = found.get(name, (0, 0, 0.0))
            found[name] = total + size, files + 1, max(last, mtime or time.time())
    for name, (total, files, last) in sorted(found.items()):
        if last < before:
            yield name, total, files


def _remove_staging(store: ArtifactStore, name: str) -> None:
    uri = f"{store.url}/{STAGING}/{name}"
    with store_errors(uri, "delete"):
        objects, path = store.locate(uri)
        if objects.size(path) is not None:
            objects.delete(path)
        else:
            objects.delete_folder(path)


def _claimable(name: str, members: list[str]) -> list[str]:
    """Return the names by which tasks claim a unit: copies of a user's files one by one."""
    return members if name.startswith(f"{INPUTS}/") else [name]


def _units(lines: Iterable[list[str]]) -> Iterator[_Unit]:
    for name, members in groupby(lines, key=lambda line: line[0]):
        # Without its list a folder is no artifact any more.
        yield (
            name,
            sorted((line[1] for line in members), key=lambda m: not m.endswith(f"/{LISTING}")),
        )


def _count(units: Iterable[_Unit]) -> int:
    return sum(len(members) for _, members in units)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch
