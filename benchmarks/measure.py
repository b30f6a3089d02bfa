"""Side by side: interleaved rounds, fresh processes, memory watched from outside."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

#: What a child prints before its answer; libraries print other lines.
MARK = "benchmark-answer:"


def interleaved(
    ways: Mapping[str, Callable[[], float]],
    rounds: int,
    pick: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Run every way once a round, so that a busy moment meets all; return medians of seconds.

    The order turns round after each round: a machine that slows down favours no way.

    :param pick: ``min`` where two ways are subtracted, as noise adds up then
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(rounds):
        for name in order:
            gc.collect()
            times[name].append(ways[name]())
        order.reverse()
    return {name: pick(each) for name, each in times.items()}


def timed(action: Callable[[], object]) -> float:
    """Return the seconds *action* takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def child(function: str, **arguments: Any) -> Any:
    """Call ``benchmarks.MODULE:NAME`` in a fresh process and return what it returns, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not answers:
        raise RuntimeError(f"{function} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(answers[-1].removeprefix(MARK))


def command(*words: str, **more: str) -> float:
    """Run a command to its end and return its seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        words, cwd=ROOT, env=environment() | more, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stdout}\n{done.stderr}")
    return took


def environment() -> dict[str, str]:
    """Return this process's environment with this checkout first on the import path."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@contextmanager
def watched_memory() -> Iterator[Callable[[], int]]:
    """Give a function that tells by how many bytes anonymous memory grew at most since the start.

    Pages of mapped files do not count: the system takes them back whenever it needs to. Another
    process looks, because a thread would wait while this one holds the interpreter lock.
    """
    _give_back_free_memory()
    watcher = subprocess.Popen(
        [sys.executable, "-S", __file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdin is not None
    assert watcher.stdout is not None
    before = int(watcher.stdout.readline())
    peaks: list[int] = []

    def stop() -> int:
        if not peaks:
            peaks.append(int(watcher.communicate("\n")[0]))
        return peaks[0] - before

    try:
        yield stop
    finally:
        stop()


def _give_back_free_memory() -> None:
    """What was freed before would be taken again unseen."""
    import ctypes

    gc.collect()
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)


def _watch(pid: int) -> None:
    import select

    path = f"/proc/{pid}/status"
    peak = _anonymous(path)
    print(peak, flush=True)
    while not select.select([sys.stdin], [], [], 0.004)[0]:
        peak = max(peak, _anonymous(path))
    print(max(peak, _anonymous(path)))


def _anonymous(path: str) -> int:
    with open(path) as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
