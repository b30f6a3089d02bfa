"""How a task keeps what it is about to name in a manifest from a clean-up that has not seen it.

An object is named by its content, so a task may find its result already there, old and named by no
live manifest. A clean-up may be about to delete that very object. Neither can lock the other out, so
each first says what it is about to do and then looks at what the other said:

- The task, before it writes its manifest: *claims* each object older than :data:`FRESH` (writes a
  small record), then looks for condemnations. A name that is condemned it waits for, and then sees
  whether the object is still there.
- The clean-up, before it deletes: *condemns* a few hundred names (writes a small record), then looks
  at each object's time and claims. What was written or claimed since it started, give or take the grace
  period, stays. Then it deletes, and withdraws the condemnation.

If the task does not see the condemnation, its claim was there before that was written, and the
clean-up sees the claim. If the task does see it, it waits. There is no third case where a store shows
what was written before (local disks, S3, GCS, Azure, HDFS do). Each claim is an object of its own:
were a task to write an old one anew, a clean-up that had just seen its age could delete it.

An object too young for a claim is too young to be deleted: the clean-up measures the grace period
back from its start, and reads manifests after that. The same holds for a manifest written over an
older one of its name.

This assumes of clocks that those of tasks, clean-up and store differ by less than :data:`FRESH`; that
a task writes its manifest within the grace period after its claims; and that a delete takes effect
within :data:`LASTS` seconds of the clean-up's last look at its own clock, as a task does not wait
longer than twice that for a condemnation: the clean-up may have been killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from airflow_provider_dbnd.core.references import references
from airflow_provider_dbnd.core.storage.objects import mark
from airflow_provider_dbnd.core.storage.parts import PARTS_SCHEME
from airflow_provider_dbnd.core.storage.store import ArtifactStore, Info
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
)

#: Folders of the store that hold what tasks and clean-ups tell each other.
CLAIMS, CONDEMNED = "_gc/claims", "_gc/condemned"

#: Seconds after which an object may be condemned for its age, if the grace period is the shortest.
FRESH = 1800.0

#: Seconds for which a clean-up acts on a condemnation.
LASTS = 60.0

_PAUSE = 0.2

#: As many folders of claims are listed one by one. For more, one listing of all takes fewer requests.
_FEW = 16

#: When this process first saw a condemnation: one that a killed clean-up left is waited for once.
_seen: dict[tuple[str, str], float] = {}

log = logging.getLogger("airflow_provider_dbnd")


def claim(store: ArtifactStore, *encoded: Any) -> None:
    """Keep the objects that encoded values name, until a manifest names them.

    :raises ArtifactNotFoundError: where one was deleted meanwhile.
    """
    own = f"{store.url}/"
    named = {r["uri"]: r for each in encoded for r in references(each) if r["uri"].startswith(own)}
    folders = {u for u, r in named.items() if r["checksum"].startswith(PARTS_SCHEME)}
    claim_keys(store, [uri[len(own) :] for uri in named], always=[u[len(own) :] for u in folders])
    for uri in folders:
        # A part that was there already may have gone before the list was written.
        store.folders.listing(uri, checksum=named[uri]["checksum"], size=named[uri]["size"])


def claim_keys(store: ArtifactStore, keys: Iterable[str], always: Iterable[str] = ()) -> None:
    """Keep the objects under *keys*, as :func:`claim`; *always* whatever their age."""
    keys = sorted(keys)
    if not keys:
        return
    _await_condemned(store, keys)
    # Seen after that look: what is young now, a later condemnation passes by.
    old = sorted({*always, *(each for each in keys if _age(store, each) > FRESH)})
    if not old:
        return
    for each in old:
        store.put_bytes(f"{_claims(each)}-{mark()}.json", json.dumps({"key": each}).encode())
    _await_condemned(store, old)
    for each in old:
        _age(store, each)


def claim_inputs(store: ArtifactStore, inputs: Any) -> None:
    """Keep inputs that a manifest is about to name, as far as they are still there."""
    try:
        claim(store, inputs)
    except (ArtifactNotFoundError, ArtifactCorruptedError):
        for each in references(inputs):
            try:
                claim(store, each)
            except (ArtifactNotFoundError, ArtifactCorruptedError) as exc:
                log.info("an input is not what was read any more: %s", exc)


def settle(store: ArtifactStore, where: str, data: bytes) -> None:
    """Write a record anew should a clean-up have deleted it that saw an older one of its name."""
    _await_condemned(store, [where])
    if not store.exists(where):
        store.put_bytes(where, data, overwrite=True)


def claimed(store: ArtifactStore, keys: Iterable[str], since: float) -> set[str]:
    """Return those of *keys* that were claimed after the time *since*."""
    wanted = {_claims(each): each for each in keys}
    folders = {name.rpartition("/")[0] for name in wanted}
    return {
        wanted[name]
        for folder in (folders if len(folders) <= _FEW else [CLAIMS])
        for found in store.list(folder)
        if (found.mtime or math.inf) >= since and (name := found.key.partition("-")[0]) in wanted
    }


@contextlib.contextmanager
def condemned(store: ArtifactStore, keys: Iterable[str]) -> Iterator[None]:
    """Tell tasks that *keys* are about to be deleted."""
    where = f"{CONDEMNED}/{mark()}.json"
    store.put_bytes(where, json.dumps({"keys": list(keys)}).encode())
    yield
    # Not if deleting failed: a request may still be on its way.
    store.delete(where)


def is_over(condemnation: Info) -> bool:
    """Tell whether the clean-up that condemned, and did not withdraw it, must have been killed."""
    return 0 < (condemnation.mtime or 0) < time.time() - FRESH - 2 * LASTS


def _claims(name: str) -> str:
    """Return what the keys of an object's claims begin with."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{CLAIMS}/{digest[:2]}/{digest}"


def _age(store: ArtifactStore, name: str) -> float:
    found = store.written(name)
    if found is None:
        raise ArtifactNotFoundError(
            f"{store.uri(name)} was there and is not any more: a clean-up that saw it unused was "
            "faster. Run the task again."
        )
    return time.time() - found


def _await_condemned(store: ArtifactStore, keys: Iterable[str]) -> None:
    """Wait until none of *keys* is about to be deleted."""
    wanted = set(keys)
    while wanted and (found := _condemnations(store, wanted)):
        log.info("waiting for a clean-up that is deleting %s", ", ".join(sorted(found)))
        time.sleep(_PAUSE)


def _condemnations(store: ArtifactStore, wanted: set[str]) -> set[str]:
    found: set[str] = set()
    for each in store.list(CONDEMNED):
        seen = _seen.setdefault((store.url, each.key), time.monotonic())
        if time.monotonic() > seen + 2 * LASTS or is_over(each):
            continue
        try:
            found |= wanted.intersection(json.loads(store.get_bytes(each.key))["keys"])
        except ArtifactNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as exc:
            raise ArtifactCorruptedError(
                f"{store.uri(each.key)} is no list of names that a clean-up deletes: "
                f"{type(exc).__name__}: {exc}. See that no dbnd gc runs, and delete it."
            ) from exc
    return found
