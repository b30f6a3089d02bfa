"""Run a task, or let a stored result stand for it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_dbnd.core.code import fingerprint
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, reuse_result
from airflow_provider_dbnd.core.manifest import Manifest, read_manifest
from airflow_provider_dbnd.core.reuse.flight import Lease, holding
from airflow_provider_dbnd.core.reuse.index import Miss, changed_parts, damage, find
from airflow_provider_dbnd.core.reuse.policy import Reuse, policy_of
from airflow_provider_dbnd.core.reuse.ticket import (
    NotReusable,
    Ticket,
    key_of_attempt,
    ticket_of,
)
from airflow_provider_dbnd.core.scratch import scratch_folder
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    FingerprintError,
)

log = logging.getLogger("airflow_provider_dbnd")

Run = Callable[[TaskSpec], Manifest]


def run_or_reuse(
    spec: TaskSpec,
    definition: Definition,
    run: Run,
    *,
    option: Any = None,
    wanted: str | None = None,
) -> Manifest:
    """Return the manifest of an attempt: of a stored result if one stands for it, else of *run*.

    :param option: the task's option ``reuse``. :param wanted: what this run says instead.
    """
    policy = policy_of(option, wanted)
    try:
        code = fingerprint(definition.function, declared=policy.depends)
    except FingerprintError as exc:
        if policy.mode != "off":
            log.info("not reusable: %s", exc)
        return run(spec)
    recorded = {"digest": code.digest, "parts": dict(code.parts), "blind": list(code.blind)}
    spec = replace(spec, code=recorded)
    # A retry, or a task that was cleared, goes on from what the same run left.
    resumes = policy.mode == "off" and wanted is None and spec.identity.try_number > 1
    if policy.mode == "off" and not resumes:
        return run(spec)
    with scratch_folder() as scratch:
        try:
            ticket = ticket_of(spec, definition, policy, code, scratch)
            if resumes:
                return _earlier_try(spec, definition, ticket, scratch) or run(spec)
            return _Attempt(spec, definition, policy, ticket, scratch).run(run)
        except NotReusable as exc:
            log.info("not reusable: %s", exc)
            return run(spec)


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreseen:
    """What a run would do with a task: take the result of ``hit``, or run it for ``reasons``."""

    hit: Manifest | None = None
    reasons: tuple[str, ...] = ()


def foresee(
    spec: TaskSpec, definition: Definition, *, option: Any = None, wanted: str | None = None
) -> Foreseen:
    """Return what :func:`run_or_reuse` would do now; nothing runs and nothing is written."""
    policy = policy_of(option, wanted)
    if policy.mode != "on":
        return Foreseen(reasons=(f"reuse is {policy.mode} for this task",))
    with scratch_folder() as scratch:
        try:
            code = fingerprint(definition.function, declared=policy.depends)
            ticket = ticket_of(spec, definition, policy, code, scratch)
        except (NotReusable, FingerprintError) as exc:
            return Foreseen(reasons=(str(exc),))
        found = find(spec.store, ticket, policy.ttl, scratch)
        if isinstance(found, Manifest):
            return Foreseen(hit=found)
        changes = changed_parts(spec.store, spec.identity, ticket)
        return Foreseen(reasons=(found.reason, *changes))


def _earlier_try(
    spec: TaskSpec, definition: Definition, ticket: Ticket, scratch: str
) -> Manifest | None:
    for number in range(spec.identity.try_number - 1, 0, -1):
        where = replace(spec.identity, try_number=number).key()
        try:
            found = read_manifest(spec.store, where)
        except ArtifactNotFoundError:
            continue
        except ArtifactCorruptedError as exc:
            log.warning("not reused: %s", exc)
            continue
        if found.status == "success" and key_of_attempt(spec, definition, found) == ticket.key:
            miss = damage(spec.store, found, {}, scratch)
            if miss is None:
                log.info("try %d of this run made this result already", number)
                return reuse_result(spec, definition, found)
            log.info("not reused: %s", miss.reason)
    return None


class _Attempt:
    def __init__(
        self, spec: TaskSpec, definition: Definition, policy: Reuse, ticket: Ticket, scratch: str
    ) -> None:
        self.spec = replace(spec, reuse=ticket.to_json())
        self.definition, self.policy, self.ticket = definition, policy, ticket
        self._scratch = scratch

    def run(self, run: Run) -> Manifest:
        if self.policy.mode == "refresh":
            log.info("reuse: refresh, so the task runs")
            return self._computed(run)
        found = self._find()
        if isinstance(found, Manifest):
            return self._reused(found, run)
        self._tell(found)
        if not self.policy.single_flight:
            return self._computed(run)
        with self._flight() as lease:
            if lease is None:
                found = self._find()
                if isinstance(found, Manifest):
                    return self._reused(found, run)
            return self._computed(run, lease)

    def _find(self) -> Manifest | Miss:
        return find(self.spec.store, self.ticket, self.policy.ttl, self._scratch)

    def _flight(self) -> contextlib.AbstractContextManager[Lease | None]:
        def arrived() -> bool:
            return isinstance(self._find(), Manifest)

        return holding(self.spec.store, self.ticket.key, self.spec.identity, arrived)

    def _computed(self, run: Run, lease: Lease | None = None) -> Manifest:
        return run(replace(self.spec, lease=lease))

    def _reused(self, found: Manifest, run: Run) -> Manifest:
        where = found.identity
        try:
            manifest = reuse_result(self.spec, self.definition, found)
        except ArtifactNotFoundError as exc:  # a clean-up was faster
            log.info("not reused: %s", exc)
            return self._computed(run)
        log.info("reused from run %s (saved %s)", where.run_id, duration(found.seconds))
        return manifest

    def _tell(self, miss: Miss) -> None:
        log.info("not reused: %s", miss.reason)
        for change in changed_parts(self.spec.store, self.spec.identity, self.ticket):
            log.info("  %s", change)
        for spot in self.ticket.blind:
            log.info("  changes cannot be seen at: %s", spot)


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(0.42), duration(840), duration(9000)
    ('0.4 s', '14 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
