"""Small values between tasks, against TaskFlow."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import child, interleaved, timed
from benchmarks.options import Options
from benchmarks.table import Row, seconds

COUNT = 1000
TASKS = 20
#: Many values: short runs in turn, since seconds later the machine may be a quarter slower.
WIDE_TASKS, WIDTH = 2, 50

WAYS = ("ours", "native")

#: A chain in which every task is given a short string and returns another.
CHAIN = """
from airflow.sdk import DAG, task as native
from airflow_provider_dbnd import task as ours

with DAG("{way}") as dag:
    @{way}
    def step(text: str = "x", count: int = 0) -> str:
        return text[-20:] + str(count)

    value = step()
    for n in range({tasks} - 1):
        value = step(value, n)
"""

#: The same with many values from each task to the next, every one an XCom.
WIDE_CHAIN = """
from airflow.sdk import DAG, task as native
from airflow_provider_dbnd import task as ours

with DAG("wide_{way}") as dag:
    @{way}({options})
    def step({parameters}) -> {annotation}:
        return {result}

    values = step()
    for n in range({tasks} - 1):
        values = step({arguments})
"""


def wide_chain(way: str, tasks: int, width: int) -> str:
    """Return the DAG file of a chain with *width* ints and strings from task to task."""
    types = ["int" if n % 2 else "str" for n in range(width)]
    defaults = ["1" if n % 2 else "'x'" for n in range(width)]
    parts = {
        "ours": {
            "options": "",
            "annotation": f"tuple[{', '.join(types)}]",
            "result": ", ".join(f"v{n}" for n in range(width)),
            "arguments": "*values",
        },
        "native": {
            "options": "multiple_outputs=True",
            "annotation": "dict",
            "result": f"dict({', '.join(f'v{n}=v{n}' for n in range(width))})",
            "arguments": f"*(values[f'v{{n}}'] for n in range({width}))",
        },
    }
    declared = (f"v{n}: {types[n]} = {defaults[n]}" for n in range(width))
    return WIDE_CHAIN.format(way=way, tasks=tasks, parameters=", ".join(declared), **parts[way])


def rows(options: Options) -> Iterator[Row]:
    """Measure the encoding alone, then whole runs of a chain."""
    tasks, wide_tasks, width = (TASKS, WIDE_TASKS, WIDTH) if options.size >= 100 else (3, 2, 5)
    again = COUNT // (WIDE_TASKS * WIDTH)
    rounds = {"encoding": options.more(5), "runs": options.more(3), "wide": options.rounds * again}
    sizes = {"tasks": tasks, "wide_tasks": wide_tasks, "width": width}
    found = child("values:measured", rounds=rounds, **sizes)
    times, runs, wide = found["encoding"], found["runs"], found["wide"]
    added = (times["ours"] - times["native"]) / COUNT
    yield Row(
        subject="values",
        what=f"{COUNT:,} small values encoded and decoded, added to each by ours",
        value=added * 1e6,
        unit="us",
        detail=f"{seconds(times['ours'])} / {seconds(times['native'])}",
    )
    yield Row(
        subject="values",
        what=f"one small value each between {tasks} tasks, dag.test(), against TaskFlow",
        value=runs["ours"] / runs["native"],
        detail=f"{seconds(runs['ours'] / tasks)} / {seconds(runs['native'] / tasks)} a task",
    )
    yield Row(
        subject="values",
        what=f"{width * wide_tasks * again:,} small values between tasks, {width} from each to the "
        "next, dag.test(), against TaskFlow",
        value=wide["ours"] / wide["native"],
        must=options.target(1.05),
        aim=options.target(1.0),
        detail=f"{seconds(wide['ours'] / wide_tasks)} / {seconds(wide['native'] / wide_tasks)} a task",
    )


def measured(
    tasks: int, wide_tasks: int, width: int, rounds: dict[str, int]
) -> dict[str, dict[str, float]]:
    """Measure in one Airflow with an empty home; runs in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as home:
        configure_airflow(home)
        from airflow.utils.db import initdb

        initdb()
        single = {way: CHAIN.format(way=way, tasks=tasks) for way in WAYS}
        wide = {f"wide_{way}": wide_chain(way, wide_tasks, width) for way in WAYS}
        return {
            "encoding": _encoding(rounds["encoding"]),
            "runs": _runs(home, single, rounds["runs"]),
            "wide": _runs(home, wide, rounds["wide"]),
        }


def _encoding(rounds: int) -> dict[str, float]:
    """Encode for XCom and decode, value by value."""
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.comms import XComResult

    from airflow_provider_dbnd.core.parameters import Output, Parameter
    from airflow_provider_dbnd.core.storage.store import ArtifactStore
    from airflow_provider_dbnd.core.values import Decoder, Encoder

    values = [n if n % 2 else f"value {n}" for n in range(COUNT)]

    def native() -> list[Any]:
        return [_through_xcom(BaseXCom, XComResult, value) for value in values]

    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as root:
        store = ArtifactStore(root)
        encoder = Encoder(store=store, pipeline="bench", task_id="small")
        decoder = Decoder(store=store, scratch=root)

        def ours() -> list[Any]:
            found = []
            for value in values:
                encoded = encoder.encode(value, "result", Output(), type(value))
                given = _through_xcom(BaseXCom, XComResult, encoded)
                found.append(decoder.load(given, "value", type(value), Parameter(), ""))
            return found

        assert ours() == native() == values
        return interleaved({"ours": partial(timed, ours), "native": partial(timed, native)}, rounds)


def _through_xcom(xcom: Any, result: Any, value: Any) -> Any:
    stored = json.dumps(xcom.serialize_value(value))
    return xcom.deserialize_value(result(key="return_value", value=json.loads(stored)))


def _runs(home: str, files: dict[str, str], rounds: int) -> dict[str, float]:
    """Run the DAGs in turn."""
    dags = {name: parsed(home, name, text) for name, text in files.items()}

    def run(name: str) -> float:
        states: list[str] = []
        took = timed(lambda: states.append(dags[name].test().state))
        assert states == ["success"], f"{name} failed"
        return took

    for name in dags:  # first calls
        run(name)
    times = interleaved({name: partial(run, name) for name in dags}, rounds)
    return {way: times[name] for way, name in zip(WAYS, dags, strict=True)}


def configure_airflow(home: str) -> None:
    """Point Airflow, before it is imported, at an empty home."""
    Path(home, "dags").mkdir()
    os.environ.update(
        AIRFLOW_HOME=home,
        AIRFLOW__CORE__DAGS_FOLDER=f"{home}/dags",
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
        DBND_STORE=f"{home}/store",
    )


def parsed(home: str, name: str, text: str) -> Any:
    """Return the DAG in a file with *text*, parsed as Airflow does."""
    from airflow_provider_dbnd.cli.dags import parse

    path = Path(home, "dags", f"{name}.py")
    path.write_text(text)
    bag = parse(str(path))
    assert not bag.import_errors, bag.import_errors
    return next(iter(bag.dags.values()))
