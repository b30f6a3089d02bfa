"""Programs that are none of our functions, run by a spark-submit that needs no Spark."""

from __future__ import annotations

import datetime as dt
import filecmp
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airflow_provider_dbnd import Artifact, pipeline, spark_job, task
from airflow_provider_dbnd.core.past.history import attempts_of_run
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.spark_program import stored_program
from airflow_provider_dbnd.exceptions import EngineError, SignatureError
from tests.engines.test_spark_engine import SparkSubmit

#: Reads no frames: it notes its arguments and writes two files as Spark names them.
PROGRAM = """
import json, os, sys
import pyarrow as pa
import pyarrow.parquet as pq

to = sys.argv[-1].removeprefix("file://")
os.makedirs(to)
for number in range(2):
    table = pa.table({"arg": [f"{number} {each}" for each in sys.argv[1:]]})
    pq.write_table(table, f"{to}/part-0000{number}-x-c000.snappy.parquet")
open(f"{to}/_SUCCESS", "w").close()
"""

SOURCE = """
import datetime as dt
import pandas as pd
from airflow_provider_dbnd import Artifact, output, pipeline, spark_job, task

@task(result={RESULT})
def orders() -> pd.DataFrame:
    return pd.DataFrame({"x": [1, 2]})

@spark_job(
    "program.py",
    args=["--in", "{rows}", "{others}", "--day={day}", "{names}", "--fast={fast}", "{result}"],
    engine="here",
)
def program(
    rows: pd.DataFrame,
    others: list[Artifact],
    day: dt.date = dt.date(2026, 1, 2),
    names: list[str] = ["a", "b"],
    fast: bool = True,
) -> Artifact: ...

@task
def read(rows: pd.DataFrame) -> list[str]:
    return [rows["arg"].iloc[0], rows["arg"].iloc[len(rows) // 2], str(len(rows))]

@pipeline
def flow(uri: str = ""):
    rows = orders()
    read(program(uri or rows, [rows, rows]))

dag = flow.as_dag()
"""


@pytest.fixture
def spark_submit(tmp_path: Path) -> SparkSubmit:
    return SparkSubmit(tmp_path)


@pytest.fixture
def flow(
    spark_submit: SparkSubmit,
    airflow_db: str,
    store_url: str,
    configure: Any,
    run_source: Any,
) -> Any:
    """``flow(**conf)`` runs the pipeline; returns what it left, and the log."""
    program = Path(airflow_db) / "program.py"

    def go(
        text: str = PROGRAM, result: str = "output.parquet", engine: str = "", **conf: Any
    ) -> tuple[Any, str]:
        program.write_text(text)
        configure(
            engine
            or f'[engines.here]\ntype = "spark"\nspark_binary = "{spark_submit.path}"\n'
            'master = "local[1]"\n'
        )
        return run_source(SOURCE.replace("{RESULT}", result), **conf)

    yield go
    program.unlink()


def test_arguments_are_paths_and_values_and_what_is_written_is_an_artifact(
    flow: Callable[..., Any], spark_submit: SparkSubmit, store_url: str
) -> None:
    left, log = flow()

    assert set(left.states().values()) == {"success"}, log
    (call,) = spark_submit.calls()
    rows = left.xcom("orders")["uri"]
    program = next(i for i, each in enumerate(call) if each.endswith("/program.py"))
    given = call[program + 1 :]
    assert given[:-1] == ["--in", rows, rows, rows, "--day=2026-01-02", "a", "b", "--fast=true"]
    assert given[-1].startswith(f"file://{store_url}/.staging/")
    # The parts are one frame, in their order.
    assert left.xcom("read") == ["0 --in", "1 --in", str(2 * len(given))]
    made = left.xcom("program")
    assert made["uri"].startswith(f"file://{store_url}/flow/program/result/")
    assert made["rows"] == 2 * len(given)
    assert not list(Path(store_url).glob(".staging/*"))


def test_the_manifest_has_program_parameters_and_inputs(
    flow: Callable[..., Any], store_url: str
) -> None:
    left, _ = flow()

    found = attempts_of_run(ArtifactStore(store_url), "flow", left.dag_run.run_id)
    manifest = next(each for each in found if each.identity.task_id == "program")
    assert manifest.status == "success"
    assert manifest.function["name"] == "program"
    assert manifest.parameters["application"].value == "program.py"
    assert manifest.parameters["day"].value == "2026-01-02"
    assert [each["uri"] for each in manifest.inputs["rows"]] == [left.xcom("orders")["uri"]]
    assert len(manifest.inputs["others"]) == 2
    assert manifest.engine["name"] == "here"


