"""The smallest useful pipeline: split a file in two and measure how far the halves differ.

You will see two tasks, the value and the source of each parameter, and the metric ``drift``.

    dbnd run dags_examples/prepare_data.py --set ratio=0.5
"""

from __future__ import annotations

from pandas import DataFrame

from airflow_provider_dbnd import log_metric, pipeline, task


@task
def prepare(raw: DataFrame, ratio: float = 0.8) -> tuple[DataFrame, DataFrame]:
    cut = int(len(raw) * ratio)
    return raw[:cut], raw[cut:]


@task
def score(train: DataFrame, test: DataFrame) -> float:
    value = test.mean(numeric_only=True).sub(train.mean(numeric_only=True)).abs().max()
    log_metric("drift", value)
    return value


@pipeline
def drift(raw: DataFrame = "data/raw.csv", ratio: float = 0.8) -> float:
    train, test = prepare(raw, ratio)
    return score(train, test)


dag = drift.as_dag(schedule="@daily", tags=["dbnd"])
