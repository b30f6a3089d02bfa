"""What the DAG processor pays: parsing and serialized bytes, against native TaskFlow."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.measure import child, interleaved, timed
from benchmarks.options import Options
from benchmarks.table import Row, seconds

COUNTS = (10, 100, 1000)

NATIVE = """
from airflow.sdk import dag, task

@task
def step(n: int = 0) -> int:
    return n + 1

@dag(schedule=None)
def native(start: int = 1):
    value = step.override(task_id="first")(start)
    for n in range({tasks} - 1):
        value = step.override(task_id=f"step_{{n}}")(value)

native()
"""

OURS = """
from airflow_provider_dbnd import pipeline, task

@task
def step(n: int = 0) -> int:
    return n + 1

@pipeline(schedule=None)
def ours(start: int = 1):
    value = step(start, task_id="first")
    for n in range({tasks} - 1):
        value = step(value, task_id=f"step_{{n}}")

# Without the words dag and airflow the DAG processor would not look at this file.
"""


def rows(options: Options) -> Iterator[Row]:
    """Measure DAGs of all sizes; targets hold for the largest."""
    counts = COUNTS if options.size >= 100 else COUNTS[:1]
    for tasks in counts:
        more = options.more(3 if tasks > 100 else 9)
        found = child("parsing:measured", tasks=tasks, rounds=more)
        for what, must, aim in (
            ("parse", 1.15, 1.0),
            ("serialize", None, None),
            ("bytes", 1.1, 1.0),
        ):
            ours, native = found["ours"][what], found["native"][what]
            show = (lambda b: f"{b / 1000:.1f} kB") if what == "bytes" else seconds
            yield Row(
                subject="parsing",
                what=f"DAG of {tasks:,} tasks, {what}, against TaskFlow",
                value=ours / native,
                must=must if tasks == COUNTS[-1] else None,
                aim=aim if tasks == COUNTS[-1] else None,
                detail=f"{show(ours)} / {show(native)}",
            )


def measured(tasks: int, rounds: int) -> dict[str, dict[str, float]]:
    """Parse and serialize both DAG files; runs in a process of its own."""
    from benchmarks.values import configure_airflow, parsed

    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as home:
        configure_airflow(home)
        texts = {"ours": OURS.format(tasks=tasks), "native": NATIVE.format(tasks=tasks)}
        dags = {name: parsed(home, name, text) for name, text in texts.items()}
        assert all(len(dag.task_dict) == tasks for dag in dags.values())
        parse = {n: partial(timed, partial(parsed, home, n, texts[n])) for n in texts}
        serialize = {n: partial(timed, partial(serialized, dags[n])) for n in texts}
        times, writes = interleaved(parse, rounds), interleaved(serialize, rounds)
        sizes = {n: len(json.dumps(serialized(dags[n]))) for n in texts}
        return {n: {"parse": times[n], "serialize": writes[n], "bytes": sizes[n]} for n in texts}


def serialized(dag: Any) -> Any:
    """Return what Airflow stores of a DAG."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    except ImportError:  # Airflow 3.1
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized
    return Serialized.to_dict(dag)
