"""Pipelines on Airflow with PostgreSQL, Redis, S3 and two Celery workers, each with its own disk."""

from __future__ import annotations

import json
from typing import Any

import fsspec
import pytest

from tests.services.celery_topology import WORKERS, CeleryTopology, Servers

FLIGHTS_ON_NEW_YEAR = 842
MART = {"carrier", "route", "hour", "weather", "plane"}

OWN_DISKS = """
from __future__ import annotations

import os, socket, tempfile
from pathlib import Path
from airflow.sdk import DAG, task

with DAG("own_disks", schedule=None):

    @task(queue="a")
    def write() -> list[str]:
        folders = [tempfile.gettempdir(), Path.home(), os.environ["AIRFLOW_HOME"], os.getcwd()]
        paths = [f"{folder}/left_by_{socket.gethostname()}" for folder in folders]
        for path in paths:
            Path(path).write_text("x")
        return paths

    @task(queue="b")
    def look(paths: list[str]) -> dict[str, bool]:
        return {path: Path(path).exists() or not Path(path).parent.exists() for path in paths}

    @task(queue="b")
    def litter() -> str:
        try:
            Path(__file__).with_name("litter").touch()
        except OSError as error:
            return error.strerror
        return "written"

    look(write()) >> litter()
"""

SINGLE_FLIGHT = """
import time
from typing import Annotated

from airflow_provider_dbnd import Reuse, parameter, pipeline, task


@task(engine="alone", reuse=Reuse(single_flight=True), retries=0)
def slow(wanted: str, seconds: Annotated[int, parameter(significant=False)]) -> str:
    time.sleep(seconds)
    return wanted


@pipeline
def single_flight(wanted: str = "", seconds: int = 1):
    slow(wanted, seconds)


dag = single_flight.as_dag()
"""


@pytest.fixture
def s3(servers: Servers) -> Any:
    return fsspec.filesystem(
        "s3",
        key=servers.key,
        secret=servers.secret,
        client_kwargs={"endpoint_url": servers.s3, "region_name": "us-east-1"},
        use_listings_cache=False,
    )


def test_workers_of_this_topology_share_no_file(celery: CeleryTopology) -> None:
    """Else the tests below would prove nothing about references between machines."""
    (celery.dags / "own_disks.py").write_text(OWN_DISKS)

    run = celery.trigger("own_disks")

    assert celery.wait("own_disks", run, seconds=120) == "success", celery.explain("own_disks", run)
    tasks = celery.task_instances("own_disks", run)
    assert (tasks["write"]["hostname"], tasks["look"]["hostname"]) == tuple(WORKERS)
    found = celery.xcoms("own_disks", run, "look")["return_value"]
    assert len(found) == 4
    assert not any(found.values()), found
    assert celery.xcoms("own_disks", run, "litter")["return_value"] == "Read-only file system"


def test_flights_mart_is_built_by_both_workers_into_the_bucket(
    celery: CeleryTopology, bucket: str, s3: Any
) -> None:
    run = celery.trigger("flights_mart", day="2013-01-01", days=1)

    assert celery.wait("flights_mart", run, seconds=600) == "success", celery.explain(
        "flights_mart", run
    )
    tasks = celery.task_instances("flights_mart", run)
    assert {task["hostname"] for task in tasks.values()} == set(WORKERS)
    outputs = celery.xcoms("flights_mart", run, "build_mart")
    assert outputs.keys() >= MART
    for name in MART:
        reference = outputs[name]
        assert "dbnd_artifact" in reference
        assert len(json.dumps(reference)) < 4096
        assert s3.size(_key(reference["uri"])) == reference["size"]
    mart = _table(s3, f"{bucket}/store/flights_mart/mart/carrier.parquet")
    assert mart["flights"].sum() == FLIGHTS_ON_NEW_YEAR


@pytest.fixture(scope="module")
def single_flight(celery: CeleryTopology, servers: Servers) -> str:
    """A DAG whose task defers, and of whose runs one computes; its id."""
    folder = celery.dags / "single_flight"
    folder.mkdir()
    s3 = {
        "AWS_ACCESS_KEY_ID": servers.key,
        "AWS_SECRET_ACCESS_KEY": servers.secret,
        "AWS_ENDPOINT_URL": servers.s3,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in s3.items())
    (folder / "dbnd.toml").write_text(
        f'[engines.alone]\ntype = "process"\ndeferrable = true\nenv = {{ {env} }}\n'
    )
    (folder / "single_flight.py").write_text(SINGLE_FLIGHT)
    return "single_flight"


def test_of_two_runs_whose_tasks_defer_one_computes(
    celery: CeleryTopology, single_flight: str
) -> None:
    runs = [celery.trigger(single_flight, wanted="once", seconds=15) for _ in range(2)]

    for run in runs:
        assert celery.wait(single_flight, run, seconds=180) == "success", celery.explain(
            single_flight, run
        )
    summaries = [celery.xcoms(single_flight, run, "slow")["dbnd"] for run in runs]
    (reused,) = [summary["reused"] for summary in summaries if "reused" in summary]
    assert reused["run_id"] in runs
    assert reused["saved_seconds"] > 15


def test_killing_a_deferred_task_lets_the_run_that_waits_compute(
    celery: CeleryTopology, single_flight: str
) -> None:
    """The triggerer ends the lease, through the connection of the store; it would last ten minutes."""
    first = celery.trigger(single_flight, wanted="again", seconds=600)
    celery.wait_for_task(single_flight, first, "slow", "deferred")
    second = celery.trigger(single_flight, wanted="again", seconds=1)
    celery.wait_for_task(single_flight, second, "slow", "running")

    celery.mark_failed(single_flight, first, "slow")

    assert celery.wait(single_flight, first, seconds=60) == "failed"
    assert celery.wait(single_flight, second, seconds=180) == "success", celery.explain(
        single_flight, second
    )
    assert "reused" not in celery.xcoms(single_flight, second, "slow")["dbnd"]


def _key(uri: str) -> str:
    """Return bucket and key of ``s3://conn_id@bucket/key``."""
    return uri.partition("@")[2]


def _table(s3: Any, path: str) -> Any:
    import pandas as pd

    with s3.open(path, "rb") as file:
        return pd.read_parquet(file)
