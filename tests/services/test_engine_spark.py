"""Tasks in Spark drivers, by spark-submit: in one process, and on a standalone cluster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.past.history import attempts_of_run
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from tests.engines.engine_contract import PASSWORD, EngineContract

ROOT = Path(__file__).parents[2]


def variable(name: str) -> str:
    """Return what `.ci/services up spark` says, or skip; with all servers up, none may be missing."""
    if name not in os.environ and not os.environ.get("DBND_TEST_SERVICES"):
        pytest.skip(f"{name} is not set: run .ci/services up spark and export its env file")
    return os.environ[name]


def table(master: str, name: str = "here", **conf: str) -> str:
    """An engine on *master*."""
    secret, value = PASSWORD
    venv = variable("DBND_TEST_SPARK_VENV")
    lines = "".join(f'"{key}" = "{text}"\n' for key, text in conf.items())
    return f"""
[engines.{name}]
type = "spark"
master = "{master}"
spark_binary = "{venv}/bin/spark-submit"
python = "{venv}/bin/python"
env_vars = {{ {secret} = "{value}" }}

[engines.{name}.conf]
"spark.ui.enabled" = false
"spark.executor.memory" = "512m"
{lines}
"""


class TestStandalone(EngineContract):
    @pytest.fixture
    def engine(self) -> str:
        return table(variable("DBND_TEST_SPARK_MASTER"))


# --- frames ---------------------------------------------------------------------------------------

HELPERS = """
def twice(x: int) -> int:
    return 2 * x
"""

#: A Spark task between two of pandas, and the same in pandas.
FLOW = """
import pandas as pd
import pyspark.sql
from pyspark.sql import SparkSession, functions as F

from airflow_provider_dbnd import log_metric, pipeline, task
from flow_helpers import twice

OFFSET = 1000


def moved(x):
    return OFFSET + x


@task
def orders(n: int = 1000) -> pd.DataFrame:
    return pd.DataFrame({"x": range(n), "city": [f"city {i % 7}" for i in range(n)]})


@task(engine="here")
def on_spark(rows: pyspark.sql.DataFrame, spark: SparkSession) -> pyspark.sql.DataFrame:
    log_metric("partitions", spark.sparkContext.defaultParallelism)
    return rows.withColumn("y", F.udf(twice, "long")("x")).withColumn("z", F.udf(moved, "long")("x"))


