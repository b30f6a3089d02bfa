"""Single flight: of several runs that want the same result one computes it; the store decides which.

A lease is an object that only one writer can create. Its holder renews it; one that was not renewed
for a while belonged to a process that died, and the next lease may be created. No lock server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_dbnd.core.manifest import Identity
from airflow_provider_dbnd.core.reuse.index import REUSE
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    DbndError,
)

#: Seconds between renewals, after which a lease that was not renewed is over, and between looks at it.
RENEWAL, OVER, LOOK = 5.0, 30.0, 0.5

#: The first two for a lease without a process: that of a task that waits for its job or for a worker.
WAITING_RENEWAL, WAITING_OVER = 60.0, 600.0

_State = Mapping[str, Any]

#: Key of a state that says why it is not what was written.
_DAMAGE = "damage"

log = logging.getLogger("airflow_provider_dbnd")


class Lease:
    """The right to compute a result.

    :param holder: a word that no other lease has. :param task: the task instance that has it.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        digest: str,
        generation: int,
        holder: str,
        task: Sequence[str | int],
    ) -> None:
        self._store, self._digest, self._generation = store, digest, generation
        self._who = {"holder": holder, "task": list(task)}
        self._kept = False
        # Of one that another process wrote: that of a task that waited.
        self._lasts = WAITING_OVER

    def to_json(self) -> dict[str, Any]:
        """Return what another process makes this lease of, beside the store."""
        return {"digest": self._digest, "generation": self._generation, **self._who}

    def created(self) -> bool:
        """Write the lease for the first time; return False if another one was first."""
        try:
            self._put(overwrite=False)
        except ArtifactCorruptedError:
            return False
        return True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Renew the lease while the context lasts, and end it with it unless it is to be kept."""
        stop = threading.Event()
        renewal = threading.Thread(target=self._renew_until, args=(stop,), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            stop.set()
            renewal.join()
            self._leave()

    def keep(self) -> None:
        """Let the lease go on after :meth:`held`: the task waits, and goes on in another process."""
        self._kept = True

    def renew_waiting(self) -> None:
        """Renew the lease for the time between two renewals of a task that waits."""
        self._put(renewed=time.time(), patience=WAITING_OVER)

    def end(self) -> None:
        """Let others compute the result, if there is none."""
        self._put(over=True)

    def _leave(self) -> None:
        """Write what others are to know last; what the task came to stands without it."""
        try:
            if self._kept:
                self.renew_waiting()
            else:
                self.end()
        except DbndError as exc:
            what = "goes on if the triggerer renews it within" if self._kept else "is over in"
            log.warning(
                "the lease of this result %s %g s, since its last write failed; after that another run "
                "that wants the same result, and does not find it, computes it: %s",
                *(what, self._lasts, exc),
            )

    def _renew_until(self, stop: threading.Event) -> None:
        while not stop.wait(RENEWAL):
            try:
                self._put(renewed=time.time())
            except DbndError as exc:
                log.warning("the lease of this result was not renewed: %s", exc)

    def _put(self, *, overwrite: bool = True, **changes: Any) -> None:
        state = {**self._who, "renewed": 0, "over": False, "patience": None, **changes}
        where = _key(self._digest, self._generation)
        self._store.put_bytes(where, json.dumps(state).encode(), overwrite=overwrite)
        self._lasts = state["patience"] or OVER


@contextlib.contextmanager
def holding(
    store: ArtifactStore, digest: str, task: Identity, arrived: Callable[[], bool]
) -> Iterator[Lease | None]:
    """Wait until *task* may compute the result, or until it *arrived* from another.

    Gives the lease to the one that is to compute it.
    """
    lease = _acquired(store, digest, task, arrived)
    if lease is None:
        yield None
        return
    with lease.held():
        # Between the last look for it and the end of the lease before, it may have.
        yield None if arrived() else lease


def _acquired(
    store: ArtifactStore, digest: str, task: Identity, arrived: Callable[[], bool]
) -> Lease | None:
    own: list[str | int] = [task.pipeline, task.run_id, task.task_id, task.map_index]
    holder = secrets.token_hex(8)
    seen: tuple[int, _State | None] | None = None
    since, told = time.monotonic(), False
    while not arrived():
        generation, state = _newest(store, digest)
        # An earlier try of the same task is over, or there would be no later one.
        free = state is None or state["over"] or state.get("task") == own
        # Judged by this clock alone: that of another machine may be off.
        if seen != (generation, state):
            seen, since = (generation, state), time.monotonic()
            if state and _DAMAGE in state:
                log.warning("%s; waiting for %g s whether it is renewed", state[_DAMAGE], OVER)
        elif state and not free and time.monotonic() - since > state["patience"]:
            log.warning("whoever computed %s died; taking over", digest)
            free = True
        if free:
            lease = Lease(store, digest=digest, generation=generation + 1, holder=holder, task=own)
            if lease.created():
                return lease
            continue
        if not told:
            log.info("another run computes the same result; waiting for it")
            told = True
        time.sleep(LOOK)
    return None


def _newest(store: ArtifactStore, digest: str) -> tuple[int, _State | None]:
    names = [info.key for info in store.list(_folder(digest))]
    newest = max((_generation(store, name) for name in names), default=-1)
    if newest < 0:
        return newest, None
    try:
        return newest, _state(store, _key(digest, newest))
    except ArtifactNotFoundError:
        return newest, None


def _generation(store: ArtifactStore, name: str) -> int:
    number = name.rpartition("/")[2].removesuffix(".json")
    if not number.isdecimal():
        raise ArtifactCorruptedError(
            f"{store.uri(name)} is no lease: expected NUMBER.json, found what this package did not "
            "write. Delete it, and run the task again."
        )
    return int(number)


def _state(store: ArtifactStore, where: str) -> _State:
    """Return what a lease says; a damaged one is as of a holder of whom nothing is known."""
    data = store.get_bytes(where)
    try:
        state = json.loads(data)
        return {**state, "over": bool(state["over"]), "patience": float(state["patience"] or OVER)}
    except (ValueError, KeyError, TypeError) as exc:
        damage = f"{store.uri(where)} is no lease that can be read: {type(exc).__name__}: {exc}"
        return {"over": False, "patience": OVER, _DAMAGE: damage}


def _folder(digest: str) -> str:
    return key(REUSE, "leases", digest)


def _key(digest: str, generation: int) -> str:
    return f"{_folder(digest)}/{generation}.json"
