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
from collections.abc import Callable, Iterator

from airflow_provider_dbnd.core.reuse.index import REUSE
from airflow_provider_dbnd.core.storage.store import ArtifactStore, key
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, ArtifactNotFoundError

#: Seconds between renewals, after which a lease that was not renewed is over, and between looks at it.
RENEWAL, OVER, LOOK = 5.0, 30.0, 0.5

log = logging.getLogger("airflow_provider_dbnd")


@contextlib.contextmanager
def holding(store: ArtifactStore, digest: str, arrived: Callable[[], bool]) -> Iterator[bool]:
    """Wait until this process may compute the result, or until it *arrived* from another.

    Gives True to the one that is to compute it.
    """
    holder = secrets.token_hex(8)
    generation = _acquire(store, digest, holder, arrived)
    if generation is None:
        yield False
        return
    stop = threading.Event()
    renewal = threading.Thread(
        target=_renew, args=(store, digest, generation, holder, stop), daemon=True
    )
    renewal.start()
    try:
        # Between the last look for it and the end of the lease before, it may have.
        yield not arrived()
    finally:
        stop.set()
        renewal.join()
        _write(store, digest, generation, holder, over=True)


def _acquire(
    store: ArtifactStore, digest: str, holder: str, arrived: Callable[[], bool]
) -> int | None:
    seen: tuple[int, str] | None = None
    since, told = time.monotonic(), False
    while not arrived():
        generation, state = _newest(store, digest)
        if state is None or json.loads(state)["over"]:
            if _create(store, digest, generation + 1, holder):
                return generation + 1
            continue
        # Judged by this clock alone: that of another machine may be off.
        if seen != (generation, state):
            seen, since = (generation, state), time.monotonic()
        elif time.monotonic() - since > OVER:
            log.warning("whoever computed %s died; taking over", digest)
            if _create(store, digest, generation + 1, holder):
                return generation + 1
            continue
        if not told:
            log.info("another run computes the same result; waiting for it")
            told = True
        time.sleep(LOOK)
    return None


def _newest(store: ArtifactStore, digest: str) -> tuple[int, str | None]:
    generations = [
        int(i.key.rpartition("/")[2].removesuffix(".json")) for i in store.list(_folder(digest))
    ]
    newest = max(generations, default=-1)
    if newest < 0:
        return newest, None
    try:
        return newest, store.get_bytes(_lease(digest, newest)).decode()
    except ArtifactNotFoundError:
        return newest, None


def _create(store: ArtifactStore, digest: str, generation: int, holder: str) -> bool:
    try:
        store.put_bytes(_lease(digest, generation), _state(holder, 0))
    except ArtifactCorruptedError:
        return False  # another one was first
    return True


def _renew(
    store: ArtifactStore, digest: str, generation: int, holder: str, stop: threading.Event
) -> None:
    while not stop.wait(RENEWAL):
        _write(store, digest, generation, holder)


def _write(
    store: ArtifactStore, digest: str, generation: int, holder: str, *, over: bool = False
) -> None:
    state = _state(holder, time.time(), over=over)
    store.put_bytes(_lease(digest, generation), state, overwrite=True)


def _state(holder: str, renewed: float, *, over: bool = False) -> bytes:
    return json.dumps({"holder": holder, "renewed": renewed, "over": over}).encode()


def _folder(digest: str) -> str:
    return key(REUSE, "leases", digest)


def _lease(digest: str, generation: int) -> str:
    return f"{_folder(digest)}/{generation}.json"
