"""Fan-out over a list known only at run time: one task instance for each part, then collect.

You will see as many instances of ``describe`` as the file has days; each gets its own artifact.

    dbnd run dags_examples/fan_out.py --set by=hour
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from pandas import DataFrame

from airflow_provider_dbnd import log_metric, pipeline, task


@task
def split_by(raw: DataFrame, by: str) -> list[DataFrame]:
    return [part for _, part in raw.groupby(by)]


@task
def describe(part: DataFrame, by: str) -> dict[str, Any]:
    log_metric("rows", len(part))
    return {by: int(part[by].iloc[0]), "rows": len(part), "warmest": float(part["temp"].max())}


@task
def collect(rows: list[dict[str, Any]]) -> DataFrame:
    log_metric("parts", len(rows))
    return pd.DataFrame(rows)


@pipeline
def fan_out(raw: DataFrame = "data/raw.csv", by: str = "day") -> DataFrame:
    return collect(describe.partial(by=by).expand(part=split_by(raw, by)))


dag = fan_out.as_dag(schedule=None, tags=["dbnd"])
