"""Look whether a store keeps what its manifests promise, and at what lies in it besides.

Reads every manifest and lists every object; nothing is deleted or changed. Memory as for a clean-up.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.gc.names import named_in, unit_of
from airflow_provider_dbnd.core.gc.spool import Among, Spool
from airflow_provider_dbnd.core.gc.sweep import old_staging
from airflow_provider_dbnd.core.manifest import RUNS, Manifest, read_manifest
from airflow_provider_dbnd.core.past.history import entries
from airflow_provider_dbnd.core.past.lookup import open_store
from airflow_provider_dbnd.core.past.tags import Promotion, promotions, tags
from airflow_provider_dbnd.core.references import key_of, references
from airflow_provider_dbnd.core.remote.job import JOBS, SPECS
from airflow_provider_dbnd.core.reuse.index import REUSE
from airflow_provider_dbnd.core.storage.claims import CONDEMNED
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.parts import LISTING, PARTS_SCHEME
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import verify
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    DbndError,
)

#: A problem is a promise that is not kept; a note is what somebody may want to tidy up.
Level = Literal["problem", "note"]

_DAY = 86400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, or left over: where, what, and what to do about it."""

    level: Level
    kind: str
    where: str
    text: str
    remedy: str
    size: int = 0


def check_store(store: ArtifactStore | str | None = None, *, full: bool = False) -> list[Finding]:
    """Return what is wrong in a store, then what lies about; ``dbnd fsck`` does the same.

    A finding's ``level`` is ``problem`` where a promise is not kept, else ``note``.

    :param store: URL; by default the store of the running task, of ``DBND_STORE`` or ``dbnd.toml``.
    :param full: read all objects and compare checksums, not only sizes.

    >>> check_store("memory://a-store-of-nothing")
    []
    """
    return list(check(open_store(store), full=full))


def check(store: ArtifactStore, *, full: bool = False) -> Iterator[Finding]:
    """Yield what is wrong in *store*, then what lies about.

    :param full: read all objects and compare checksums, not only sizes.
    """
    with tempfile.TemporaryDirectory(prefix="dbnd-fsck.") as folder:
        yield from _Check(store, folder, full=full).findings()


def _tag(promotion: Promotion) -> str:
    return f"tag {promotion.tag!r} of {promotion.address}"


