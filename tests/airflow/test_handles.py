"""What a result may be used for while Airflow builds a DAG: ours as in `dbnd run`, and more."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, BaseOperator, dag as native_dag, task as native

from airflow_provider_dbnd import pipeline, task

@task
def one() -> int:
    return 1

@task
def pair() -> tuple[int, int]:
    return 1, 2

@task
def rows() -> list[dict[str, str]]:
    return [{"text": "a"}, {"text": "b"}]

@task
def shout(text: str) -> str:
    return text.upper()

@pipeline
def inner(text: str = "x"):
    shout(text)

@native
def native_one():
    return 1

"""


@pytest.fixture
def import_error(airflow_db: str) -> Callable[[str], str]:
    """``import_error(body)`` parses a DAG file and returns what Airflow says of it."""
    from airflow_provider_dbnd.cli.dags import parse

    def of(body: str) -> str:
        path = Path(airflow_db) / f"wrong_{os.getpid()}.py"
        path.write_text(SOURCE + body)
        try:
            (error,) = parse(str(path)).import_errors.values()
        finally:
            path.unlink()
        return str(error)

    return of


def in_pipeline(statement: str) -> str:
    return f"@pipeline\ndef p():\n    {statement}\ndag = p.as_dag()\n"


COMPARED = "so it cannot be compared. Compare inside a task."
IN_TEXT = "so it cannot be part of a text. Make the text inside a task."


@pytest.mark.parametrize(
    ("statement", "so"),
    [
        ("one() == 1", COMPARED),
        ("one() != 1", COMPARED),
        ("one() < 1", COMPARED),
        ("one() in [1, 2]", COMPARED),
        ("one() + 1", "so it cannot be calculated with. Calculate inside a task."),
        ("1 in one()", "so nothing can be looked for in it. Look inside a task."),
        ("1 if one() else 2", "so it cannot decide what the graph is. Branch inside a task."),
        ("shout(f'v={one()}')", IN_TEXT),
        ("shout('%s' % one())", IN_TEXT),
        ("shout(text=str(one()))", IN_TEXT),
        ("shout.expand(text=['a', f'{one()}'])", IN_TEXT),
        ("inner(f'v={one()}')", IN_TEXT),
    ],
)
def test_a_use_of_data_that_is_not_there_is_an_import_error(
    import_error: Any, statement: str, so: str
) -> None:
    assert (
        "airflow_provider_dbnd.exceptions.GraphError: The result of task 'one' is not known while "
        f"the graph is built, {so}\n"
    ) in import_error(in_pipeline(statement))


@pytest.mark.parametrize(
    "body",
    [
        "with DAG('by_hand'):\n    one() == 1\n",
        "@native_dag\ndef by_decorator():\n    one() == 1\nby_decorator()\n",
    ],
)
def test_a_dag_written_by_hand_refuses_the_same(import_error: Any, body: str) -> None:
    assert COMPARED in import_error(body)


def test_a_circle_of_long_names_is_named_before_airflow_refuses_the_id(import_error: Any) -> None:
    endless = in_pipeline("shout('a'); p(task_id='nested' * 9)")

    assert "in a circle without an end: p -> p." in import_error(endless)


def test_a_template_takes_whole_outputs_only(import_error: Any) -> None:
    statement = "BashOperator(task_id='sh', bash_command=f'echo {pair()}')"

    assert (
        "The result of task 'pair' is not known while the graph is built, so only a whole output "
        "of it can be in a template. Take the part inside a task."
    ) in import_error(in_pipeline(statement))


def test_native_operators_take_results_as_values_and_in_templates(run_source: Any) -> None:
    left, _ = run_source(
        SOURCE
        + """
class Own(BaseOperator):
    template_fields = ("path",)

    def __init__(self, path="default", **kwargs):
        super().__init__(**kwargs)
        self.path = path or "empty"
        self.asked = (path == "default", path != "default", path in ("a", "b"))

    def execute(self, context):
        return [self.path, *self.asked]

@pipeline
def p_native():
    _, two = pair()
    number = one()
    Own(task_id="own", path=number)
    echo = BashOperator(task_id="echo", bash_command=f"echo {number} {two:>3}")
    [number, two] >> echo
    seven = native_one()
    seven >> shout(f"from {seven}")
    shout.expand_kwargs(rows())

dag = p_native.as_dag()
"""
    )

    assert set(left.states().values()) == {"success"}
    assert left.xcom("own") == [1, False, True, False]
    assert left.xcom("echo") == "1 2"
    assert left.xcom("shout") == "FROM 1"
