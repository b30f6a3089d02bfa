"""More data than memory: an iterator of frames written and read in constant memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pandas as pd

from benchmarks.measure import child, watched_memory
from benchmarks.options import Options
from benchmarks.table import Row

PART = 50.0


def rows(options: Options) -> Iterator[Row]:
    """Stream 20 GB with --full, else twice the largest size, in two fresh processes."""
    megabytes = 20_000 if options.full else options.size * 2
    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as root:
        made = child("stream:produce", root=root, megabytes=megabytes)
        used = child("stream:consume", root=root, given=made.pop("given"))
    assert used["rows"] == made["rows"]
    for side, found in (("producer", made), ("consumer", used)):
        yield Row(
            subject="stream",
            what=f"Iterator[DataFrame] of {megabytes / 1000:g} GB, memory of the {side}",
            value=found["peak"] / 1e6,
            unit="MB",
            must=1000,
            detail=f"{found['bytes'] / 1e6 / found['seconds']:.0f} MB/s",
        )


def produce(root: str, megabytes: float) -> dict[str, Any]:
    """Write parts of different values; memory is that of the whole process beyond its imports."""
    from benchmarks import frames
    from benchmarks.ways import Ours

    ours, written = Ours(root), [0, 0]
    part = frames.mixed(min(PART, megabytes / 4))

    def producer() -> Iterator[pd.DataFrame]:
        for number in range(max(int(megabytes / PART), 4)):
            written[0] += len(part)
            written[1] += frames.size(part)
            yield part.assign(id=part["id"] + number * len(part))

    return _measured(lambda: ours.run(producer, {}), written)


def consume(root: str, given: Any) -> dict[str, Any]:
    """Read the parts one by one and use all of each."""
    from benchmarks import frames
    from benchmarks.ways import Ours

    ours, read = Ours(root), [0, 0]

    def consumer(parts: Iterator[pd.DataFrame]) -> None:
        for part in parts:
            read[0] += len(part)
            read[1] += frames.size(part)
            frames.touch(part)

    return _measured(lambda: ours.run(consumer, {"parts": given}), read)


def _measured(action: Any, counted: list[int]) -> dict[str, Any]:
    with watched_memory() as peak:
        start = time.perf_counter()
        given = action()
        seconds = time.perf_counter() - start
        top = peak()
    return {
        "given": given,
        "peak": top,
        "seconds": seconds,
        "rows": counted[0],
        "bytes": counted[1],
    }
