"""Digests and checksums: 128 bits, 32 hex characters.

``digest`` names data and ``checksum`` covers stored bytes; both are blake3, which nobody can find a
second content for. A checksum carries its scheme so that a reader knows how to verify it
("blake3:<hex>" is over the bytes of a file). Where a checksum covers a list of hashes of parts, the
parts have XXH3-128, a fraction of the time and as good against damage.
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


class Both:
    """Takes data once for a digest and for the checksum of a part, while it is in the cache."""

    def __init__(self) -> None:
        self._digest = hasher()
        self._part = part_hasher()

    def update(self, data: Any) -> None:
        """Hash more bytes."""
        self._digest.update(data)
        self._part.update(data)

    def result(self) -> tuple[bytes, bytes]:
        """Return the digest and the checksum."""
        return bytes(self._digest.digest(length=SIZE)), bytes(self._part.digest())


def part_hasher() -> Any:
    """Return a fresh hasher for the checksum of a part."""
    from xxhash import xxh3_128

    return xxh3_128()


def digest_of(parts: Iterable[bytes]) -> bytes:
    """Hash a sequence of byte strings; where one ends and the next begins is part of the hash."""
    from blake3 import blake3

    framed = b"".join(piece for part in parts for piece in (len(part).to_bytes(8, "little"), part))
    return bytes(blake3(framed).digest(length=SIZE))


def bytes_digest(data: Buffer) -> str:
    """Return the hex digest of *data*."""
    state = _threaded_hasher(memoryview(data).nbytes)
    state.update(data)
    return str(state.hexdigest(length=SIZE))


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
