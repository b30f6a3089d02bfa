"""Tasks of Spark and of pandas in one pipeline, run in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pandas as pd
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airflow_provider_dbnd import pipeline, task
from airflow_provider_dbnd.exceptions import ParameterError, SignatureError
from tests.core.local_project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.csv").write_text("id,price\n1,2.5\n2,3.5\n3,4.0\n")
    return Project(folder=tmp_path)


@task
def priced(orders: DataFrame, least: float = 0.0) -> DataFrame:
    return orders.filter(F.col("price") >= least)


@task
def doubled(orders: pd.DataFrame) -> pd.DataFrame:
    return orders.assign(price=orders["price"] * 2)


@task
def numbered(spark: SparkSession, orders: DataFrame, count: int = 2) -> DataFrame:
    return orders.crossJoin(spark.range(count).withColumnRenamed("id", "copy"))


@task
def total(orders: pd.DataFrame) -> float:
    return float(orders["price"].sum())


@pipeline
def mart(orders: DataFrame = "orders.csv", least: float = 3.0) -> float:
    return total(numbered(doubled(priced(orders, least))))


def test_spark_and_pandas_tasks_hand_over_to_each_other(spark: Any, project: Project) -> None:
    result = project.run(mart, {"orders": str(project.folder / "orders.csv")})

    assert result.success, [o.error for o in result.outcomes.values()]
    assert result.value() == 30.0
    manifests = {name: o.manifests[0] for name, o in result.outcomes.items()}
    assert manifests["priced"].outputs["result"]["type"] == "pyspark.sql.DataFrame"
    assert manifests["doubled"].outputs["result"]["format"] == "arrow"
    assert manifests["numbered"].outputs["result"]["rows"] == 4
    assert manifests["priced"].inputs["orders"][0]["checksum"].startswith("listing:")
    assert manifests["priced"].environment["versions"]["pyspark"]


def test_a_result_of_spark_is_loaded_as_a_frame(spark: Any, project: Project) -> None:
    found = project.value(priced, {"orders": "orders.csv", "least": "4"})

    assert [row.asDict() for row in found.collect()] == [{"id": 3, "price": 4.0}]


def test_the_session_is_no_parameter(spark: Any, project: Project) -> None:
    signature = numbered.definition.signature

    assert list(signature.inputs) == ["orders", "count"]
    assert list(signature.injected) == ["spark"]
    with pytest.raises(ParameterError, match="unknown parameter 'spark'"):
        project.graph(numbered, {"orders": "orders.csv", "spark": "local"})
    result = project.run(numbered, {"orders": "orders.csv", "count": 3})
    (outcome,) = result.outcomes.values()
    assert outcome.manifests[0].outputs["result"]["rows"] == 9
    assert set(outcome.manifests[0].parameters) == {"orders", "count"}


def test_a_plain_call_passes_the_session_itself(spark: Any) -> None:
    orders = spark.createDataFrame([(1, 2.0)], "id long, price double")

    assert numbered(spark, orders).count() == 2
    with pytest.raises(TypeError):
        numbered(orders=orders)


@task
def first(session: SparkSession, /, *rest: int) -> int:
    return int(session.range(5).count()) + len(rest)


@task
def last(number: int = 1, *, session: Optional[SparkSession] = None) -> int:
    return int(session.range(number).count())


@pipeline
def both() -> tuple[int, int]:
    return first(7, 8), last()


@pipeline
def given_one() -> int:
    return last(1, None)


def test_the_session_is_injected_wherever_it_stands(spark: Any, project: Project) -> None:
    assert project.value(both) == (7, 1)
    with pytest.raises(SignatureError, match="too many positional arguments"):
        project.graph(given_one)


FILE = '''
"""Orders."""
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from airflow_provider_dbnd import pipeline, task

@task
def flagged(orders: DataFrame, spark: SparkSession) -> DataFrame:
    return orders.join(spark.createDataFrame([(2,)], "id long"), "id", "left_semi")

@task
def count(orders: pd.DataFrame) -> int:
    return len(orders)

@pipeline
def orders(orders: DataFrame = "orders.csv") -> int:
    return count(flagged(orders))
'''


def dbnd(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_dbnd.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dbnd_run_starts_a_session_of_its_own(whole_pyspark: None, project: Project) -> None:
    (project.folder / "file.py").write_text(FILE)

    told = dbnd("run", "file.py:orders")

    assert "count.result = 1\n" in told
    assert "orders: success, 2 tasks in" in told


def test_the_command_line_does_not_ask_for_a_session(project: Project) -> None:
    (project.folder / "file.py").write_text(FILE)

    told = dbnd("show", "file.py:orders")

    assert "flagged" in told
    assert "SparkSession" not in told
