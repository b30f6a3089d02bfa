"""Tasks in batches of Apache Livy's own server, over the standalone cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_dbnd.core.storage.store import ArtifactStore
from tests.engines.engine_contract import EngineContract
from tests.services.test_engine_spark import (
    FLOW,
    HELPERS,
    PROGRAMS,
    SCRIPT,
    SLOW,
    TOTAL,
    active_applications,
    dbnd_run,
    environment,
    lines,
    outputs,
    programs_left,
    project_of,
    restored,
    runs,
    same_data,
    variable,
    wait_for,
)


def connection(url: str) -> str:
    where = urlsplit(url)
    return json.dumps({"conn_type": "livy", "host": where.hostname, "port": where.port})


@pytest.fixture
def livy(monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's address; connection `livy_here` leads there."""
    url = variable("DBND_TEST_LIVY")
    monkeypatch.setenv("AIRFLOW_CONN_LIVY_HERE", connection(url))
    return url


def table(conf: str = "", **options: Any) -> str:
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    return f"""
[engines.here]
type = "livy"
livy_conn_id = "livy_here"
polling_interval = 1
{lines}
[engines.here.conf]
"spark.ui.enabled" = false
"spark.executor.memory" = "512m"
{conf}
"""


class TestSync(EngineContract):
    @pytest.fixture
    def engine(self, livy: str) -> str:
        return table()

    def test_a_hidden_value_comes_from_the_engines_own_environment(
        self, run: Any, engine_store: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The driver has the environment of Livy's server, so here the value is missing."""
        left = run("contract_hidden")

        log = capsys.readouterr().out
        assert left.states() == {"login": "failed"}
        assert "environment variable DBND__LOGIN__PASSWORD" in log


class TestDeferrable(EngineContract):
    @pytest.fixture
    def engine(self, livy: str) -> str:
        return table(deferrable=True)

    # These are of the driver, which is the same as in the other mode.
    test_a_task_that_skips_itself_is_skipped = None  # type: ignore[assignment]
    test_a_result_of_the_wrong_type_says_so = None  # type: ignore[assignment]
    test_a_hidden_value_comes_from_the_engines_own_environment = None  # type: ignore[assignment]


def batches(livy: str) -> dict[int, Any]:
    with urllib.request.urlopen(f"{livy}/batches?size=1000", timeout=10) as answer:
        return {each["id"]: each for each in json.load(answer)["sessions"]}


def delete(livy: str, batch: int) -> None:
    request = urllib.request.Request(f"{livy}/batches/{batch}", method="DELETE")
    with urllib.request.urlopen(request, timeout=30):
        pass


@pytest.fixture
def flow(
    livy: str, tmp_path: Path, store_url: str, configure: Any, run_source: Any
) -> Callable[..., tuple[str, str]]:
    """``flow(engine, seconds=1)`` runs one task in a batch; returns its state and log."""

    def go(engine: str, *, seconds: int = 1) -> tuple[str, str]:
        configure(engine)
        left, log = run_source(
            SLOW + "\ndag = flow.as_dag()\n", started=str(tmp_path / "started"), seconds=seconds
        )
        return left.states()["slow"], log

    return go


@contextlib.contextmanager
def meanwhile(tmp_path: Path, act: Callable[[], None]) -> Iterator[None]:
    """Do *act* in a thread when the task's function has started."""

    def wait() -> None:
        wait_for(lambda: lines(tmp_path / "started"))
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def test_killing_the_task_deletes_the_batch_and_its_driver(
    flow: Any, livy: str, tmp_path: Path, store_url: str
) -> None:
    before = set(batches(livy))

    def kill() -> None:
        assert "flow.slow" in active_applications()
        os.kill(os.getpid(), signal.SIGTERM)

    with restored(signal.SIGTERM), meanwhile(tmp_path, kill):
        state, _ = flow(table(), seconds=60)

    assert state == "failed"
    assert not set(batches(livy)) - before
    (driver,) = lines(tmp_path / "started")
    wait_for(lambda: not runs(driver), 30)
    names = [each.key for each in ArtifactStore(store_url).list()]
    assert not [each for each in names if each.startswith(("_jobs", "_runs"))]


def test_a_deferred_task_that_is_killed_deletes_the_batch(livy: str, tmp_path: Path) -> None:
    from airflow_provider_dbnd.engines.livy_trigger import BatchTrigger

    program = tmp_path / "sleep.py"
    program.write_text("import time\ntime.sleep(60)\n")
    body = json.dumps({"file": f"file://{program}"}).encode()
    request = urllib.request.Request(
        f"{livy}/batches", body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        batch = json.load(answer)["id"]

    trigger = BatchTrigger(batch_id=batch, spark_params={}, livy_conn_id="livy_here")
    asyncio.run(trigger.on_kill())

    assert batch not in batches(livy)


@pytest.mark.parametrize("finished", [True, False], ids=["batch-ended", "batch-runs-still"])
def test_a_retry_takes_the_batch_of_a_worker_that_died(
    livy: str, tmp_path: Path, finished: bool
) -> None:
    store, started = tmp_path / "store", tmp_path / "started"
    project = project_of(tmp_path, table(), SLOW)
    settings = ("--set", f"started={started}", "--set", "seconds=15")
    command = dbnd_run(project, "r1", *settings)
    env = environment(DBND_STORE=str(store))

    worker = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: lines(started))
    worker.kill()
    worker.communicate()
    if finished:
        wait_for(lambda: list(store.glob("_runs/flow/r1/slow/*/*.json")))
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)

    assert again.returncode == 0, again.stdout + again.stderr
    assert len(lines(started)) == 1
    assert outputs(str(store), "r1") == {"slow": 15}
    assert not list(store.glob("_jobs/**/*.json"))


