"""What is to go: three passes over listings, whose names are sorted on disk and compared there.

Memory holds one entry for each run and for each task, and a few lines of the files that are merged:
not the objects, however many there are.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from airflow_provider_dbnd.core.gc.names import named_in, unit_of
from airflow_provider_dbnd.core.gc.policy import Policy
from airflow_provider_dbnd.core.gc.report import Report
from airflow_provider_dbnd.core.gc.runs import Runs, run_of
from airflow_provider_dbnd.core.gc.spool import Among, Spool
from airflow_provider_dbnd.core.manifest import RUNS, Identity, Manifest
from airflow_provider_dbnd.core.past.history import entries, read_all
from airflow_provider_dbnd.core.past.starts import STARTS, run_of_start
from airflow_provider_dbnd.core.past.tags import tags
from airflow_provider_dbnd.core.remote.job import JOBS, SPECS
from airflow_provider_dbnd.core.reuse.index import REUSE
from airflow_provider_dbnd.core.storage.claims import CLAIMS
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, ArtifactNotFoundError

_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a clean-up is to delete, in order: records, then manifests, then objects.

    What was written or claimed after ``before`` stays. ``records`` and ``manifests`` hold a name a
    line, ``objects`` a unit, one of its names, its size, and its kind.
    """

    before: float
    report: Report
    records: Spool
    manifests: Spool
    objects: Spool


def made_plan(store: ArtifactStore, policy: Policy, folder: str, *, delete: bool = False) -> Plan:
    """Return what *policy* lets go. Names are sorted in files in local *folder*.

    :raises ArtifactCorruptedError: where a live manifest, spec, job record or tag does not tell what it names.
    """
    return _Marking(store, policy, folder, delete).plan()


class _Marking:
    def __init__(self, store: ArtifactStore, policy: Policy, folder: str, delete: bool) -> None:
        self._store, self._folder = store, folder
        # First of all: what is written from now on is too young to go.
        now = time.time()
        self._before = now - policy.grace.total_seconds()
        self._live, self._hits = self._spool(), self._spool()
        holding = list(tags(store))
        for tag in holding:
            self._mark(tag.encoded)
        self._runs = Runs(store, policy, holding, now)
        live, dead = self._runs.counts
        self._report = Report(store=store.url, delete=delete, runs_live=live, runs_dead=dead)

    def plan(self) -> Plan:
        self._mark_live_runs()
        manifests = self._dead_manifests()
        records = self._dead_records(manifests)
        return Plan(
            before=self._before,
            report=self._report,
            records=records,
            manifests=manifests,
            objects=self._dead_objects(),
        )

    def _spool(self) -> Spool:
        return Spool(self._folder)

    def _mark(self, document: Any) -> None:
        for name in named_in(document):
            self._live.add(name)

    def _mark_live_runs(self) -> None:
        for manifest in self._manifests(live=True):
            self._mark_manifest(manifest)
            if hit := manifest.reuse.get("hit"):
                identity = {k: v for k, v in hit.items() if k != "seconds"}
                self._hits.add(Identity(**identity).key())
        for folder in (SPECS, JOBS):
            for found in self._store.list(folder):
                run = run_of(found.key)
                if run is not None and self._runs.live(run):
                    self._mark(self._json(found.key))

    def _manifests(self, *, live: bool) -> Iterator[Manifest]:
        batch = []
        for entry in entries(self._store):
            if self._runs.live((entry.pipeline, entry.run)) is live:
                batch.append(entry)
            if len(batch) == _BATCH:
                yield from (manifest for _, manifest in read_all(self._store, batch))
                batch = []
        yield from (manifest for _, manifest in read_all(self._store, batch))

    def _mark_manifest(self, manifest: Manifest) -> None:
        parameters = [record.value for record in manifest.parameters.values()]
        self._mark([manifest.inputs, manifest.outputs, parameters])

    def _dead_manifests(self) -> Spool:
        """Return the manifests and specs of dead runs, but for results that live runs reused."""
        found, dead = self._spool(), self._spool()
        for folder in (RUNS, SPECS):
            for each in self._store.list(folder):
                run = run_of(each.key)
                old = (each.mtime or math.inf) < self._before
                if run is not None and not self._runs.live(run) and old:
                    found.add(each.key, each.size)
        hits, kept = Among(self._hits), self._spool()
        for name, size in found:
            if name in hits:
                kept.add(name)
                continue
            dead.add(name)
            self._report.other["manifests" if name.startswith(RUNS) else "specs"].add(int(size))
        for (name,) in kept:
            self._mark_hit(name)
        return dead

    def _mark_hit(self, name: str) -> None:
        document = self._json(name)
        self._mark(document)

    def _dead_records(self, dead: Spool) -> Spool:
        """Return records of reuse whose manifest goes or is gone, and what they left besides."""
        pointing, going = self._spool(), self._spool()
        for found in self._store.list(key(REUSE, "results")):
            if (found.mtime or math.inf) < self._before:
                pointing.add(self._manifest_of(found.key), found.key, found.size)
        among = Among(dead)
        for manifest, name, size in pointing:
            if manifest in among or self._is_gone(manifest):
                going.add(name)
                self._report.other["reuse records"].add(int(size))
        for folder, kind in ((key(REUSE, "leases"), "leases"), (CLAIMS, "claims")):
            for found in self._store.list(folder):
                if (found.mtime or math.inf) < self._before:
                    going.add(found.key)
                    self._report.other[kind].add(found.size)
        for found in self._store.list(STARTS):
            live = self._runs.live(run_of_start(found.key))
            if (found.mtime or math.inf) < self._before and not live:
                going.add(found.key)
                self._report.other["starts"].add(found.size)
        return going

    def _is_gone(self, manifest: str) -> bool:
        run = run_of(manifest)
        return run is None or not (self._runs.live(run) or self._store.exists(manifest))

    def _manifest_of(self, name: str) -> str:
        try:
            return str(self._json(name)["manifest"])
        except (ArtifactCorruptedError, KeyError, TypeError):
            return ""  # reuse takes it for no record as well

    def _dead_objects(self) -> Spool:
        """Return the old objects of units that nothing live names."""
        found, dead = self._spool(), self._spool()
        for info in self._store.list():
            unit = unit_of(info.key)
            if unit is not None:
                written = info.mtime or math.inf
                found.add(unit.name, info.key, info.size, written, unit.kind)
        live = Among(self._live)
        for unit_name, members in groupby(found, key=lambda line: line[0]):
            is_live, objects = unit_name in live, list(members)
            size, kind = sum(int(line[2]) for line in objects), objects[0][4]
            pipeline, task = unit_name.split("/")[:2]
            if is_live:
                if kind == "artifact":
                    self._report.live[pipeline, task].add(size, len(objects))
            elif max(float(line[3]) for line in objects) >= self._before:
                self._report.young.add(size, len(objects))
            else:
                report = self._report
                is_artifact = kind == "artifact"
                tally = report.dead[pipeline, task] if is_artifact else report.other[kind]
                tally.add(size, len(objects))
                for line in objects:
                    dead.add(*line[:3], kind)
        return dead

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._store.get_bytes(name))
        except ArtifactNotFoundError:
            return {}
        except ValueError as exc:
            raise ArtifactCorruptedError(
                f"{self._store.uri(name)} is no JSON ({exc}), so nobody knows which objects it "
                "names. See dbnd fsck; delete it, and clean up again."
            ) from exc
