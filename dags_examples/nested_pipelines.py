"""Pipelines within a pipeline: each call is a task group, its results have names.

You will see the groups ``prepare`` and ``prepare__1`` with the same two tasks in each, and results
that are taken by attribute. A parameter in a group is set by its path:

    dbnd run dags_examples/nested_pipelines.py:nested --set prepare__1.clean.coldest=40
"""

from __future__ import annotations

from typing import NamedTuple

from pandas import DataFrame

from airflow_provider_dbnd import log_metric, pipeline, task


class Halves(NamedTuple):
    """Rows of the night and of the day."""

    night: DataFrame
    day: DataFrame


@task
def clean(raw: DataFrame, coldest: float = -20.0) -> DataFrame:
    return raw[raw["temp"] > coldest]


@task
def halve(rows: DataFrame) -> Halves:
    day = rows["hour"].between(7, 19)
    return Halves(night=rows[~day], day=rows[day])


@pipeline
def prepare(raw: DataFrame) -> Halves:
    return halve(clean(raw))


@task
def gap(day: DataFrame, night: DataFrame) -> float:
    value = float(day["temp"].mean() - night["temp"].mean())
    log_metric("gap", value)
    return value


@pipeline
def nested(
    this_year: DataFrame = "data/raw.csv", last_year: DataFrame = "data/raw.csv"
) -> tuple[float, float]:
    now, before = prepare(this_year), prepare(last_year)
    return gap(now.day, now.night), gap(before.day, before.night)


dag = nested.as_dag(schedule=None, tags=["dbnd"])
