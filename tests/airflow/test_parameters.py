"""Run-time values in Airflow: trigger form, conf, ``tasks test -t``, and what cannot change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAD = """
import datetime as dt
import enum
from typing import Annotated, Literal, Optional
from pandas import DataFrame
from pydantic import BaseModel
from airflow_provider_dbnd import LOGICAL_DATE, parameter, pipeline, task

@task
def echo(value: int = 1, other: str = "o") -> str:
    return f"{value} {other}"
"""

FLOW = """
@pipeline
def {dag_id}(value: int = 2, loops: int = 1):
    echo(value)
    for i in range(loops):
        echo(i, task_id=f"loop_{{i}}")
dag = {dag_id}.as_dag()
"""


@pytest.fixture
def run(parse_dag: Any, run_dag: Any, records: Any, store_url: str) -> Any:
    def go(body: str, **conf: Any) -> Any:
        return records(run_dag(parse_dag(HEAD + body), **conf))

    return go


def test_conf_sets_the_pipelines_parameter_by_its_bare_name(run: Any) -> None:
    left = run(FLOW.format(dag_id="q_bare"), value=7)

    assert left.xcom("echo") == "7 o"


def test_conf_sets_one_tasks_parameter_above_the_call(run: Any) -> None:
    left = run(FLOW.format(dag_id="q_task"), **{"echo.value": "9", "loop_0.other": "x"})

    assert left.xcom("echo") == "9 o"
    assert left.xcom("loop_0") == "0 x"
    shown = left.rendered("echo")["parameters"]["value"]
    assert shown == {"value": "9", "source": "trigger form or dag_run.conf"}


def test_a_bare_name_is_the_roots_and_not_a_groups(run: Any) -> None:
    left = run(
        """
@pipeline
def group(value: int = 1):
    echo(value)

@pipeline
def q_group(value: int = 2):
    echo(value)
    group(3)
    group.override()(value=4, task_id="other")
dag = q_group.as_dag()
""",
        **{"value": 7, "other.value": 8},
    )

    assert left.xcom("echo") == "7 o"
    assert left.xcom("group.echo") == "3 o"
    assert left.xcom("other.echo") == "8 o"


def test_none_in_conf_is_a_text_and_null_is_none(run: Any) -> None:
    body = """
@task
def note_of(note: Optional[str] = "n", other: Optional[str] = "o") -> str:
    return repr((note, other))

@pipeline
def q_null():
    note_of()
dag = q_null.as_dag()
"""
    left = run(body, **{"note_of.note": "none", "note_of.other": None})

    assert left.xcom("note_of") == "('none', None)"


def test_environment_beats_the_default_and_loses_to_the_call(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBND__ECHO__OTHER", "from-env")
    monkeypatch.setenv("DBND__ECHO__VALUE", "50")
    monkeypatch.setenv("DBND__Q_ENV__VALUE", "3")

    left = run(FLOW.format(dag_id="q_env"))

    assert left.xcom("echo") == "3 from-env"
    assert left.rendered("echo")["parameters"]["other"]["source"] == (
        "environment variable DBND__ECHO__OTHER"
    )


def test_an_unknown_key_in_conf_fails_with_the_nearest_name(run: Any, capfd: Any) -> None:
    left = run(FLOW.format(dag_id="q_unknown"), valu=3)

    assert left.states()["echo"] == "failed"
    assert (
        "unknown parameter 'valu' (from trigger form or dag_run.conf); did you mean 'value'?"
        in capfd.readouterr().out
    )


def test_a_wrong_value_names_task_parameter_expected_got_and_source(run: Any, capfd: Any) -> None:
    left = run(FLOW.format(dag_id="q_wrong"), **{"echo.value": "many"})

    assert left.states()["echo"] == "failed"
    assert (
        "parameter 'value' of task 'echo': expected int, got 'many' (from trigger form or dag_run.conf)"
        in capfd.readouterr().out
    )


def test_a_parameter_the_body_used_is_not_in_the_form_and_cannot_be_changed(
    run: Any, parse_dag: Any, capfd: Any
) -> None:
    body = FLOW.format(dag_id="q_fixed")

    assert list(parse_dag(HEAD + body).params) == ["value", "reuse"]
    left = run(body, loops=3)

    assert left.states()["echo"] == "failed"
    out = capfd.readouterr().out
    assert "parameter 'loops' of pipeline 'q_fixed' is fixed" in out
    assert "as_dag(loops=...)" in out


def test_as_dag_sets_fixed_parameters(parse_dag: Any) -> None:
    dag = parse_dag(
        HEAD + FLOW.format(dag_id="q_as").replace("as_dag()", "as_dag(loops=3, value=5)")
    )

    assert set(dag.task_dict) == {"echo", "loop_0", "loop_1", "loop_2"}
    assert dag.params.dump() == {"value": 5, "reuse": None}


def test_the_form_has_types_choices_ranges_and_descriptions(parse_dag: Any) -> None:
    dag = parse_dag(
        HEAD
        + """
