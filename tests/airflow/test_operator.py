"""One call is one operator: references in XCom, data in the store, native tasks both ways."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_dbnd.core.past.history import attempts_of_run
from airflow_provider_dbnd.core.remote.job import spec_of
from airflow_provider_dbnd.core.storage.store import ArtifactStore

HEAD = """
from typing import Annotated, Iterator, NamedTuple
from pandas import DataFrame
from airflow.sdk import DAG, task as native
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow_provider_dbnd import Artifact, log_metric, output, parameter, pipeline, sensor, task

@task
def make(n: int = 4) -> DataFrame:
    return DataFrame({"x": range(n), "word": [f"row{i}-of-the-data" for i in range(n)]})

@task
def total(df: DataFrame, k: int = 1) -> int:
    return int(df["x"].sum()) * k
"""


def source(body: str) -> str:
    return HEAD + body


@pytest.fixture
def run(parse_dag: Any, run_dag: Any, records: Any, store_url: str) -> Any:
    """Parse a file made of HEAD and a body, run its DAG, return what it left."""

    def go(body: str, **conf: Any) -> Any:
        return records(run_dag(parse_dag(source(body)), **conf))

    return go


def test_a_frame_travels_as_a_reference_and_arrives_as_a_frame(run: Any) -> None:
    left = run("""
@pipeline
def p_frame(n: int = 4):
    return total(make(n))
dag = p_frame.as_dag()
""")

    reference = left.xcom("make")
    assert left.xcom("total") == 6
    assert reference["dbnd_artifact"] == 1
    assert reference["type"] == "pandas.DataFrame"
    assert reference["rows"] == 4
    assert reference["schema"] == {"x": "int64", "word": "string"}
    assert len(json.dumps(reference)) < 4096


def test_resolved_data_is_nowhere_in_the_metadata_db(run: Any) -> None:
    left = run("""
@task
def chunks(df: DataFrame) -> list[DataFrame]:
    return [df[:2], df[2:]]

@native
def count(df):
    assert list(df["word"])[0] == "row0-of-the-data"
    return len(df)

@pipeline
def p_nowhere():
    df = make()
    total.expand(df=chunks(df))
    count(df)
    total(df)
dag = p_nowhere.as_dag()
""")

    assert set(left.states().values()) == {"success"}
    assert left.xcom("count") == 4
    assert "of-the-data" not in left.all_text()


def test_resolved_parameters_are_shown_with_their_source(run: Any) -> None:
    left = run(
        """
@pipeline
def p_shown(n: int = 4):
    return total(make(n), k=3)
dag = p_shown.as_dag()
""",
        n=5,
    )

    shown = left.rendered("total")["parameters"]
    assert shown["k"] == {"value": 3, "source": "call"}
    assert shown["df"]["source"] == "task make"
    assert left.rendered("make")["parameters"]["n"] == {
        "value": 5,
        "source": "trigger form or dag_run.conf",
    }


def test_outputs_unpack_by_position_name_and_attribute(run: Any) -> None:
    left = run("""
class Parts(NamedTuple):
    low: DataFrame
    high: DataFrame
    at: int

@task
def split(df: DataFrame, at: int = 1) -> Parts:
    return Parts(df[:at], df[at:], at)

@task
def pair(df: DataFrame) -> tuple[int, str]:
    return len(df), "two"

@task
def table(df: DataFrame) -> dict[str, DataFrame]:
    return {"a": df[:1], "b": df[1:]}

@task
def join(parts: Parts) -> str:
    return f"{len(parts.low)} {len(parts.high)} {parts.at}"

@task
def text(n: int, s: str) -> str:
    return f"{n} {s}"

@pipeline
def p_unpack():
    df = make()
    low, high, at = split(df)
    r = split.override(task_id="again")(df)
    total(low, k=at, task_id="by_position")
    total(r["high"], task_id="by_name")
    total(r.low, task_id="by_attribute")
    join(r)
    n, s = pair(df)
    text(n, s)
    total(table(df)["b"], task_id="by_key")
dag = p_unpack.as_dag()
""")

    assert set(left.states().values()) == {"success"}
    assert [left.xcom(t) for t in ("by_position", "by_name", "by_attribute", "by_key")] == [
        0,
        6,
        0,
        6,
    ]
    assert left.xcom("join") == "1 3 1"
    assert left.xcom("text") == "4 two"
    assert left.xcom("pair", "result_2") == "two"


def test_fan_out_maps_over_references_and_collects(run: Any) -> None:
    left = run(
        """
