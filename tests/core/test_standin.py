"""Pipeline parameters while the graph is built: references for tasks, values for Python."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import pytest
from local_project import Project

from airflow_provider_dbnd import LOGICAL_DATE, pipeline, task
from airflow_provider_dbnd.core.standin import StandIn
from airflow_provider_dbnd.exceptions import GraphError


@task
def show(value: Any = None) -> str:
    return repr(value)


@task
def day_of(day: dt.date) -> str:
    return day.isoformat()


def fixed(project: Project, runnable: Any) -> list[str]:
    graph = project.graph(runnable)
    return sorted(p.spec.name for p in graph.parameters.values() if p.fixed)


def test_a_parameter_handed_to_a_task_stays_a_reference(project: Project) -> None:
    seen: list[Any] = []

    @pipeline
    def p(n: int = 3, options: dict[str, int] = {"a": 1}):  # noqa: B006
        seen.append(n)
        return show(n), show([n, {"k": options}])

    assert project.value(p) == ("3", "[3, {'k': {'a': 1}}]")
    assert type(seen[0]) is StandIn
    assert fixed(project, p) == []


@pytest.mark.parametrize(
    ("use", "default", "result"),
    [
        pytest.param(lambda v: list(range(v)), 3, [0, 1, 2], id="range"),
        pytest.param(lambda v: "yes" if v else "no", True, "yes", id="if"),
        pytest.param(lambda v: f"{v:>4}", "ab", "  ab", id="f-string"),
        pytest.param(lambda v: f"{v}" + v, "ab", "abab", id="concatenation"),
        pytest.param(lambda v: "x" + v, "ab", "xab", id="reversed concatenation"),
        pytest.param(lambda v: v == "ab", "ab", True, id="=="),
        pytest.param(lambda v: v != "ab", "ab", False, id="!="),
        pytest.param(lambda v: v < 4, 3, True, id="<"),
        pytest.param(lambda v: {3: "three"}[v], 3, "three", id="as key"),
        pytest.param(lambda v: v["a"], {"a": 1}, 1, id="index"),
        pytest.param(lambda v: [1, 2, 3][v], 1, 2, id="as index"),
        pytest.param(lambda v: [x + 1 for x in v], [1, 2], [2, 3], id="iteration"),
        pytest.param(lambda v: "a" in v, ["a"], True, id="in"),
        pytest.param(lambda v: len(v), [1, 2], 2, id="len"),  # noqa: PLW0108
        pytest.param(lambda v: (v + 1, 1 + v, v * 2, 7 // v, -v), 3, (4, 4, 6, 2, -3), id="maths"),
        pytest.param(lambda v: [0] * v, 2, [0, 0], id="repetition"),
        pytest.param(lambda v: (int(v), float(v), round(v)), 2.0, (2, 2.0, 2), id="numbers"),
        pytest.param(lambda v: v.upper(), "ab", "AB", id="method"),
        pytest.param(lambda v: os.path.join(v, "x"), "a", os.path.join("a", "x"), id="path"),
        pytest.param(lambda v: isinstance(v, int), 3, True, id="isinstance"),
        pytest.param(
            lambda v: v + dt.timedelta(days=1), dt.date(2024, 1, 1), dt.date(2024, 1, 2), id="date"
        ),
    ],
)
def test_python_sees_the_value(project: Project, use: Any, default: Any, result: Any) -> None:
    seen: list[Any] = []

    @pipeline
    def p(v=default):
        seen.append(use(v))
        show()

    project.graph(p)

    assert seen == [result]


def test_a_parameter_that_python_uses_is_fixed(project: Project) -> None:
    @pipeline
    def p(n: int = 2, flag: bool = False, name: str = "x", kept: int = 1):
        for _ in range(n):
            show(kept)
        if flag:
            show(f"{name}")

    assert fixed(project, p) == ["flag", "n"]
    assert list(project.graph(p, {"n": "3"}).nodes) == ["show", "show__1", "show__2"]


def test_text_from_outside_is_converted_before_python_sees_it(project: Project) -> None:
    seen: list[Any] = []

    @pipeline
    def p(n: int = 2, wait: dt.timedelta = dt.timedelta(days=1)):
        seen.append((n + 0, wait * 1))
        show()

    project.graph(p, {"n": "5", "wait": "2d"})

    assert seen == [(5, dt.timedelta(days=2))]


def test_identity_and_match_see_the_value(project: Project) -> None:
    seen: list[Any] = []

    @pipeline
    def p(a: int | None = None, b: str = "x", c: int | None = 1, d: int = 4):
        seen.append((a is None, c is not None, (a or c) is None))
        match b:
            case "x":
                seen.append("x")
        show(d)

    project.graph(p)

    assert seen == [(True, True, False), "x"]
    assert fixed(project, p) == ["a", "b", "c"]


def made_by_exec(body: str) -> Any:
    namespace = {**globals()}
    exec(f"def p(n: int = 3, flag: bool = False, maybe=None):\n    {body}\n", namespace)
    return pipeline(namespace["p"])


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("show(n); show(flag) if n > 2 else show(maybe)", ["n"]),
        ("show([x for x in (n, flag)]); show(maybe)", []),
        ("show(n if maybe is None else 1)", ["flag", "maybe", "n"]),
        ("show(maybe is not flag)", ["flag", "maybe", "n"]),
        ("(lambda: show(n is maybe))()", ["flag", "maybe", "n"]),
        (
            "\n    match n:\n        case [x, *_]: show(1)\n        case _: show(n)",
            ["flag", "maybe", "n"],
        ),
    ],
)
def test_a_pipeline_without_source_fixes_what_it_may_compare_by_identity(
    project: Project, caplog: Any, body: str, names: list[str]
) -> None:
    assert fixed(project, made_by_exec(body)) == names
    assert caplog.messages == (
        [
            "pipeline p compares with `is` or `match`, and its source cannot be read to tell what: all "
            "its parameters with a value are fixed. Define it in a file to have them in the trigger form."
        ]
        if len(names) > 1
        else []
    )


def test_a_default_of_none_reaches_the_task(project: Project) -> None:
    @pipeline
    def p(limit: int | None = None):
        return show(limit)

    assert project.value(p) == "None"
    assert project.value(p, {"limit": "4"}) == "4"


def test_the_logical_date_goes_to_tasks_and_is_unknown_before(project: Project) -> None:
    @pipeline
    def p(day: dt.date = LOGICAL_DATE):
        return day_of(day)

    @pipeline
    def looks(day: dt.date = LOGICAL_DATE):
        return show(f"{day}")

    assert project.value(p, logical_date="2024-01-02") == "2024-01-02"
    with pytest.raises(GraphError) as error:
        project.graph(looks)
    assert str(error.value) == (
        "parameter 'day' of pipeline 'looks' is known only in a run (LOGICAL_DATE), but the "
        "pipeline's body uses it. Hand it to a task instead."
    )


def test_a_value_that_is_not_known_cannot_be_used(project: Project) -> None:
    @pipeline
    def p(n: int):
        for _ in range(n):
            show()

    with pytest.raises(GraphError) as error:
        project.graph(p)

    assert str(error.value) == (
        "parameter 'n' of pipeline 'p' has no value while the graph is built, but the pipeline's "
        "body uses it. Give it a default, or hand it to a task, which gets the run's value."
    )


def test_a_required_parameter_without_a_value_fails_before_anything_runs(project: Project) -> None:
    @pipeline
    def p(n: int):
        return show(n)

    outcome = project.run(p).outcomes["show"]

    assert str(outcome.error) == (
        "parameter 'n' of pipeline 'p' has no value: expected int. Pass it in the call, set it by "
        "--set n=..., DBND__P__N or 'n' in [parameters] of dbnd.toml, or give it a default."
    )


def test_parameters_pass_through_nested_pipelines(project: Project) -> None:
    @pipeline
    def inner(n: int = 1):
        return show(n)

    @pipeline
    def p(n: int = 2):
        return inner(n), inner(5), inner()

    assert project.value(p, {"n": "7"}) == ("7", "5", "1")
    assert fixed(project, p) == []


def test_a_pipeline_can_return_its_parameter(project: Project) -> None:
    @pipeline
    def p(n: int = 2):
        show(n)
        return n, {"n": n}

    assert project.value(p, {"n": "3"}) == (3, {"n": 3})
