"""blake3 digests and checksums: 128 bits, 32 hex characters.

``digest`` names data and ``checksum`` covers stored bytes; a checksum carries its scheme so that a
reader knows how to verify it ("blake3:<hex>" is over the bytes of a file).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]

SIZE = 16

_WORTH_THREADS = 1 << 20

#: The scheme of checksums over the bytes of a file.
FILE_SCHEME = "blake3:"


def hasher(*, threads: int = 1) -> Any:
    """Return a fresh blake3 hasher."""
    from blake3 import blake3

    return blake3(max_threads=threads)


def digest_of(parts: Iterable[Buffer]) -> bytes:
    """Hash a sequence of byte strings; where one ends and the next begins is part of the hash."""
    state = hasher()
    for part in parts:
        view = memoryview(part)
        state.update(view.nbytes.to_bytes(8, "little"))
        state.update(view)
    return bytes(state.digest(length=SIZE))


def bytes_digest(data: Buffer) -> str:
    """Return the hex digest of *data*."""
    state = _threaded_hasher(memoryview(data).nbytes)
    state.update(data)
    return str(state.hexdigest(length=SIZE))


def bytes_checksum(data: Buffer) -> str:
    """Return the checksum of *data*, equal to that of a file holding it."""
    return FILE_SCHEME + bytes_digest(data)


def file_checksum(path: str | Path) -> str:
    """Return the checksum of a file's bytes, read through a memory map by all cores."""
    state = _threaded_hasher(os.path.getsize(path))
    state.update_mmap(path)
    return FILE_SCHEME + str(state.hexdigest(length=SIZE))


def available_cores() -> int:
    """Return how many cores this process may use."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _threaded_hasher(size: int) -> Any:
    # blake3.AUTO would use threads shared by the process, which hang in a child forked after their
    # first use; a number makes threads for this hasher alone, worth it for large data only.
    return hasher(threads=available_cores() if size >= _WORTH_THREADS else 1)
