"""Two of fifty columns of an artifact, against raw Arrow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.measure import child, interleaved, timed
from benchmarks.options import Options
from benchmarks.table import Row, seconds

CHOSEN = ["c7", "c31"]

KINDS = {"wide": "all dtypes", "numbers": "floats only"}


def rows(options: Options) -> Iterator[Row]:
    """Measure at the largest size."""
    for kind, dtypes in KINDS.items():
        times = child("columns:times", kind=kind, megabytes=options.size, rounds=options.more(10))
        what = f"2 of 50 columns of a {options.size} MB artifact, {dtypes}"
        yield Row(
            subject="columns",
            what=f"{what}, against raw Arrow IPC + map",
            value=times["ours"] / times["arrow"],
            # The target is of frames of mixed types; floats are the least work that data can be.
            must=options.target(1.3) if kind == "wide" else None,
            aim=options.target(1.1) if kind == "wide" else None,
            detail=f"{seconds(times['ours'])} / {seconds(times['arrow'])}",
        )
        for name, added in (
            ("unhashed", "hashing made to do nothing"),
            ("task", "as a whole task"),
        ):
            yield Row(
                subject="columns",
                what=f"the same, {added}",
                value=times[name] / times["arrow"],
                detail=f"{seconds(times[name])} / {seconds(times['arrow'])}",
            )


def times(kind: str, megabytes: float, rounds: int) -> dict[str, float]:
    """Read and use the same columns both ways; runs in a process of its own."""
    from benchmarks import frames
    from benchmarks.digests import without_hashing
    from benchmarks.ways import Arrow, Ours

    frame = getattr(frames, kind)(megabytes)
    expected = frames.touch(frame[CHOSEN])
    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as root:
        ours, arrow = Ours(f"{root}/ours"), Arrow(f"{root}/arrow")
        reference, path = ours.produce(frame), arrow.produce(frame)
        with without_hashing():
            unhashed = ours.produce(frame)
        del frame

        def read(given: Any) -> None:
            assert frames.touch(ours.read(given, CHOSEN)) == expected

        def read_unhashed() -> None:
            with without_hashing():
                read(unhashed)

        def read_in_task() -> None:
            assert ours.consume(reference, columns=CHOSEN) == expected

        def read_arrow() -> None:
            assert _two_columns(path) == expected

        ways = {
            "ours": partial(read, reference),
            "arrow": read_arrow,
            "task": read_in_task,
            "unhashed": read_unhashed,
        }
        for way in ways.values():  # first calls
            way()
        return interleaved({name: partial(timed, way) for name, way in ways.items()}, rounds)


def _two_columns(path: str) -> dict[str, Any]:
    import pyarrow as pa

    from benchmarks import frames

    reader = pa.ipc.open_file(pa.memory_map(path))
    batches = [reader.get_batch(i).select(CHOSEN) for i in range(reader.num_record_batches)]
    return frames.touch(pa.Table.from_batches(batches).to_pandas(split_blocks=True))