@task
def chunks(df: DataFrame) -> list[DataFrame]:
    return [df[:1], df[1:3], df[3:]]

@task
def add(values: list[int]) -> int:
    return sum(values)

@task
def glue(parts: list[DataFrame]) -> int:
    return sum(len(p) for p in parts)

@task
def echo(df: DataFrame) -> DataFrame:
    return df

@pipeline
def p_fan():
    parts = chunks(make())
    add(total.partial(k=10).expand(df=parts))
    glue(echo.expand(df=parts))
    add.override(task_id="grid")(total.override(task_id="cells").expand(df=parts, k=[1, 2]))
    total.override(task_id="rows").expand_kwargs([{"df": "nowhere.parquet", "k": 1}][:0] or [])
dag = p_fan.as_dag()
""".replace(
            '    total.override(task_id="rows").expand_kwargs([{"df": "nowhere.parquet", "k": 1}][:0] or [])\n',
            "",
        )
    )

    assert left.xcom("add") == 60
    assert left.xcom("glue") == 4
    assert left.xcom("grid") == 18
    assert [reference["rows"] for reference in left.xcom("chunks")] == [1, 2, 1]
    assert left.rendered("total", 1)["op_kwargs"]["df"]["rows"] == 2


def test_native_tasks_feed_ours_and_ours_feed_native_ones(run: Any) -> None:
    left = run(
        """
@native
def seven():
    return 7

@native
def rows(df, *, extra=0):
    return len(df) + extra

@native
def frame():
    return DataFrame({"x": [1, 2]})

@task
def both(df: DataFrame) -> tuple[DataFrame, int]:
    return df, 5

@native
def unpack(pair):
    assert type(pair) is tuple
    return len(pair[0]) + pair[1]

with DAG("p_mixed") as dag:
    df = make(n=seven())
    rows(df, extra=total(df))
    total(frame(), task_id="of_native_frame")
    unpack(both(df))
    shell = BashOperator(task_id="shell", bash_command="echo {{ macros.dbnd.uri(ti.xcom_pull(task_ids='make')) }}")
    value = BashOperator(task_id="value", bash_command=total(df, task_id="number").map(str) if False else "echo {{ ti.xcom_pull(task_ids='number') }}")
    start = EmptyOperator(task_id="start")
    end = EmptyOperator(task_id="end")
    start >> df >> [shell, end]
    end << value
""".replace('total(df, task_id="number").map(str) if False else ', "").replace(
            "    start = Empty", '    total(df, task_id="number") >> value\n    start = Empty'
        )
    )

    assert set(left.states().values()) == {"success"}
    assert left.xcom("rows") == 28
    assert left.xcom("of_native_frame") == 3
    assert left.xcom("unpack") == 12
    assert left.xcom("shell").endswith(".arrow")
    assert left.xcom("value") == "21"


def test_native_tasks_that_are_mapped_load_each_its_element(run: Any) -> None:
    left = run("""
from airflow.providers.standard.operators.python import PythonOperator

@task
def chunks(df: DataFrame) -> list[DataFrame]:
    return [df[:1], df[1:]]

@task
def by_name(df: DataFrame) -> dict[str, DataFrame]:
    return {"low": df[:1], "high": df[1:]}

@task
def calls(df: DataFrame) -> list[dict[str, DataFrame]]:
    return [{"df": df[:1]}, {"df": df[1:]}]

def seen(df, extra=0):
    assert list(df["word"])[-1].endswith("-of-the-data")
    return len(df) + extra

@native
def item(pair):
    return f"{pair[0]}={seen(pair[1])}"

with DAG("p_native_mapped") as dag:
    df = make()
    native(seen, task_id="each").expand(df=chunks(df))
    native(seen, task_id="both").partial(extra=total(df)).expand(df=chunks(df))
    native(seen, task_id="by_keywords").expand_kwargs(calls(df))
    native(lambda n: n, task_id="mapped").expand(n=chunks(df).map(lambda part: seen(part)))
    native(seen, task_id="instances").expand(df=make.override(task_id="makes").expand(n=[1, 2]))
    item.expand(pair=by_name(df))
    PythonOperator.partial(task_id="classic", python_callable=seen).expand(op_kwargs=calls(df))
