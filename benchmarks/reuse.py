"""A pipeline of 100 tasks whose results are all there: against running it, and against peers.

Prefect and Dagster are installed into an environment of their own, once, below ``~/.cache``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import command, interleaved
from benchmarks.options import Options
from benchmarks.table import Row, seconds

#: Prefect 3.8 does not start with the newest FastAPI.
PEERS = ("prefect==3.8.5", "fastapi==0.139.2", "dagster==1.13.28")
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dbnd-benchmarks" / "peers"

OURS = """
from airflow_provider_dbnd import pipeline, task

@task(reuse=True)
def step(x: int, n: int) -> int:
    return x + n

@pipeline
def chain():
    x = 0
    for n in range({tasks}):
        x = step(x, n)
    return x
"""

PREFECT = """
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE

@task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)
def step(x, n):
    return x + n

@flow
def chain():
    x = 0
    for n in range({tasks}):
        x = step(x, n)
    return x

chain()
"""

#: Dagster skips nothing by itself when a job runs again: its assets are compared by their versions,
#: and those that are up to date are left out of the run.
DAGSTER = """
from dagster import AssetIn, DagsterInstance, Definitions, asset, materialize
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

def make(n):
    if n == 0:
        @asset(name="step_0", code_version="1")
        def first() -> int:
            return 0

        return first

    @asset(name=f"step_{{n}}", code_version="1", ins={{"x": AssetIn(f"step_{{n - 1}}")}})
    def other(x: int) -> int:
        return x + n

    return other

assets = [make(n) for n in range({tasks})]
instance = DagsterInstance.get()
graph = Definitions(assets=assets).resolve_asset_graph()
resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
stale = [a.key for a in assets if resolver.get_status(a.key) != StaleStatus.FRESH]
if stale:
    materialize(assets, selection=stale, instance=instance)
"""


def rows(options: Options) -> Iterator[Row]:
    """Run each once to fill its cache, then measure whole processes, again and again."""
    tasks = 100 if options.size >= 100 else 5
    python = _peers()
    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as folder:
        files = {"ours": OURS, "with_prefect": PREFECT, "with_dagster": DAGSTER}
        for name, text in files.items():
            Path(folder, f"{name}.py").write_text(text.format(tasks=tasks))
        home = {"DBND_STORE": f"{folder}/store", "PREFECT_HOME": f"{folder}/prefect"}
        home |= {"DAGSTER_HOME": f"{folder}/dagster", "PREFECT_LOGGING_LEVEL": "ERROR"}
        home["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
        Path(folder, "dagster").mkdir()
        Path(folder, "dagster", "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        run = (sys.executable, "-m", "airflow_provider_dbnd.cli", "run", f"{folder}/ours.py", "-q")
        ways = {
            "reused": partial(command, *run, **home),
            "run": partial(command, *run, "--no-reuse", **home),
            "prefect": partial(command, python, f"{folder}/with_prefect.py", **home),
            "dagster": partial(command, python, f"{folder}/with_dagster.py", **home),
            "python": partial(command, sys.executable, "-c", "import pandas"),
        }
        for way in ways.values():
            way()
        found = interleaved(ways, options.rounds)
    peer = min(found["prefect"], found["dagster"])
    detail = ", ".join(f"{name} {seconds(took)}" for name, took in found.items())
    yield Row(
        subject="reuse",
        what=f"cached re-run of {tasks} tasks, whole process, against the fastest peer's",
        value=found["reused"] / peer,
        must=1.0,
        aim=0.2,
        detail=detail,
    )
    yield Row(
        subject="reuse",
        what=f"the same against running the {tasks} tasks, which do next to nothing",
        value=found["reused"] / found["run"],
        detail=detail,
    )


def _peers() -> str:
    python = HOME / "bin" / "python"
    stamp = HOME / "installed"
    if not stamp.exists() or stamp.read_text() != repr(PEERS):
        venv.create(HOME, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *PEERS]
        subprocess.run(install, check=True)
        stamp.write_text(repr(PEERS))
    return str(python)