#: A run of the flow in a process of its own, the same one whenever it is started.
RUN = """
import datetime as dt
import sys
from airflow_provider_dbnd.cli.dags import parse
dag = next(iter(parse(sys.argv[1]).dags.values()))
day = dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)
conf = {"started": sys.argv[2], "seconds": int(sys.argv[3])}
run = dag.test(logical_date=day, run_after=day, run_conf=conf)
print("state:", run.state)
"""


@pytest.fixture
def airflow_run(livy: str, airflow_db: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``airflow_run(engine, seconds)`` is the command and environment of a run in Airflow."""
    file = Path(airflow_db) / "flow_of_its_own.py"

    def command(engine: str, seconds: int) -> dict[str, Any]:
        (tmp_path / "dbnd.toml").write_text(engine)
        file.write_text(SLOW + "\ndag = flow.as_dag()\n")
        env = environment(
            DBND_STORE=str(tmp_path / "store"),
            DBND_CONFIG=str(tmp_path / "dbnd.toml"),
            AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
        )
        arguments = [str(file), str(tmp_path / "started"), str(seconds)]
        return {"args": [sys.executable, "-c", RUN, *arguments], "env": env}

    yield command
    file.unlink()


@pytest.mark.parametrize("deferrable", [False, True])
def test_all_lines_of_the_log_are_shown(airflow_run: Any, deferrable: bool) -> None:
    command = airflow_run(table(deferrable=deferrable), 1)

    done = subprocess.run(**command, capture_output=True, text=True, timeout=300)

    assert "state: success" in done.stdout, done.stdout + done.stderr
    # The provider's trigger brings the first hundred lines, and Spark writes as many by itself.
    assert "Successfully stopped SparkContext" in done.stdout


def test_a_retry_takes_the_batch_of_a_deferred_task(airflow_run: Any, tmp_path: Path) -> None:
    command, started = airflow_run(table(deferrable=True), 15), tmp_path / "started"

    worker = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: lines(started))
    worker.kill()
    worker.communicate()
    again = subprocess.run(**command, capture_output=True, text=True, timeout=300)

    assert "state: success" in again.stdout, again.stdout + again.stderr
    assert len(lines(started)) == 1


def test_livy_behind_a_prefix_is_reached_by_the_trigger_as_well(
    flow: Any, livy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Proxy(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            if not self.path.startswith("/gate/way/batches"):
                self.send_error(404)
                return
            length = int(self.headers.get("Content-Length") or 0)
            request = urllib.request.Request(
                livy + self.path.removeprefix("/gate/way"),
                self.rfile.read(length) if length else None,
                headers={"Content-Type": "application/json"},
                method=self.command,
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                data = answer.read()
                self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        monkeypatch.setenv("AIRFLOW_CONN_LIVY_HERE", connection(f"http://127.0.0.1:{port}"))
        state, _ = flow(table(deferrable=True, livy_endpoint_prefix="gate/way"))
        server.shutdown()

    assert state == "success"


def test_frames_pass_between_pandas_and_spark_over_s3(
    livy: str,
    airflow_db: str,
    parse_dag: Any,
    run_dag: Any,
    records: Any,
    configure: Any,
) -> None:
    import boto3

    # The driver has neither our environment nor our secrets: this S3 is open to all.
    moto, jars = variable("DBND_TEST_S3_MOTO"), variable("DBND_TEST_SPARK_JARS")
    bucket = f"dbnd-livy-{uuid.uuid4().hex[:8]}"
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=bucket)
    all_may = {"Effect": "Allow", "Principal": "*", "Action": "s3:*"}
    there = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    policy = {"Version": "2012-10-17", "Statement": [{**all_may, "Resource": there}]}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    hadoop = f"""
"spark.driver.extraClassPath" = "{jars}/*"
"spark.executor.extraClassPath" = "{jars}/*"
"spark.hadoop.fs.s3a.endpoint" = "{moto}"
"spark.hadoop.fs.s3a.path.style.access" = true
"spark.hadoop.fs.s3a.aws.credentials.provider" = "org.apache.hadoop.fs.s3a.AnonymousAWSCredentialsProvider"
"""
    configure(
        f'store = "s3://{bucket}/store"\n{table(hadoop)}\n'
        f'[storage_options.s3]\nanon = true\nendpoint_url = "{moto}"\n'
    )
    helpers = Path(airflow_db) / "flow_helpers.py"
    helpers.write_text(HELPERS)

    try:
        left = records(run_dag(parse_dag(FLOW + "\ndag = flow.as_dag()\n")))
    finally:
        helpers.unlink()

    assert left.xcom("total") == left.xcom("total_of_pandas") == TOTAL
    names = ("on_spark", "in_pandas")
    assert same_data({name: left.xcom(name) for name in names})


#: The script of the tests of spark-submit, as a class in a jar.
SPLIT = """
import org.apache.spark.sql.SparkSession

object Split {
  def main(args: Array[String]): Unit = {
    val frame = SparkSession.builder.getOrCreate().read.parquet(args(0))
    frame.where("x >= " + args(1)).write.parquet(args(2))
    frame.where("x < " + args(1)).write.parquet(args(3))
  }
}
"""


def test_a_jar_is_given_artifacts_as_paths_and_leaves_artifacts(livy: str, tmp_path: Path) -> None:
    declared = PROGRAMS.replace('"split.py",', '"split.jar",\n    java_class="Split",')
    project, store = project_of(tmp_path, table(), declared), tmp_path / "store"
    venv = Path(variable("DBND_TEST_SPARK_VENV"))
    jars = next(venv.glob("lib/python3*/site-packages/pyspark/jars"))
    (tmp_path / "Split.scala").write_text(SPLIT)
    compiler = ["java", "-cp", f"{jars}/*", "scala.tools.nsc.Main", "-usejavacp"]
    subprocess.run(
        [*compiler, "-d", str(project / "flows" / "split.jar"), str(tmp_path / "Split.scala")],
        check=True,
        timeout=300,
    )

    done = subprocess.run(
        dbnd_run(project, "r1"),
        env=environment(DBND_STORE=str(store)),
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    programs_left(store)
    assert not list(store.glob(".staging/*"))


def test_a_retry_takes_the_program_of_a_worker_that_died(livy: str, tmp_path: Path) -> None:
    project, store = project_of(tmp_path, table(), PROGRAMS), tmp_path / "store"
    started = tmp_path / "started"
    wait = f"import time\nopen({str(started)!r}, 'a').write('started\\n')\ntime.sleep(10)\n"
    (project / "flows" / "split.py").write_text(wait + SCRIPT)
    command, env = dbnd_run(project, "r1"), environment(DBND_STORE=str(store))

    worker = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: lines(started))
    worker.kill()
    worker.communicate()
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)

    assert again.returncode == 0, again.stdout + again.stderr
    assert len(lines(started)) == 1
    programs_left(store)
    assert not list(store.glob(".staging/*"))
    assert not list(store.glob("_jobs/**/*.json"))


def test_a_program_does_not_defer_since_the_worker_takes_its_outputs(
    livy: str,
    airflow_db: str,
    store_url: str,
    parse_dag: Any,
    run_dag: Any,
    records: Any,
    configure: Any,
) -> None:
    configure(table(deferrable=True))
    script = Path(airflow_db) / "split.py"
    script.write_text(SCRIPT)

    try:
        left = records(run_dag(parse_dag(PROGRAMS + "\ndag = flow.as_dag()\n")))
    finally:
        script.unlink()

    assert set(left.states().values()) == {"success"}
    assert left.xcom("count") == [100, 900]


# --- what can be wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_batch_that_livy_forgot_is_a_lost_job(
    flow: Any, livy: str, tmp_path: Path, deferrable: bool
) -> None:
    before = set(batches(livy))

    def lose() -> None:
        delete(livy, max(set(batches(livy)) - before))

    with meanwhile(tmp_path, lose):
        state, log = flow(table(deferrable=deferrable), seconds=60)

    assert state == "failed"
    assert "engine 'here' (livy), job batch " in log
    assert "does not know the batch any more" in log


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_batch_that_dies_is_told_of_with_its_last_lines(flow: Any, deferrable: bool) -> None:
    state, log = flow(table('"spark.driver.memory" = "many"\n', deferrable=deferrable))

    assert state == "failed"
    assert "engine 'here' (livy), job batch " in log
    assert "state dead, application None" in log
    assert "many" in log.rpartition("last lines:")[2]


def test_a_server_that_is_not_there_is_named(flow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LIVY_HERE", connection("http://127.0.0.1:9"))

    state, log = flow(table())

    assert state == "failed"
    assert "engine 'here' (livy), job not started" in log
    assert "Livy at http://127.0.0.1:9 (connection 'livy_here') took no batch" in log


def test_a_connection_that_is_not_defined_is_named(
    flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_LIVY_HERE")

    state, log = flow(table())

    assert state == "failed"
    assert "(connection 'livy_here') took no batch" in log
    assert "isn't defined" in log