def test_a_uri_is_given_as_it_is_and_recorded(
    flow: Callable[..., Any],
    spark_submit: SparkSubmit,
    tmp_path: Path,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pd.DataFrame({"x": [3]}).to_parquet(tmp_path / "mine.parquet")
    monkeypatch.setenv("DBND__FLOW__URI", str(tmp_path / "mine.parquet"))

    left, log = flow()

    assert left.states()["program"] == "success", log
    assert spark_submit.calls()[0].count(f"file://{tmp_path}/mine.parquet") == 1
    found = attempts_of_run(ArtifactStore(store_url), "flow", left.dag_run.run_id)
    manifest = next(each for each in found if each.identity.task_id == "program")
    assert manifest.inputs["rows"][0]["uri"] == f"file://{tmp_path}/mine.parquet"


def test_an_arrow_file_is_refused_with_the_remedy(
    flow: Callable[..., Any], spark_submit: SparkSubmit
) -> None:
    left, log = flow(result="output.arrow")

    assert left.states()["program"] == "failed"
    assert "Declare output.parquet for the task that makes it" in log
    assert spark_submit.calls() == []


def test_a_program_that_writes_nothing_is_told_so(flow: Callable[..., Any], store_url: str) -> None:
    left, log = flow(text="")

    assert left.states()["program"] == "failed"
    assert "the program ended well, but wrote nothing to output 'result'" in log
    assert not list(Path(store_url).glob("_jobs/**/*.json"))


def test_a_program_that_is_not_there_is_named(
    flow: Callable[..., Any], spark_submit: SparkSubmit
) -> None:
    left, log = flow(**{"program.application": "no-program.py"})

    assert left.states()["program"] == "failed"
    assert "application 'no-program.py': there is no file" in log
    assert spark_submit.calls() == []


def test_another_kind_of_engine_says_that_it_cannot(flow: Callable[..., Any]) -> None:
    left, log = flow(engine='[engines.here]\ntype = "local"\n')

    assert left.states()["program"] == "failed"
    assert "Spark job 'program' runs on an engine of type spark or livy" in log


def test_in_cluster_mode_the_program_is_fetched_from_the_store(
    flow: Callable[..., Any], spark_submit: SparkSubmit, store_url: str
) -> None:
    engine = (
        f'[engines.here]\ntype = "spark"\nspark_binary = "{spark_submit.path}"\n'
        'master = "yarn"\ndeploy_mode = "cluster"\n'
    )

    left, log = flow(engine=engine)

    assert left.states()["program"] == "success", log
    (call,) = spark_submit.calls()
    (program,) = [each for each in call if each.endswith("-program.py") or "/program.py" in each]
    assert program.startswith(f"file://{store_url}/_code/")


#: Cleans up as if the copy of this program had been in the store for ten days.
CLEANS_UP = """
import os, time
from pathlib import Path
from airflow_provider_dbnd import clean_up

old = time.time() - 10 * 86400
os.utime(__file__, (old, old))
clean_up(keep_days=5, delete=True, store=str(Path(__file__).parents[2]))
assert os.path.exists(__file__)
"""


def test_a_clean_up_leaves_the_program_of_a_job_that_is_under_way(
    flow: Callable[..., Any], spark_submit: SparkSubmit
) -> None:
    engine = (
        f'[engines.here]\ntype = "spark"\nspark_binary = "{spark_submit.path}"\n'
        'master = "yarn"\ndeploy_mode = "cluster"\n'
    )

    left, log = flow(text=CLEANS_UP + PROGRAM, engine=engine)

    assert left.states()["program"] == "success", log


# --- declarations ---------------------------------------------------------------------------------


def test_a_call_outside_a_pipeline_says_where_it_runs() -> None:
    @spark_job("j.jar", args=["{result}"])
    def job() -> Artifact: ...

    with pytest.raises(EngineError, match="'job' runs on an engine of type spark or livy"):
        job()


@pytest.mark.parametrize(
    ("args", "returns", "message"),
    [
        (["{day}", "{dya}", "{result}"], Artifact, "args name 'dya', which is neither"),
        (["{day}"], Artifact, r"where to write output 'result'. Add '\{result\}' to args"),
        (["{result}"], int, "output 'result' is int, and a Spark job leaves parquet"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(
    args: list[str], returns: Any, message: str
) -> None:
    def job(day: dt.date) -> Any: ...

    job.__annotations__["return"] = returns

    with pytest.raises(SignatureError, match=message):
        spark_job("j.jar", args=args)(job)


def test_a_parameter_may_not_have_a_name_of_the_program() -> None:
    def job(args: str) -> Artifact: ...

    with pytest.raises(SignatureError, match="parameter 'args' is the program's own"):
        spark_job("j.jar", args=["{result}"])(job)


def test_its_result_may_become_any_frame() -> None:
    @spark_job("j.jar", args=["{result}"], engine="here")
    def job() -> Artifact: ...

    @task
    def read(rows: pd.DataFrame) -> int:
        return len(rows)

    @pipeline
    def flow() -> None:
        read(job())

    from airflow_provider_dbnd.core.build import build_graph
    from airflow_provider_dbnd.core.resolution import Sources
    from airflow_provider_dbnd.core.settings import load_settings

    sources = Sources(settings=load_settings("/nowhere"), root="flow")
    graph = build_graph(flow.definition, sources)
    assert list(graph.nodes) == ["job", "read"]


def test_a_program_goes_to_the_store_as_it_is_whatever_its_size(tmp_path: Path) -> None:
    program, store = tmp_path / "program.jar", ArtifactStore(str(tmp_path / "store"))
    program.write_bytes(b"jar" + bytes(64 * 2**20))

    tracemalloc.start()
    uri = stored_program(str(program), store)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 8 * 2**20
    assert filecmp.cmp(program, uri.removeprefix("file://"), shallow=False)
    assert stored_program(str(program), store) == uri
    program.write_bytes(b"another jar")
    assert stored_program(str(program), store) != uri