""")

    assert set(left.states().values()) == {"success"}
    assert [left.xcom("each", map_index=i) for i in (0, 1)] == [1, 3]
    assert [left.xcom("both", map_index=i) for i in (0, 1)] == [7, 9]
    assert [left.xcom("by_keywords", map_index=i) for i in (0, 1)] == [1, 3]
    assert [left.xcom("mapped", map_index=i) for i in (0, 1)] == [1, 3]
    assert [left.xcom("instances", map_index=i) for i in (0, 1)] == [1, 2]
    assert {left.xcom("item", map_index=i) for i in (0, 1)} == {"low=1", "high=3"}
    assert [left.xcom("classic", map_index=i) for i in (0, 1)] == [1, 3]
    assert "of-the-data" not in left.all_text()


def test_native_tasks_are_given_the_types_that_ours_declare(run: Any) -> None:
    left = run("""
import datetime as dt
from dataclasses import dataclass

@dataclass
class Point:
    at: dt.date

@task
def day() -> dt.date:
    return dt.date(2020, 1, 2)

@task
def names() -> dict[int, str]:
    return {1: "a"}

@task
def points() -> list[Point]:
    return [Point(dt.date(2020, 1, 2))]

@task
def kinds() -> set[str]:
    return {"a"}

@task
def both(df: DataFrame) -> tuple[DataFrame, dt.date]:
    return df, dt.date(2020, 1, 2)

@native
def years(day, names, points, kinds, both):
    return [day.year, names[1], points[0].at.year, sorted(kinds), len(both[0]), both[1].year]

@native
def year(point):
    return point.at.year

with DAG("p_native_types") as dag:
    points = points()
    years(day(), names(), points, kinds(), both(make()))
    year.expand(point=points)
    year.override(task_id="first")(points[0])
""")

    assert left.xcom("years") == [2020, "a", 2020, ["a"], 4, 2020]
    assert left.xcom("year", map_index=0) == left.xcom("first") == 2020


def test_order_operators_work_on_both_sides(parse_dag: Any) -> None:
    dag = parse_dag(
        source("""
with DAG("p_order") as dag:
    a = EmptyOperator(task_id="a")
    b = make()
    c = EmptyOperator(task_id="c")
    d = total(b)
    a >> b >> c
    d << a
    c >> d
""")
    )

    assert dag.get_task("make").upstream_task_ids == {"a"}
    assert dag.get_task("make").downstream_task_ids == {"c", "total"}
    assert dag.get_task("total").upstream_task_ids == {"a", "make", "c"}


def test_dependencies_inside_lists_and_dicts_are_seen(run: Any) -> None:
    left = run("""
@task
def sizes(frames: dict[str, DataFrame], more: list[DataFrame]) -> dict[str, int]:
    return {**{k: len(v) for k, v in frames.items()}, "more": sum(map(len, more))}

@pipeline
def p_nested_arguments():
    a, b = make(1), make(2, task_id="make_b")
    return sizes({"a": a, "b": b}, [a, b, "/nowhere" if False else a])
dag = p_nested_arguments.as_dag()
""")

    assert left.xcom("sizes") == {"a": 1, "b": 2, "more": 4}


def test_a_pipeline_in_a_pipeline_is_a_task_group(run: Any, parse_dag: Any) -> None:
    body = """
@pipeline
def inner(df: DataFrame, k: int = 2):
    return total(df, k=k)

@pipeline
def p_groups():
    df = make()
    a = inner(df)
    b = inner(df, k=3)
    return total(df, k=a)
dag = p_groups.as_dag()
"""
    left = run(body)
    dag = parse_dag(source(body))

    assert left.xcom("inner.total") == 12
    assert left.xcom("inner__1.total") == 18
    assert left.xcom("total") == 72
    assert set(dag.task_group.children) >= {"inner", "inner__1"}


def test_every_base_operator_argument_passes_through(parse_dag: Any) -> None:
    dag = parse_dag(
        source("""
import datetime as dt
@task(retries=3, retry_delay=dt.timedelta(seconds=7), pool="default_pool", queue="big", priority_weight=5,
      trigger_rule="all_done", execution_timeout=dt.timedelta(hours=1), executor="LocalExecutor", owner="me",
      max_active_tis_per_dag=2, task_display_name="Shown", doc_md="doc")
def heavy(n: int = 1) -> int:
    return n

@pipeline
def p_arguments():
    heavy()
    heavy.override(task_id="light", retries=0)()
