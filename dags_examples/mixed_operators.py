"""A DAG written by hand that mixes our tasks with Airflow's own, data flowing both ways.

You will see a native ``@task`` give our task a path, our tasks give a native one the data and a
``BashOperator`` a value in a template, and ``>>`` order them. XCom holds references all along.

    airflow dags test mixed_operators
    dbnd run dags_examples/mixed_operators.py:coldest --set raw=dags_examples/data/raw.csv
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.sdk import task as native_task
from pandas import DataFrame

from airflow_provider_dbnd import log_metric, task


@native_task
def choose_file() -> str:
    return str(Path(__file__).parent / "data" / "raw.csv")


@task(retries=2, retry_delay=timedelta(seconds=5))
def coldest(raw: DataFrame, rows: int = 5) -> DataFrame:
    log_metric("rows", len(raw))
    return raw.nsmallest(rows, "temp")


@task
def lowest(rows: DataFrame) -> float:
    return float(rows["temp"].min())


@native_task
def count(rows: DataFrame) -> int:
    """Airflow's own task: it gets the frame, not the reference."""
    return len(rows)


with DAG("mixed_operators", schedule=None, tags=["dbnd"]) as dag:
    start = BashOperator(task_id="start", bash_command="echo starting")
    rows = coldest(choose_file())
    temperature = lowest(rows)
    report = BashOperator(task_id="report", bash_command="echo {{ ti.xcom_pull('lowest') }} F")
    start >> rows
    [temperature, count(rows)] >> report
