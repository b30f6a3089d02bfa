"""A frame between two tasks on one machine: time, and memory beyond the frame itself."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks.measure import child, interleaved, timed, watched_memory
from benchmarks.options import FULL_SIZE, QUICK_SIZE, Options
from benchmarks.table import Row, seconds

SUBJECT = "handoff"
SIZES = (1, 10, 100, 1000)
LABELS = {
    "xcom": "TaskFlow with object-storage XCom",
    "parquet": "hand-written parquet",
    "arrow": "hand-written Arrow IPC + map",
}
#: (must, aim) at 1 GB.
TARGETS = {"xcom": (0.1, 0.05), "arrow": (1.3, 1.1)}


def rows(options: Options) -> Iterator[Row]:
    """Measure every size up to the one wanted, then memory at the largest."""
    sizes = [size for size in SIZES if size <= options.size] or [options.size]
    for megabytes in sizes:
        pairs = child("handoff:times", megabytes=megabytes, rounds=options.rounds)
        for name, times in pairs.items():
            target = TARGETS.get(name) if megabytes >= FULL_SIZE else None
            must, aim = target or (None, None)
            yield Row(
                subject=SUBJECT,
                what=f"{megabytes} MB frame, local, against {LABELS[name]}",
                value=times["ours"] / times[name],
                must=must,
                aim=aim,
                detail=f"{seconds(times['ours'])} / {seconds(times[name])}",
            )
    yield from _memory(options, sizes[-1])


def _memory(options: Options, megabytes: float) -> Iterator[Row]:
    ours, xcom = (memory(megabytes, w) for w in ("ours", "xcom"))
    for side in ("producer", "consumer"):
        yield Row(
            subject=SUBJECT,
            what=f"{megabytes} MB frame, extra memory of the {side}, of the frame",
            value=ours[side] / ours["frame"],
            must=options.target(0.15),
            aim=options.target(0.02),
            detail=f"{ours[side] / 1e6:.0f} MB",
        )
    most_ours, most_xcom = (max(each["producer"], each["consumer"]) for each in (ours, xcom))
    yield Row(
        subject=SUBJECT,
        what=f"{megabytes} MB frame, extra memory against {LABELS['xcom']}",
        value=most_ours / most_xcom,
        must=options.target(0.1),
        detail=f"{most_ours / 1e6:.0f} MB / {most_xcom / 1e6:.0f} MB",
    )


def times(megabytes: float, rounds: int) -> dict[str, dict[str, float]]:
    """Hand the same frame over in ours and each other way; runs in a process of its own."""
    from benchmarks import frames
    from benchmarks.ways import LOCAL

    frame = frames.mixed(megabytes)
    expected = frames.touch(frame)

    def hand_over(name: str) -> float:
        root = tempfile.mkdtemp(prefix="dbnd-bench-")
        way = LOCAL[name](root)
        found: list[Any] = []
        try:
            took = timed(lambda: found.append(way.consume(way.produce(frame))))
        finally:
            shutil.rmtree(root)
            _forget_base_path()
        assert found == [expected], f"{name} changed the data: {found} instead of {expected}"
        return took

    for name in LOCAL:  # imports and first calls
        hand_over_small(name)
    pairs = {}
    for name in LABELS:
        # Those of a pair meet the same moments; where they are fast, more rounds cost little.
        more = 3 if name == "arrow" or QUICK_SIZE <= megabytes < FULL_SIZE else 1
        ways = {each: functools.partial(hand_over, each) for each in ("ours", name)}
        pairs[name] = interleaved(ways, rounds * more)
    return pairs


def hand_over_small(name: str) -> None:
    """Go the whole way once, with next to no data."""
    from benchmarks import frames
    from benchmarks.ways import LOCAL

    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as root:
        way = LOCAL[name](root)
        way.consume(way.produce(frames.mixed(0.01)))
    _forget_base_path()


def _forget_base_path() -> None:
    """The XCom backend keeps its folder for the process."""
    import sys

    if backend := sys.modules.get("airflow.providers.common.io.xcom.backend"):
        backend._get_base_path.cache_clear()


def memory(megabytes: float, way: str) -> dict[str, int]:
    """Return the extra memory of producer and consumer, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as root:
        made = child("handoff:producer_memory", root=root, megabytes=megabytes, way=way)
        used = child("handoff:consumer_memory", root=root, given=made["given"], way=way)
    return {"producer": made["peak"], "consumer": used, "frame": made["frame"]}


def producer_memory(root: str, megabytes: float, way: str) -> dict[str, Any]:
    """Produce once; the frame itself does not count."""
    from benchmarks import frames
    from benchmarks.ways import LOCAL

    hand_over_small(way)
    frame = frames.mixed(megabytes)
    producer = LOCAL[way](root)
    with watched_memory() as peak:
        given = producer.produce(frame)
        return {"given": given, "peak": peak(), "frame": frames.size(frame)}


def consumer_memory(root: str, given: Any, way: str) -> int:
    """Consume once."""
    from benchmarks.ways import LOCAL

    hand_over_small(way)
    consumer = LOCAL[way](root)
    with watched_memory() as peak:
        consumer.consume(given)
        return peak()
