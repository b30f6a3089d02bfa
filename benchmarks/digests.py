"""What digest and schema cost: a hand-off with them, and with hashing made to do nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from benchmarks.measure import child, interleaved, timed
from benchmarks.options import Options
from benchmarks.table import Row, seconds


def rows(options: Options) -> Iterator[Row]:
    """Measure at the largest size."""
    times = child("digests:times", megabytes=options.size, rounds=options.more(3))
    yield Row(
        subject="digests",
        what=f"{options.size} MB frame: digest, schema and verification, share of the hand-off",
        value=100 * max(1 - times["without"] / times["with"], 0),
        unit="%",
        must=options.target(20),
        aim=options.target(5),
        detail=f"{seconds(times['with'])} / {seconds(times['without'])} without",
    )


def times(megabytes: float, rounds: int) -> dict[str, float]:
    """Hand over with and without hashing; runs in a process of its own."""
    from benchmarks import frames
    from benchmarks.ways import Ours

    frame = frames.mixed(megabytes)

    def hand_over() -> float:
        with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as root:
            way = Ours(root)
            return timed(lambda: way.consume(way.produce(frame)))

    def without() -> float:
        with without_hashing():
            return hand_over()

    hand_over()
    return interleaved({"with": hand_over, "without": without}, rounds, pick=min)


@contextmanager
def without_hashing() -> Iterator[None]:
    """Give every block the same hash at no cost, on writing and on reading."""
    from airflow_provider_dbnd.core.digest import SIZE
    from airflow_provider_dbnd.core.formats import fingerprint

    nothing = bytes(SIZE)
    with (
        patch.object(fingerprint, "block_hashes", return_value=(nothing, nothing, True)),
        patch.object(fingerprint, "block_sum", return_value=(nothing, True)),
    ):
        yield