dag = p_arguments.as_dag(tags=["x"], max_active_runs=1, description="d")
""")
    )

    heavy = dag.get_task("heavy")
    assert (heavy.retries, heavy.retry_delay.total_seconds(), heavy.queue) == (3, 7, "big")
    assert (heavy.trigger_rule, heavy.executor, heavy.owner) == ("all_done", "LocalExecutor", "me")
    assert (heavy.max_active_tis_per_dag, heavy.task_display_name, heavy.doc_md) == (
        2,
        "Shown",
        "doc",
    )
    assert heavy.execution_timeout.total_seconds() == 3600
    assert dag.get_task("light").retries == 0
    assert (dag.tags, dag.max_active_runs, dag.description) == ({"x"}, 1, "d")


def test_a_misspelt_option_is_named(airflow_db: str) -> None:
    from airflow_provider_dbnd import pipeline, task
    from airflow_provider_dbnd.exceptions import SignatureError

    @task(retires=3)
    def slip() -> int:
        return 1

    @pipeline
    def p_slip() -> None:
        slip()

    with pytest.raises(SignatureError, match=r"^task 'slip' .* did you mean 'retries'"):
        p_slip.as_dag().task_dict


def test_every_option_of_airflow_and_of_engines_is_taken_for_itself() -> None:
    from airflow.sdk import BaseOperator, BaseSensorOperator

    from airflow_provider_dbnd.core.options import OPERATOR_OPTIONS, check_spelling
    from airflow_provider_dbnd.engines.registry import engine_types, operator_class
    from airflow_provider_dbnd.engines.selection import options_of
    from airflow_provider_dbnd.exceptions import MissingDependencyError

    known = {n for c in (BaseOperator, BaseSensorOperator) for n in options_of(c)}
    assert known - {"context"} <= OPERATOR_OPTIONS
    for name in engine_types():
        try:
            taken = options_of(operator_class(name))
        except MissingDependencyError:
            continue
        check_spelling("t", dict.fromkeys(taken))


def test_options_of_a_task_come_from_dbnd_toml_too(parse_dag: Any, airflow_db: str) -> None:
    import datetime as dt
    import pathlib

    file = pathlib.Path(airflow_db) / "dbnd.toml"
    file.write_text(
        '[tasks.total]\nretries = 9\nqueue = "slow"\nexecution_timeout = "5m"\nretry_delay = 2\n'
    )
    try:
        dag = parse_dag(
            source("""
@pipeline
def p_options():
    total(make())
dag = p_options.as_dag()
""")
        )
    finally:
        file.unlink()

    task = dag.get_task("total")
    assert (task.retries, task.queue) == (9, "slow")
    assert (task.execution_timeout, task.retry_delay) == (
        dt.timedelta(minutes=5),
        dt.timedelta(seconds=2),
    )


def test_argument_names_that_airflow_gives_a_meaning_are_ordinary_here(run: Any) -> None:
    left = run("""
@task
def odd(params: int = 1, ds: str = "x", run_id: str = "r", task: int = 2, owner: str = "o") -> str:
    return f"{params} {ds} {run_id} {task} {owner}"

@pipeline
def p_odd():
    return odd(params=5, run_id="mine")
dag = p_odd.as_dag(default_args={"owner": "from default_args"})
""")

    assert left.xcom("odd") == "5 x mine 2 o"


def test_variadic_arguments_reach_the_function(run: Any) -> None:
    left = run("""
@task
def join(*parts: int, **named: int) -> str:
    return f"{list(parts)} {named}"

@pipeline
def p_variadic():
    return join(1, total(make()), z=3)
dag = p_variadic.as_dag()
""")

    assert left.xcom("join") == "[1, 6] {'z': 3}"


def test_jinja_in_arguments_is_rendered(run: Any) -> None:
    left = run("""
@task
def echo(text: str) -> str:
    return text

@pipeline
def p_jinja():
    return echo("run {{ run_id }}")
dag = p_jinja.as_dag()
""")

    assert left.xcom("echo") == f"run {left.dag_run.run_id}"


def test_a_task_called_in_a_running_task_runs_there(run: Any) -> None:
    left = run("""
@task
def helper(n: int) -> int:
    return n * 2

@task
def outer_task(n: int = 3) -> int:
    return helper(n) + helper(n=1)

@pipeline
def p_inline():
    return outer_task()
dag = p_inline.as_dag()
""")

    assert left.xcom("outer_task") == 8
    assert list(left.states()) == ["outer_task"]


def test_metrics_and_the_manifest_are_named_in_xcom(run: Any, store_url: str) -> None:
    left = run("""
@task
def measured() -> None:
    log_metric("rows", 3)

@pipeline
def p_metrics():
    measured()