class _Check:
    def __init__(self, store: ArtifactStore, folder: str, *, full: bool) -> None:
        self._store, self._folder, self._full = store, folder, full
        self._named, self._units = Spool(folder), Spool(folder)
        self._now = time.time()

    def findings(self) -> Iterator[Finding]:
        yield from self._manifests()
        yield from self._tags()
        yield from self._specs()
        for info in self._store.list():
            unit = unit_of(info.key)
            if unit is not None:
                self._units.add(unit.name, info.key, info.size, info.mtime or math.inf)
        yield from self._missing()
        yield from self._unnamed()
        yield from self._reuse()
        yield from self._left_over()

    def _manifests(self) -> Iterator[Finding]:
        for entry in entries(self._store):
            try:
                manifest = read_manifest(self._store, entry.key)
            except ArtifactNotFoundError:
                continue
            except ArtifactCorruptedError as exc:
                yield self._damaged("manifest", entry.key, exc)
                continue
            self._promise(manifest, entry.key)

    def _promise(self, manifest: Manifest, where: str) -> None:
        for reference in references(manifest.outputs):
            self._expect(reference, where, "output")
        parameters = [record.value for record in manifest.parameters.values()]
        for reference in references([manifest.inputs, parameters]):
            self._expect(reference, where, "input")

    def _tags(self) -> Iterator[Finding]:
        for promotion in promotions(self._store, skip_damaged=True):
            for reference in references(promotion.encoded):
                self._expect(reference, _tag(promotion), "past tag")
        try:
            for promotion in tags(self._store):
                for reference in references(promotion.encoded):
                    self._expect(reference, _tag(promotion), "tag")
        except ArtifactCorruptedError as exc:
            yield self._damaged("tag", "_tags", exc)

    def _specs(self) -> Iterator[Finding]:
        for kind, folder in (("spec", SPECS), ("job record", JOBS)):
            for info in self._store.list(folder):
                try:
                    for name in named_in(json.loads(self._store.get_bytes(info.key))):
                        self._named.add(name, kind, info.key, "")
                except ArtifactNotFoundError:
                    continue
                except ValueError as exc:
                    yield self._damaged(kind, info.key, exc)

    def _expect(self, reference: Any, where: str, role: str) -> None:
        artifact = Artifact.from_json(reference)
        promised = json.dumps([artifact.size, artifact.checksum, artifact.format, artifact.digest])
        if not self._store.wrote(artifact.uri):
            role = "elsewhere"  # in another store, or in this one before it was moved
        self._named.add(key_of(reference), role, where, promised)

    def _missing(self) -> Iterator[Finding]:
        """Compare what is named with what is there: both sorted, a unit at a time."""
        there = groupby(self._units, key=lambda line: line[0])
        unit, members = next(there, (None, iter(())))
        for name, promises in groupby(self._named, key=lambda line: line[0]):
            while unit is not None and unit < name:
                unit, members = next(there, (None, iter(())))
            objects = {line[1]: int(line[2]) for line in members} if unit == name else {}
            by_content = groupby(sorted(promises, key=lambda p: p[3]), key=lambda p: p[3])
            for promised, group in by_content:
                wanted: dict[str, list[str]] = defaultdict(list)
                for _, role, where, _ in group:
                    wanted[role].append(where)
                if promised:
                    yield from self._kept(name, json.loads(promised), wanted, objects)

    def _kept(
        self, name: str, promised: list[Any], wanted: dict[str, list[str]], objects: dict[str, int]
    ) -> Iterator[Finding]:
        size, checksum, format_, digest = promised
        role = next((r for r in ("output", "tag", "input", "past tag") if r in wanted), "elsewhere")
        wrong: str | None = None
        if not objects:
            wrong = "is not there"
        elif checksum.startswith(PARTS_SCHEME) or self._full:
            wrong = self._read(name, size, checksum, format_, digest)
        elif objects.get(name) != size:
            wrong = f"has {objects.get(name)} bytes, expected {size}"
        naming = [each for each in wanted[role] if self._still_there(each)]
        if wrong is None or not naming:
            return
        promise = role in ("output", "tag")
        yield Finding(
            level="problem" if promise or objects else "note",
            kind="missing" if not objects else "damaged",
            where=name,
            text=f"{wrong}; {role} in {naming[0]}",
            remedy=(
                "run the task again with --refresh, or delete the run's manifests"
                if promise
                else "none is needed: what was made of it is there; replay is not possible"
            ),
            size=size,
        )

    def _still_there(self, where: str) -> bool:
        """Tell whether what names an object is there: a clean-up may run beside this."""
        return not where.startswith(f"{RUNS}/") or self._store.exists(where)

    def _read(self, name: str, size: int, checksum: str, format_: str, digest: str) -> str | None:
        uri = self._store.uri(name)
        try:
            if checksum.startswith(PARTS_SCHEME) and not self._full:
                self._store.folders.listing(uri, checksum=checksum, size=size)
            else:
                artifact = Artifact(
                    uri=uri, type="", format=format_, digest=digest, checksum=checksum, size=size
                )
                with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
                    verify(self._store, artifact, scratch)
        except DbndError as exc:
            return str(exc)
        return None

    def _unnamed(self) -> Iterator[Finding]:
        named = Among(self._named)
        for unit, members in groupby(self._units, key=lambda line: line[0]):
            if unit in named:
                continue
            objects = list(members)
            age = (self._now - max(float(line[3]) for line in objects)) / _DAY
            partial = unit.endswith(".parquet") and objects[0][1] != unit
            no_list = partial and all(not line[1].endswith(f"/{LISTING}") for line in objects)
            what = "parts without a list" if no_list else "no manifest names it"
            yield Finding(
                level="note",
                kind="garbage",
                where=unit,
                text=f"{what}; {age:.1f} days old",
                remedy="dbnd gc takes it once it is older than the grace period",
                size=sum(int(line[2]) for line in objects),
            )

    def _reuse(self) -> Iterator[Finding]:
        remedy = "none is needed: the task is run again; dbnd gc takes the record"
        for info in self._store.list(REUSE):
            try:
                record = json.loads(self._store.get_bytes(info.key))
                pointed = record["manifest"] if info.key.startswith(key(REUSE, "results")) else None
            except ArtifactNotFoundError:
                continue
            except (ValueError, KeyError, TypeError) as exc:
                text = f"is no record: {type(exc).__name__}: {exc}"
                yield Finding(
                    level="note",
                    kind="damaged record",
                    where=info.key,
                    text=text,
                    remedy=f"delete {self._store.uri(info.key)}",
                )
                continue
            if pointed is not None and not self._store.exists(pointed):
                yield Finding(
                    level="note",
                    kind="reuse record",
                    where=info.key,
                    text=f"its manifest {pointed} is gone",
                    remedy=remedy,
                )

    def _left_over(self) -> Iterator[Finding]:
        for name, size, files in old_staging(self._store, self._now - _DAY):
            yield Finding(
                level="note",
                kind="staging",
                where=f".staging/{name}",
                text=f"{files} files of a writer that was killed",
                remedy="dbnd gc takes it",
                size=size,
            )
        for info in self._store.list(JOBS):
            if info.mtime and self._now - info.mtime > _DAY:
                yield Finding(
                    level="note",
                    kind="job",
                    where=info.key,
                    text="nobody took the result of this job; dbnd gc keeps its run",
                    remedy="see that the job is over, and delete the record",
                )
        for info in self._store.list(CONDEMNED):
            if info.mtime and self._now - info.mtime > 3600:
                yield Finding(
                    level="note",
                    kind="clean-up",
                    where=info.key,
                    text="a clean-up was killed",
                    remedy="run dbnd gc --delete again",
                )

    def _damaged(self, kind: str, where: str, exc: Exception) -> Finding:
        return Finding(
            level="problem",
            kind=f"damaged {kind}",
            where=where,
            text=str(exc),
            remedy=f"delete {self._store.uri(where)} and run the task, or promote, again",
        )