class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Model(BaseModel):
    depth: int = 3

@task
def use(*args: object) -> None: ...

@pipeline
def q_form(
    n: Annotated[int, parameter(ge=0, le=10)] = 3,
    rate: float = 0.5,
    flag: bool = True,
    mode: Literal["a", "b"] = "a",
    colour: Colour = Colour.RED,
    level: Annotated[str, parameter(choices=("low", "high"))] = "low",
    day: dt.date = dt.date(2024, 1, 2),
    when: dt.datetime = dt.datetime(2024, 1, 2, 3, 4),
    utc: dt.datetime = dt.datetime(2024, 1, 2, 3, 4, tzinfo=dt.timezone.utc),
    wait: dt.timedelta = dt.timedelta(hours=2),
    names: list[str] = ["x"],
    options: dict[str, int] = {"k": 1},
    model: Model = Model(),
    maybe: Optional[int] = None,
    raw: DataFrame = "data/raw.csv",
    password: Annotated[str, parameter(hidden=True)] = "hush-hush",
    today: dt.date = LOGICAL_DATE,
):
    '''Show a form.

    :param n: how many rows
    :param rate: share
    '''
    use(n, rate, flag, mode, colour, level, day, when, utc, wait, names, options, model, maybe, raw, password, today)

dag = q_form.as_dag()
"""
    )

    schema = {name: dag.params.get_param(name).schema for name in dag.params}
    assert schema["n"] == {"type": "integer", "minimum": 0, "maximum": 10}
    assert dag.params.get_param("n").description == "how many rows"
    assert (schema["rate"], schema["flag"]) == ({"type": "number"}, {"type": "boolean"})
    assert schema["mode"]["enum"] == ["a", "b"]
    assert schema["colour"]["enum"] == ["red", "blue"]
    assert schema["level"] == {"type": "string", "enum": ["low", "high"]}
    assert schema["day"] == {"type": "string", "format": "date"}
    assert schema["when"] == {"type": "string"}
    assert schema["utc"] == {"type": "string", "format": "date-time"}
    assert schema["wait"] == {"type": "string"}
    assert schema["names"] == {"type": "array", "items": {"type": "string"}}
    assert schema["options"]["type"] == "object"
    assert schema["model"]["type"] == "object"
    assert schema["maybe"] == {"type": ["null", "integer"]}
    assert schema["raw"] == {"type": ["string", "array"]}
    assert schema["password"] == {"type": ["null", "string"], "format": "password"}
    assert schema["today"] == {"type": ["null", "string"], "format": "date"}
    values = dag.params.dump()
    assert values["colour"] == "red"
    assert values["wait"] == "PT2H"
    assert values["model"] == {"depth": 3}
    assert values["password"] is None
    assert "hush-hush" not in repr(values)


def test_every_default_passes_its_own_field(run: Any) -> None:
    left = run(
        """
class Mixed(enum.Enum):
    TEXT = "a"
    NUMBER = 2

@task
def types(naive: dt.datetime, aware: dt.datetime, literal: Optional[Literal["a", 2]],
          mixed: Optional[Mixed], most: float, bounds: list[float]) -> str:
    return repr((naive, aware.utcoffset(), literal, mixed, most, bounds))

@pipeline
def q_defaults(
    naive: dt.datetime = dt.datetime(2020, 1, 1),
    aware: dt.datetime = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc),
    literal: Optional[Literal["a", 2]] = None,
    mixed: Optional[Mixed] = None,
    most: float = float("inf"),
    bounds: list[float] = [float("-inf"), 1.5],
):
    types(naive, aware, literal, mixed, most, bounds)
dag = q_defaults.as_dag()
"""
    )

    assert left.xcom("types") == (
        "(datetime.datetime(2020, 1, 1, 0, 0), datetime.timedelta(0), None, None, inf, [-inf, 1.5])"
    )


def test_the_form_takes_other_values_for_what_json_has_no_word_for(run: Any) -> None:
    left = run(
        """
@task
def types(when: dt.datetime, literal: Optional[Literal["a", 2]], most: float) -> str:
    return repr((when, literal, most))