@task
def in_pandas(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(y=rows["x"].map(twice), z=rows["x"].map(moved))


@task
def total(rows: pd.DataFrame) -> int:
    return int(rows["y"].sum() + rows["z"].sum())


@pipeline
def flow(n: int = 1000):
    rows = orders(n)
    total(on_spark(rows))
    total(in_pandas(rows), task_id="total_of_pandas")
"""

#: 2 * sum(range(1000)) + sum(range(1000)) + 1000 * 1000
TOTAL = 2_498_500


def outputs(store: str, run_id: str) -> dict[str, Any]:
    """Return the first output of each task of a run of the flow."""
    attempts = list(attempts_of_run(ArtifactStore(store), "flow", run_id))
    assert {m.status for m in attempts} == {"success"}
    return {m.identity.task_id: next(iter(m.outputs.values())) for m in attempts}


def same_data(left: dict[str, Any]) -> bool:
    """Tell whether Spark and pandas made the same data, by what was recorded of it."""
    spark, pandas = (Artifact.from_json(left[name]) for name in ("on_spark", "in_pandas"))
    return (spark.digest, spark.rows, spark.schema) == (pandas.digest, pandas.rows, pandas.schema)


def project_of(tmp_path: Path, settings: str, flow: str) -> Path:
    """Write a project whose flow is in a folder of its own, with a module of helpers beside it."""
    folder = tmp_path / "project" / "flows"
    folder.mkdir(parents=True)
    (folder.parent / "dbnd.toml").write_text(settings)
    (folder / "flow.py").write_text(flow)
    (folder / "flow_helpers.py").write_text(HELPERS)
    return folder.parent


def dbnd_run(project: Path, run_id: str, *more: str) -> list[str]:
    target = str(project / "flows" / "flow.py")
    command = [sys.executable, "-m", "airflow_provider_dbnd.cli", "run", target]
    return [*command, "--run-id", run_id, *more]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def test_frames_pass_between_pandas_and_spark_outside_airflow_on_a_local_disk(
    tmp_path: Path,
) -> None:
    # The helpers are beside the file, but not at the top of the project: executors import them by
    # their bare name all the same.
    project, store = project_of(tmp_path, table("local[2]"), FLOW), str(tmp_path / "store")

    command = dbnd_run(project, "r1")
    done = subprocess.run(
        command, env=environment(DBND_STORE=store), capture_output=True, text=True, timeout=300
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    left = outputs(store, "r1")
    assert left["total"] == left["total_of_pandas"] == TOTAL
    assert same_data(left)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of moto, which the environment gives the credentials of."""
    import boto3

    url, name = variable("DBND_TEST_S3_MOTO"), f"dbnd-spark-{uuid.uuid4().hex[:8]}"
    for key, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def without_libraries(tmp_path: Path) -> str:
    """A folder that makes the libraries of this package fail to import."""
    folder = tmp_path / "without"
    folder.mkdir()
    for name in ("pydantic", "blake3", "xxhash", "fsspec"):
        (folder / f"{name}.py").write_text("raise ImportError('not on executors')")
    return str(folder)


def test_frames_pass_between_pandas_and_spark_on_a_cluster_and_s3(
    bucket: str,
    without_libraries: str,
    airflow_db: str,
    parse_dag: Any,
    run_dag: Any,
    records: Any,
    configure: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jars = sorted(Path(variable("DBND_TEST_SPARK_JARS")).glob("*.jar"))
    configure(
        table(
            variable("DBND_TEST_SPARK_MASTER"),
            **{
                "spark.jars": ",".join(map(str, jars)),
                # Executors need Python and Spark, and nothing of ours installed.
                "spark.executorEnv.PYTHONPATH": without_libraries,
            },
        )
    )
    store = f"s3://{bucket}/store"
    monkeypatch.setenv("DBND_STORE", store)
    helpers = Path(airflow_db) / "flow_helpers.py"
    helpers.write_text(HELPERS)
    source = FLOW + "\ndag = flow.as_dag()\n"

    try:
        left = records(run_dag(parse_dag(source)))
    finally:
        helpers.unlink()

    assert set(left.states().values()) == {"success"}
    assert left.xcom("total") == left.xcom("total_of_pandas") == TOTAL
    assert left.xcom("on_spark", "dbnd")["metrics"]["partitions"] >= 1
    assert left.xcom("on_spark", "dbnd")["engine"]["job"].startswith("app-")
    assert same_data(outputs(store, left.dag_run.run_id))


# --- killing, and workers that die ----------------------------------------------------------------

SLOW = """
import os
import time
from pathlib import Path

from airflow_provider_dbnd import pipeline, task


@task(engine="here")
def slow(started: str, seconds: int = 60) -> int:
    with open(started, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(seconds)
    return seconds


@pipeline
def flow(started: str, seconds: int = 60):
    slow(started, seconds)
"""


def wait_for(met: Callable[[], Any], seconds: float = 120) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := met():
            return found
        time.sleep(0.2)
    raise TimeoutError(f"not within {seconds} s")


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def runs(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


def active_applications() -> set[str]:
    """Names of the applications that run, by the master's own page."""
    host = urlsplit(variable("DBND_TEST_SPARK_MASTER")).hostname
    port = os.environ.get("DBND_TEST_SPARK_UI_PORT", "18080")
    with urllib.request.urlopen(f"http://{host}:{port}/json/", timeout=10) as answer:
        return {each["name"] for each in json.load(answer)["activeapps"]}


@contextlib.contextmanager
def restored(number: int) -> Iterator[None]:
    before = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_killing_the_task_kills_the_application_and_its_driver(
    tmp_path: Path,
    store_url: str,
    parse_dag: Any,
    run_dag: Any,
    records: Any,
    configure: Any,
) -> None:
    configure(table(variable("DBND_TEST_SPARK_MASTER")))
    started = tmp_path / "started"
    name = f"killed_{uuid.uuid4().hex[:6]}"
    source = SLOW.replace("def flow(", f"def {name}(") + f"\ndag = {name}.as_dag()\n"
    seen: list[set[str]] = []

    def kill() -> None:
        wait_for(lambda: lines(started))
        seen.append(active_applications())
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=kill)
    with restored(signal.SIGTERM):
        thread.start()
        left = records(run_dag(parse_dag(source), started=str(started)))
        thread.join()

    assert left.states() == {"slow": "failed"}
    assert f"{name}.slow" in seen[0]
    wait_for(lambda: f"{name}.slow" not in active_applications(), 30)
    (driver,) = lines(started)
    wait_for(lambda: not runs(driver), 30)
    names = [each.key for each in ArtifactStore(store_url).list()]
    assert not [each for each in names if each.startswith(("_jobs", "_runs"))]


def test_a_result_that_came_while_no_worker_was_there_is_taken_and_nothing_runs_twice(
    tmp_path: Path,
) -> None:
    store, started = tmp_path / "store", tmp_path / "started"
    project = project_of(tmp_path, table("local[1]"), SLOW)
    settings = ("--set", f"started={started}", "--set", "seconds=5")
    command = dbnd_run(project, "r1", *settings)
    env = environment(DBND_STORE=str(store))

    worker = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: lines(started))
    worker.kill()
    worker.communicate()
    wait_for(lambda: list(store.glob("_runs/flow/r1/slow/*/*.json")))
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)

    assert again.returncode == 0, again.stdout + again.stderr
    assert len(lines(started)) == 1
    assert outputs(str(store), "r1") == {"slow": 5}
    assert not list(store.glob("_jobs/**/*.json"))


# --- what can be wrong ----------------------------------------------------------------------------


