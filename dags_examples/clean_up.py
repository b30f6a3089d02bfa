"""A clean-up of the store every night: what old runs left goes, what newer ones or a tag need stays.

You will see how many objects and bytes go, in the log by pipeline and task, and a check of the store
after it, which fails where a promise is not kept. Nothing is deleted before ``delete`` is set. Runs that
were deleted in Airflow are found as well: a clean-up needs the store alone.

    dbnd run dags_examples/clean_up.py
    dbnd run dags_examples/clean_up.py --set delete=true --set keep_days=14
"""

from __future__ import annotations

import logging
from typing import Any

import airflow_provider_dbnd as dbnd
from airflow_provider_dbnd import log_metrics, pipeline, task

log = logging.getLogger(__name__)


@task
def clean(keep_days: float, keep_last: int, delete: bool) -> dict[str, Any]:
    report = dbnd.clean_up(keep_days=keep_days, keep_last=keep_last, delete=delete)
    for (pipeline_name, task_name), goes in sorted(report.dead.items()):
        log.info("%s/%s: %d objects, %d bytes", pipeline_name, task_name, goes.objects, goes.bytes)
    log_metrics({"dead_runs": report.runs_dead, **report.total.to_json()})
    return {"runs": report.runs_dead, **report.total.to_json()}


@task
def check(cleaned: dict[str, Any]) -> int:
    found = dbnd.check_store()
    problems = [each for each in found if each.level == "problem"]
    if problems:
        raise RuntimeError(f"{len(problems)} problems after {cleaned}; the first: {problems[0]}")
    return len(found)


@pipeline
def clean_up(keep_days: float = 30, keep_last: int = 3, delete: bool = False) -> int:
    return check(clean(keep_days, keep_last, delete))


dag = clean_up.as_dag(schedule="@daily", tags=["dbnd"])