@pipeline
def q_others(
    when: dt.datetime = dt.datetime(2020, 1, 1),
    literal: Optional[Literal["a", 2]] = "a",
    most: float = float("inf"),
):
    types(when, literal, most)
dag = q_others.as_dag()
""",
        when="2024-02-03T04:05",
        literal=None,
        most=3,
    )

    assert left.xcom("types") == "(datetime.datetime(2024, 2, 3, 4, 5), None, 3.0)"


def test_the_form_has_pydantics_own_ranges_and_descriptions(parse_dag: Any) -> None:
    dag = parse_dag(
        HEAD
        + """
from pydantic import Field, PositiveInt

@task
def use(*args: object) -> None: ...

@pipeline
def q_ranges(
    depth: Annotated[int, Field(ge=0, le=10, description="of the trees")] = 1,
    count: PositiveInt = 1,
    maybe: Optional[Annotated[int, Field(ge=0, description="or none")]] = None,
    outside: Annotated[Optional[int], Field(le=9)] = None,
    only: Literal["a"] = "a",
    days: Annotated[list[dt.date], parameter(choices=[[dt.date(2024, 1, 2)], []])] = [],
):
    '''Show ranges.

    :param depth: of something else
    :param count: how many
    '''
    use(depth, count, maybe, outside, only, days)
dag = q_ranges.as_dag()
"""
    )

    fields = {name: dag.params.get_param(name) for name in dag.params}
    assert fields["depth"].schema == {"type": "integer", "minimum": 0, "maximum": 10}
    assert fields["count"].schema == {"type": "integer", "exclusiveMinimum": 0}
    assert fields["maybe"].schema == {"type": ["null", "integer"], "minimum": 0}
    assert fields["outside"].schema == {"type": ["null", "integer"], "maximum": 9}
    assert fields["only"].schema == {"type": "string", "enum": ["a"]}
    assert fields["days"].schema["enum"] == [["2024-01-02"], []]
    described = [fields[name].description for name in ("depth", "count", "maybe", "outside")]
    assert described == ["of the trees", "how many", "or none", None]


def test_the_form_takes_text_for_the_parts_of_a_value_as_set_does(run: Any) -> None:
    left = run(
        """
class Plan(BaseModel):
    wait: dt.timedelta = dt.timedelta(days=1)

@task
def types(waits: list[dt.timedelta], plan: Plan, days: list[Optional[dt.date]]) -> str:
    return repr((waits, plan, days))

@pipeline
def q_parts(
    waits: list[dt.timedelta] = [dt.timedelta(days=1)],
    plan: Plan = Plan(),
    days: list[Optional[dt.date]] = [None],
):
    types(waits, plan, days)
dag = q_parts.as_dag()
""",
        waits=["2d", "PT1H"],
        plan={"wait": "36h"},
        days=["2024-02-03T10:00:00Z"],
    )

    assert left.xcom("types") == (
        "([datetime.timedelta(days=2), datetime.timedelta(seconds=3600)], "
        "Plan(wait=datetime.timedelta(days=1, seconds=43200)), [datetime.date(2024, 2, 3)])"
    )


def test_form_values_come_back_as_their_types(run: Any) -> None:
    left = run(
        """
class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

@task
def types(day: dt.date, colour: Colour, wait: dt.timedelta, maybe: Optional[int]) -> str:
    return repr((day, colour.name, wait, maybe))

@pipeline
def q_types(day: dt.date = dt.date(2024, 1, 2), colour: Colour = Colour.RED,
            wait: dt.timedelta = dt.timedelta(0), maybe: Optional[int] = 3):
    types(day, colour, wait, maybe)
dag = q_types.as_dag()
""",
        day="2025-05-06",
        colour="blue",
        wait="1d",
        maybe=None,
    )

    assert left.xcom("types") == (
        "(datetime.date(2025, 5, 6), 'BLUE', datetime.timedelta(days=1), None)"
    )


def test_the_logical_date_fills_in_where_the_default_asks_for_it(
    parse_dag: Any, records: Any, store_url: str
) -> None:
    import datetime as dt

    dag = parse_dag(
        HEAD
        + """
@task
def of_day(day: dt.date) -> str:
    return day.isoformat()

@pipeline
def q_date(day: dt.date = LOGICAL_DATE):
    of_day(day)
    of_day(task_id="fixed_day", day=dt.date(2020, 1, 1))
