"""A run without Airflow gives every task the state that Airflow gives it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tests.core.local_project import Project

SOURCE = """
from airflow.sdk import TriggerRule
from airflow.sdk.exceptions import AirflowSkipException
from airflow_provider_dbnd import pipeline, task
from airflow_provider_dbnd.core.trigger_rules import NAMES

KNOWN = {each.value for each in TriggerRule}

@task
def some(outcome: str) -> str:
    if outcome == "skip":
        raise AirflowSkipException("not this one")
    if outcome == "fail":
        raise ValueError("not this one either")
    return outcome

@task
def after(outcomes: list[str]) -> int:
    return len(outcomes)

@task
def nothing() -> list[str]:
    return []

@pipeline
def rules():
    empty = nothing()
    for outcomes in (["ok", "skip"], ["ok", "fail"], ["ok", "skip", "fail"], ["skip", "fail"], empty, []):
        name = "_".join(outcomes) or "literal" if isinstance(outcomes, list) else "empty"
        mapped = some.override(task_id=name).expand(outcome=outcomes)
        for rule in KNOWN.intersection(NAMES):
            after.override(task_id=f"{name}__{rule}", trigger_rule=rule)(mapped)

dag = rules.as_dag()
"""


def test_are_those_of_airflow_where_tasks_are_mapped(
    run_source: Any, store_url: str, tmp_path: Path
) -> None:
    left, _ = run_source(SOURCE)
    in_airflow = {name: state for name, state in left.states().items() if isinstance(name, str)}
    file = tmp_path / "rules.py"
    file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("rules", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    outcomes = Project(folder=tmp_path).run(module.rules).outcomes

    assert len(in_airflow) > 60
    assert in_airflow["empty__all_success"] == "skipped"
    assert {name: outcomes[name].state for name in in_airflow} == in_airflow