dag = p_metrics.as_dag()
""")

    summary = left.xcom("measured", "dbnd")
    assert summary["metrics"] == {"rows": 3}
    with open(summary["manifest"].removeprefix("file://")) as file:
        manifest = json.load(file)
    assert manifest["status"] == "success"
    assert manifest["identity"]["run_id"] == left.dag_run.run_id


def test_a_failing_function_fails_the_task_and_leaves_a_manifest(run: Any, store_url: str) -> None:
    left = run("""
@task
def broken(n: int = 2) -> int:
    raise ZeroDivisionError("the point")

@pipeline
def p_broken():
    total(make(broken()))
dag = p_broken.as_dag()
""")

    from airflow_provider_dbnd.core.past.history import last_attempts
    from airflow_provider_dbnd.core.storage.store import ArtifactStore

    (manifest,) = last_attempts(ArtifactStore(store_url), "p_broken", left.dag_run.run_id, "broken")
    assert left.states() == {
        "broken": "failed",
        "make": "upstream_failed",
        "total": "upstream_failed",
    }
    assert manifest.status == "failed"
    assert manifest.error["type"] == "ZeroDivisionError"
    assert "the point" in manifest.error["traceback"]


def test_a_skip_is_a_skip(run: Any) -> None:
    left = run(
        """
@task
def maybe() -> int:
    from airflow.sdk.exceptions import AirflowSkipException
    raise AirflowSkipException("not today")

@pipeline
def p_skip():
    maybe()
dag = p_skip.as_dag()
""".replace("airflow.sdk.exceptions", "airflow.providers.common.compat.sdk")
    )

    assert left.states() == {"maybe": "skipped"}


def test_a_sensor_waits_and_passes_its_result_on(run: Any, tmp_path: Any) -> None:
    left = run(f"""
import os
@sensor(poke_interval=0.1, timeout=20, mode="poke")
def arrived(path: str) -> str | None:
    if os.path.exists(path):
        return path
    open(path, "w").write("a,b")

@task
def read(path: str) -> str:
    return open(path).read()

@pipeline
def p_sensor(path: str = {str(tmp_path / "signal")!r}):
    return read(arrived(path))
dag = p_sensor.as_dag()
""")

    assert left.xcom("read") == "a,b"


def test_setup_and_teardown_take_our_tasks(parse_dag: Any) -> None:
    dag = parse_dag(
        source("""
@task
def cluster() -> str:
    return "c"

@task
def remove(name: str) -> None:
    pass

with DAG("p_setup") as dag:
    c = cluster()
    work = make()
    c.as_setup() >> work >> remove(c).as_teardown(setups=c)
""")
    )

    assert dag.get_task("cluster").is_setup
    assert dag.get_task("remove").is_teardown


def test_a_published_output_is_at_its_path_and_in_the_store(run: Any, tmp_path: Any) -> None:
    left = run(f"""
@task(result=output(path={str(tmp_path)!r} + "/out/{{day}}/x.csv"))
def publish(day: str = "d1") -> DataFrame:
    return DataFrame({{"a": [1, 2]}})

@pipeline
def p_publish():
    return publish()
dag = p_publish.as_dag()
""")

    assert (tmp_path / "out/d1/x.csv").read_text().split() == ["a", "1", "2"]
    assert left.xcom("publish", "dbnd")["published"] == {
        "result": f"file://{tmp_path}/out/d1/x.csv"
    }
    assert left.xcom("publish")["uri"].endswith(".csv")


def test_edges_that_cannot_work_are_import_errors(airflow_db: str, store_url: str) -> None:
    import pathlib

    from airflow_provider_dbnd.cli.dags import parse

    path = pathlib.Path(airflow_db) / "bad_edge.py"
    path.write_text(
        source("""
@task
def number(n: float) -> float:
    return n

@pipeline
def p_bad():
    number(make())
dag = p_bad.as_dag()
""")
    )
    try:
        (error,) = parse(str(path)).import_errors.values()
    finally:
        path.unlink()

    assert (
        "make() returns DataFrame, which cannot become parameter 'n' (float) of number()" in error
    )
    assert f"{path}:" in error


def test_the_code_of_a_task_is_kept_where_the_settings_ask_for_it(
    run: Any, store_url: str, configure: Any
) -> None:
    configure("[bundle]\nrecord = true\n")

    left = run("""
@pipeline
def p_kept():
    make()
dag = p_kept.as_dag()
""")

    store = ArtifactStore(store_url)
    (attempt,) = attempts_of_run(store, left.dag_run.dag_id, left.dag_run.run_id)
    assert attempt.status == "success"
    (archive,) = spec_of(store, attempt)["code"]["archives"]
    assert archive["kind"] == "project"