dag = q_date.as_dag(schedule="@daily", start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc))
"""
    )

    left = records(dag.test(logical_date=dt.datetime(2024, 3, 4, tzinfo=dt.timezone.utc)))

    assert left.xcom("of_day") == "2024-03-04"
    assert left.xcom("fixed_day") == "2020-01-01"
    assert left.rendered("of_day")["parameters"]["day"]["source"] == "logical date of the run"


def test_the_logical_date_in_a_list_or_dict_is_that_of_a_local_run(
    parse_dag: Any, records: Any, store_url: str
) -> None:
    import datetime as dt

    source = (
        HEAD
        + """
from typing import Any

@task
def show(value: Any) -> str:
    return repr(value)

@pipeline
def q_dates(day: dt.date = LOGICAL_DATE, when: dt.datetime = LOGICAL_DATE):
    return show(day), show(when), show({"days": [day, when]})
dag = q_dates.as_dag()
"""
    )
    moment = dt.datetime(2024, 3, 4, 5, 6, tzinfo=dt.timezone.utc)
    left = records(parse_dag(source).test(logical_date=moment))

    got = [left.xcom(task_id) for task_id in ("show", "show__1", "show__2")]
    assert got == [
        "datetime.date(2024, 3, 4)",
        repr(moment),
        repr({"days": [moment.date(), moment]}),
    ]
    assert left.rendered("show__2")["op_kwargs"] == {
        "value": {"days": ["2024-03-04", "2024-03-04T05:06:00+00:00"]}
    }


def test_a_hidden_value_is_masked_everywhere_airflow_keeps_it(
    run: Any, store_url: str, capfd: Any
) -> None:
    left = run(
        """
@task
def login(password: Annotated[str, parameter(hidden=True)], note: str = "n") -> int:
    return len(password)

@task
def plain(text: str) -> int:
    return len(text)

@pipeline
def q_hidden(password: Annotated[str, parameter(hidden=True)] = "the-default-secret"):
    login(password)
    login("the-literal-secret", task_id="literal")
    plain(password)
dag = q_hidden.as_dag()
""",
        password="the-secret-of-the-form",
    )

    assert left.xcom("login") == left.xcom("plain") == len("the-secret-of-the-form")
    assert left.xcom("literal") == len("the-literal-secret")
    kept = left.all_text() + capfd.readouterr().out
    kept += "".join(p.read_text() for p in Path(store_url).rglob("*.json"))
    assert "the-default-secret" not in kept
    assert "the-literal-secret" not in kept
    assert "the-secret-of-the-form" not in kept


def test_hidden_parameters_in_lists_and_dicts_reach_the_task_masked(
    run: Any, store_url: str, capfd: Any
) -> None:
    left = run(
        """
@task
def plain(texts: list[str], also: dict[str, list[str]]) -> list[int]:
    return [len(text) for text in [*texts, *also["a"]]]

@task
def keys(of: Annotated[dict[str, str], parameter(hidden=True)]) -> int:
    return len(of["pem"])

@pipeline
def q_nested(
    password: Annotated[str, parameter(hidden=True)] = "kraken-7",
    of: Annotated[dict[str, str], parameter(hidden=True)] = {"pem": "kraken\\nfirst kraken"},
):
    plain(["n", password], {"a": [password]})
    keys(of)
dag = q_nested.as_dag()
""",
    )

    assert left.xcom("plain") == [1, 8, 8]
    assert left.xcom("keys") == len("kraken\nfirst kraken")
    kept = left.all_text() + capfd.readouterr().out
    kept += "".join(p.read_text() for p in Path(store_url).rglob("*.json"))
    assert "kraken-7" not in kept
    assert "first kraken" not in kept


def test_a_hidden_value_is_masked_in_the_log_whatever_it_is(run: Any) -> None:
    from airflow.sdk.log import redact

    run(
        """
@task
def keys(
    many: Annotated[list[str], parameter(hidden=True)],
    named: Annotated[dict[str, str], parameter(hidden=True)],
    pem: Annotated[str, parameter(hidden=True)],
) -> None: ...

@pipeline
def q_log(
    many: Annotated[list[str], parameter(hidden=True)] = "leviathan-1,leviathan-2",
    named: Annotated[dict[str, str], parameter(hidden=True)] = {"k": "leviathan-3"},
    pem: Annotated[str, parameter(hidden=True)] = r"levi\\athan-4",
):
    keys(many, named, pem)
dag = q_log.as_dag()
"""
    )

    for said in ("leviathan-1 leviathan-2", "leviathan-3", "levi\\athan-4", repr("levi\\athan-4")):
        assert "athan" not in redact(f"log line with {said}")


def test_parameters_among_what_a_task_is_mapped_over_have_their_values(
    run: Any, capfd: Any
) -> None:
    left = run(
        """
