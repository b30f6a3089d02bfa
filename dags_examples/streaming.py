"""More data than memory: tasks that take and give iterators of frames.

You will see frames written and read part by part, and the peak memory of the process stay flat
however many parts there are. A consumer may also take the whole as one DataFrame.

    dbnd run dags_examples/streaming.py --set parts=200
"""

from __future__ import annotations

import resource
from collections.abc import Iterator

import numpy as np
import pandas as pd
from pandas import DataFrame

from airflow_provider_dbnd import log_metrics, pipeline, task


@task
def readings(parts: int, rows: int) -> Iterator[DataFrame]:
    random = np.random.default_rng(0)
    for part in range(parts):
        sensors, values = random.integers(0, 8, rows), random.normal(size=rows)
        yield DataFrame({"sensor": sensors, "part": part, "value": values})


@task
def outliers(readings: Iterator[DataFrame], limit: float = 4.0) -> Iterator[DataFrame]:
    for frame in readings:
        yield frame[frame["value"].abs() > limit].reset_index(drop=True)


@task
def per_sensor(outliers: Iterator[DataFrame]) -> dict[str, int]:
    found = pd.concat(outliers)["sensor"].value_counts().sort_index()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log_metrics({"outliers": found.sum(), "peak_mb": peak // 1024})
    return {str(sensor): int(count) for sensor, count in found.items()}


@pipeline
def streaming(parts: int = 20, rows: int = 100_000) -> dict[str, int]:
    return per_sensor(outliers(readings(parts, rows)))


dag = streaming.as_dag(schedule=None, tags=["dbnd"])
