"""What starting costs: imports, the command line, a task in ``dbnd run``."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import child, command, interleaved
from benchmarks.options import Options
from benchmarks.table import Row, seconds

NAMES = "task pipeline parameter output sensor log_metric Artifact"

PIPELINE = """
from airflow_provider_dbnd import pipeline, task

@task
def step(n: int = 0) -> int:
    return n + 1

@pipeline
def trivial(tasks: int = 1):
    value = 0
    for n in range(tasks):
        value = step(value)
    return value
"""

DBND = (sys.executable, "-m", "airflow_provider_dbnd.cli")


def rows(options: Options) -> Iterator[Row]:
    """Measure in fresh processes throughout."""
    rounds = options.more(3)
    ways = {
        "ours": lambda: child("startup:import_ours")["seconds"],
        "base": lambda: child("startup:import_base")["seconds"],
    }
    times = interleaved(ways, rounds)
    loaded = child("startup:import_ours")["loaded"]
    assert not loaded, f"import airflow_provider_dbnd loads {loaded}"
    yield Row(
        subject="startup",
        what="import of all public names, against pydantic + fsspec",
        value=times["ours"] / times["base"],
        must=1.3,
        aim=1.1,
        detail=f"{seconds(times['ours'])} / {seconds(times['base'])}; no Airflow, no pandas",
    )
    yield from _commands(options, rounds)


def _commands(options: Options, rounds: int) -> Iterator[Row]:
    tasks = 100 if options.size >= 100 else 10
    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as folder:
        file = Path(folder, "trivial.py")
        file.write_text(PIPELINE)

        def run(count: int) -> float:
            words = ("run", f"{file}:trivial", "--set", f"tasks={count}")
            return command(*DBND, *words, DBND_STORE=f"{folder}/store")

        times = interleaved(
            {
                "help": lambda: command(*DBND, "--help"),
                "pandas": lambda: command(sys.executable, "-c", "import pandas"),
                "one": lambda: run(1),
            },
            rounds,
        )
        counts = {"one": lambda: run(1), "many": lambda: run(tasks)}
        fastest = interleaved(counts, rounds, pick=min)
    yield Row(subject="startup", what="dbnd --help", value=times["help"], unit="s", must=0.5)
    yield Row(
        subject="startup",
        what='dbnd run of a trivial pipeline, against python -c "import pandas"',
        value=times["one"] / times["pandas"],
        must=2,
        aim=1.5,
        detail=f"{seconds(times['one'])} / {seconds(times['pandas'])}",
    )
    yield Row(
        subject="startup",
        what=f"dbnd run of {tasks} empty tasks, overhead a task",
        value=1000 * (fastest["many"] - fastest["one"]) / (tasks - 1),
        unit="ms",
        must=options.target(5),
        aim=options.target(2),
        detail=f"{seconds(fastest['many'])} in all",
    )


def import_ours() -> dict[str, object]:
    """Import everything public; runs in a process of its own."""
    start = time.perf_counter()
    package = importlib.import_module("airflow_provider_dbnd")
    for name in NAMES.split():
        getattr(package, name)
    took = time.perf_counter() - start
    heavy = [name for name in ("airflow", "pandas", "pyarrow", "numpy") if name in sys.modules]
    return {"seconds": took, "loaded": heavy}


def import_base() -> dict[str, object]:
    """Import what the package needs to work at all."""
    start = time.perf_counter()
    importlib.import_module("pydantic")
    importlib.import_module("fsspec")
    return {"seconds": time.perf_counter() - start}