@pytest.fixture
def failing(tmp_path: Path, store_url: str, configure: Any, run_source: Any) -> Callable[..., str]:
    """``failing(engine)`` runs a task on the engine and returns the log of its failure."""

    def go(engine: str) -> str:
        configure(engine)
        left, log = run_source(
            SLOW + "\ndag = flow.as_dag()\n", started=str(tmp_path / "started"), seconds=0
        )
        assert left.states() == {"slow": "failed"}
        assert not (tmp_path / "started").exists()
        return log

    return go


def test_a_master_that_is_not_there_is_named(failing: Any) -> None:
    log = failing(table("spark://127.0.0.1:9"))

    assert "engine 'here' (spark), job process" in log
    assert "Spark did not start: the master spark://127.0.0.1:9 does not answer" in log


def test_a_worker_without_java_is_told_so(failing: Any) -> None:
    engine = table("local[1]").replace("env_vars = {", 'env_vars = { JAVA_HOME = "/nowhere",')

    assert "Spark needs Java, and the worker has none" in failing(engine)


def test_a_python_that_is_not_there_is_named(failing: Any) -> None:
    venv = variable("DBND_TEST_SPARK_VENV")
    engine = table("local[1]").replace(f'python = "{venv}/bin/python"', 'python = "/no/python"')
    home = next(Path(venv).glob("lib/python3*/site-packages/pyspark"))
    engine = engine.replace("env_vars = {", f'env_vars = {{ SPARK_HOME = "{home}",')

    assert "the Python of the driver, /no/python, is not on this machine" in failing(engine)


def test_a_worker_without_spark_submit_is_told_so(failing: Any) -> None:
    engine = table("local[1]").replace("/bin/spark-submit", "/bin/no-spark-submit")

    assert "no-spark-submit' is not on the worker's PATH" in failing(engine)


# --- programs that are none of our functions ------------------------------------------------------

#: A script that knows nothing of this package.
SCRIPT = """
import sys
from pyspark.sql import SparkSession, functions as F

rows, least, big, rest = sys.argv[1:]
spark = SparkSession.builder.getOrCreate()
frame = spark.read.parquet(rows)
frame.where(F.col("x") >= int(least)).write.parquet(big)
frame.where(F.col("x") < int(least)).write.parquet(rest)
"""

PROGRAMS = """
import pandas as pd

from airflow_provider_dbnd import output, pipeline, spark_job, task


@task(result=output.parquet)
def orders(n: int = 1000) -> pd.DataFrame:
    return pd.DataFrame({"x": range(n)})


@spark_job(
    "split.py",
    args=["{rows}", "{least}", "{big}", "{rest}"],
    result="big,rest",
    engine="here",
)
def split(rows: pd.DataFrame, least: int = 900) -> tuple[pd.DataFrame, pd.DataFrame]: ...


@task
def count(rows: pd.DataFrame) -> list[int]:
    return [len(rows), int(rows["x"].min())]


@pipeline
def flow(n: int = 1000):
    big, rest = split(orders(n))
    count(big)
    count(rest, task_id="count_of_rest")
"""


def programs_left(store: Path) -> None:
    """Check what a run of the programs left in the store."""
    left = outputs(str(store), "r1")
    assert left["count"] == [100, 900]
    assert left["count_of_rest"] == [900, 0]
    assert left["split"]["uri"].startswith(f"file://{store}/flow/split/big/")
    assert left["split"]["rows"] == 100


def test_a_script_is_given_artifacts_as_paths_and_leaves_artifacts(tmp_path: Path) -> None:
    project, store = project_of(tmp_path, table("local[1]"), PROGRAMS), tmp_path / "store"
    (project / "flows" / "split.py").write_text(SCRIPT)

    done = subprocess.run(
        dbnd_run(project, "r1"),
        env=environment(DBND_STORE=str(store)),
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    programs_left(store)
    manifest = attempt(str(store), "split")
    assert manifest.parameters["application"].value == "split.py"
    assert manifest.inputs["rows"][0]["format"] == "parquet"
    assert manifest.engine["type"] == "spark"
    assert not list(store.glob(".staging/*"))
    assert not list(store.glob("_jobs/**/*.json"))


def attempt(store: str, task_id: str) -> Any:
    found = attempts_of_run(ArtifactStore(store), "flow", "r1")
    return next(each for each in found if each.identity.task_id == task_id)


def test_a_script_that_fails_is_told_of_with_its_last_lines(tmp_path: Path) -> None:
    project, store = project_of(tmp_path, table("local[1]"), PROGRAMS), tmp_path / "store"
    (project / "flows" / "split.py").write_text("raise ValueError('not today')")

    done = subprocess.run(
        dbnd_run(project, "r1"),
        env=environment(DBND_STORE=str(store)),
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 1
    assert "engine 'here' (spark), job process" in done.stderr
    assert "ValueError: not today" in done.stderr
    assert attempt(str(store), "split").status == "failed"
    assert not list(store.glob(".staging/*"))