@task
def plain(n: int, day: dt.date = dt.date(2020, 1, 1)) -> str:
    return f"{n} {day}"

@task
def login(token: Annotated[str, parameter(hidden=True)]) -> int:
    return len(token)

@pipeline
def q_elements(
    n: int = 1,
    day: dt.date = dt.date(2021, 2, 3),
    token: Annotated[str, parameter(hidden=True)] = "basilisk-99",
):
    plain.expand(n=[n, 7])
    plain.override(task_id="rows").expand_kwargs([{"n": n, "day": day}, {"n": 5}])
    login.expand(token=[token, "x"])
dag = q_elements.as_dag()
""".replace("@task", "import datetime as dt\n@task", 1),
        n=4,
    )

    assert [left.xcom("plain", map_index=i) for i in (0, 1)] == ["4 2020-01-01", "7 2020-01-01"]
    assert [left.xcom("rows", map_index=i) for i in (0, 1)] == ["4 2021-02-03", "5 2020-01-01"]
    assert [left.xcom("login", map_index=i) for i in (0, 1)] == [11, 1]
    assert "basilisk-99" not in left.all_text() + capfd.readouterr().out


def test_hidden_values_a_task_is_mapped_over_are_not_kept_by_airflow(
    run: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRETS", "kraken-7,swordfish-12")

    left = run(
        """
import os

SECRETS = os.environ["SECRETS"].split(",")
Secret = Annotated[str, parameter(hidden=True)]

@task
def login(token: Secret, n: int = 0) -> int:
    return len(token) + n

@pipeline
def q_mapped(tokens: Annotated[list[str], parameter(hidden=True)] = SECRETS):
    login.expand(token=SECRETS, n=[100, 200])
    login.override(task_id="items").partial(n=1).expand(token=tokens)
    login.override(task_id="rows").expand_kwargs([{"token": s, "n": 300} for s in SECRETS])
dag = q_mapped.as_dag()
"""
    )

    assert [left.xcom("login", map_index=i) for i in range(4)] == [108, 208, 112, 212]
    assert [left.xcom("items", map_index=i) for i in range(2)] == [9, 13]
    assert [left.xcom("rows", map_index=i) for i in range(2)] == [308, 312]
    kept = left.all_text() + left.serialized() + capfd.readouterr().out
    assert "kraken-7" not in kept
    assert "swordfish-12" not in kept


def test_a_scheduled_pipeline_needs_a_value_for_every_parameter(airflow_db: str) -> None:
    from airflow_provider_dbnd.cli.dags import parse

    path = Path(airflow_db) / "required.py"
    path.write_text(
        HEAD
        + """
@pipeline
def q_required(value: int):
    echo(value)
dag = q_required.as_dag(schedule="@daily")
"""
    )
    try:
        (error,) = parse(str(path)).import_errors.values()
    finally:
        path.unlink()

    assert "pipeline 'q_required' is scheduled, but its parameter 'value' has no value" in error


def test_airflow_tasks_test_takes_parameters(airflow_db: str, store_url: str) -> None:
    path = Path(airflow_db) / "tasks_test.py"
    path.write_text(HEAD + FLOW.format(dag_id="q_tasks_test"))
    try:
        done = subprocess.run(
            [os.path.join(os.path.dirname(sys.executable), "airflow"), "tasks", "test"]
            + ["q_tasks_test", "echo", "-t", '{"echo.value": 41}'],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"},
        )
    finally:
        path.unlink()

    assert "parameter value = 41 (tasks test --task-params)" in done.stdout + done.stderr


def test_the_form_turns_reuse_on_for_a_run_and_the_xcom_says_from_where(
    parse_dag: Any, run_dag: Any, records: Any, store_url: str
) -> None:
    dag = parse_dag(
        """
from airflow_provider_dbnd import pipeline, task
@task
def answer(n: int = 42) -> int:
    return n
@pipeline
def p_reuse_form():
    answer()
dag = p_reuse_form.as_dag()
"""
    )
    first = records(run_dag(dag, reuse="on"))
    second = records(run_dag(dag, reuse="on"))
    refreshed = records(run_dag(dag, reuse="refresh"))

    assert "reused" not in first.xcom("answer", "dbnd")
    assert second.xcom("answer") == 42
    assert second.xcom("answer", "dbnd")["reused"]["run_id"] == first.dag_run.run_id
    assert "reused" not in refreshed.xcom("answer", "dbnd")
