"""What Airflow's DAG processor sees: the same bytes each time, nothing run, no data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "dags_examples"

SERIALIZE = ROOT / "tests/serialize_dags.py"


def serialized(path: Path, seed: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SERIALIZE), str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_dag_serializes_to_the_same_bytes_in_every_process() -> None:
    first, second = serialized(EXAMPLES, "1"), serialized(EXAMPLES, "2")

    assert len(json.loads(first)) == len(list(EXAMPLES.glob("*.py")))
    assert first == second


def test_nothing_of_the_users_functions_runs_while_a_dag_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "quiet.py"
    path.write_text(
        """
from airflow_provider_dbnd import pipeline, sensor, task

@task
def one(n: int = 1) -> int:
    raise SystemExit("a task ran")

@sensor
def two(n: int) -> bool:
    raise SystemExit("a sensor ran")

@pipeline
def quiet(n: int = 2):
    two(one(n))

dag = quiet.as_dag()
"""
    )

    (dag,) = json.loads(serialized(path, "0"))

    assert sorted(t["__var"]["task_id"] for t in dag["dag"]["tasks"]) == ["one", "two"]


def test_a_pipeline_with_dag_arguments_registers_itself(parse_dag: object) -> None:
    dag = parse_dag(  # type: ignore[operator]
        """
# Registers a DAG: without the word Airflow's safe mode would not look at this file.
from airflow_provider_dbnd import pipeline, task

@task
def one() -> int:
    return 1

@pipeline(schedule="@weekly", tags=["own"])
def registers_itself():
    one()
"""
    )

    assert dag.dag_id == "registers_itself"
    assert dag.tags == {"own"}


def test_a_lazy_dag_becomes_a_real_one_when_airflow_looks(tmp_path: Path) -> None:
    path = tmp_path / "late.py"
    path.write_text(
        """
import sys
from airflow_provider_dbnd import pipeline, task

@task
def one() -> int:
    return 1

@pipeline
def late():
    one()

dag = late.as_dag(tags=["x"])
assert "airflow.sdk" not in sys.modules
print(repr(dag))
from airflow.sdk import DAG
assert isinstance(dag, DAG)
print(dag.dag_id, sorted(dag.tags), list(dag.task_dict))
"""
    )

    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["<DAG: late>", "late ['x'] ['one']"]


def test_pipelines_whose_body_calls_no_task_are_refused() -> None:
    from airflow_provider_dbnd import pipeline
    from airflow_provider_dbnd.exceptions import GraphError

    @pipeline
    def empty() -> None:
        """Nothing."""

    import airflow.sdk  # noqa: F401 - as_dag() builds only where Airflow is loaded

    with pytest.raises(GraphError, match="Pipeline 'empty' calls no task"):
        empty.as_dag()


def test_a_dag_written_by_hand_has_one_builder(airflow_db: str) -> None:
    from airflow.sdk import DAG

    from airflow_provider_dbnd import task
    from airflow_provider_dbnd.decorators.dag import builder_of

    @task
    def step(n: int = 1) -> int:
        return n

    with DAG("by_hand", schedule=None) as dag:
        first = builder_of(dag)
        step(step())

        assert builder_of(dag) is first
