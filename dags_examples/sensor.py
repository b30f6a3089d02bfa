"""Wait for a file, then work on it.

You will see the sensor ask every few seconds, holding no worker slot in between, and hand what it
found to the next task: a path given for a DataFrame is loaded.

    dbnd run dags_examples/sensor.py --set pattern='r*.csv'
"""

from __future__ import annotations

from pathlib import Path

from pandas import DataFrame

from airflow_provider_dbnd import log_metric, pipeline, sensor, task

DATA = Path(__file__).parent / "data"


@sensor(poke_interval=5, timeout=600)
def newest_file(folder: Path, pattern: str) -> str | None:
    """Be satisfied by the newest matching file, and return it."""
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else None


@task
def rows_in(raw: DataFrame) -> int:
    log_metric("rows", len(raw))
    return len(raw)


@pipeline
def wait_for_file(folder: Path = DATA, pattern: str = "*.csv") -> int:
    return rows_in(newest_file(folder, pattern))


dag = wait_for_file.as_dag(schedule=None, tags=["dbnd"])
