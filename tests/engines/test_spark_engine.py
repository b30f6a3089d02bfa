"""What the Spark engines make of their options, without any Spark: a spark-submit that runs Python."""

from __future__ import annotations

import json
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd import task
from airflow_provider_dbnd.core.settings import load_settings
from airflow_provider_dbnd.engines.selection import select_engine
from airflow_provider_dbnd.engines.spark_options import as_list, as_text, conf
from airflow_provider_dbnd.exceptions import ConfigurationError

#: Notes its arguments, runs the program with the rest, and says what *lines* are.
SPARK_SUBMIT = """#!{python}
import json, os, subprocess, sys
with open({notes!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print({lines!r}, flush=True)
if {code}:
    sys.exit({code})
program = next(i for i, each in enumerate(sys.argv) if each.endswith(".py"))
sys.exit(subprocess.call([sys.executable, sys.argv[program].removeprefix("file://"), *sys.argv[program + 1:]]))
"""

SOURCE = """
from airflow_provider_dbnd import pipeline, task

@task(engine="here", spark={OPTIONS})
def count(n: int = 3) -> int:
    return n + 1

@pipeline
def counting():
    count()

dag = counting.as_dag()
"""


class SparkSubmit:
    """A stand-in for spark-submit."""

    def __init__(self, folder: Path) -> None:
        self.path, self._notes = folder / "spark-submit", folder / "calls.jsonl"
        self.says()

    def says(self, lines: str = "", code: int = 0) -> None:
        text = SPARK_SUBMIT.format(
            python=sys.executable, notes=str(self._notes), lines=lines, code=code
        )
        self.path.write_text(text)
        self.path.chmod(self.path.stat().st_mode | stat.S_IEXEC)

    def calls(self) -> list[list[str]]:
        if not self._notes.exists():
            return []
        return [json.loads(line) for line in self._notes.read_text().splitlines()]

    def option(self, name: str) -> list[str]:
        """Return the values of an option of the only call."""
        (call,) = self.calls()
        return [call[i + 1] for i, each in enumerate(call) if each == f"--{name}"]


@pytest.fixture
def spark_submit(tmp_path: Path) -> SparkSubmit:
    return SparkSubmit(tmp_path)


@pytest.fixture
def count(
    spark_submit: SparkSubmit, store_url: str, configure: Any, run_source: Any
) -> Callable[..., tuple[str, str]]:
    """``count(toml, **options)`` runs one task; returns its state and log."""

    def go(toml: str, **options: Any) -> tuple[str, str]:
        configure(f'[engines.here]\ntype = "spark"\nspark_binary = "{spark_submit.path}"\n{toml}')
        left, log = run_source(SOURCE.replace("{OPTIONS}", repr(options)))
        return left.states()["count"], log

    return go


def test_the_options_of_engine_and_task_reach_spark_submit(
    count: Any, spark_submit: SparkSubmit
) -> None:
    state, _ = count(
        'master = "local[2]"\njars = ["a.jar", "b.jar"]\npackages = "g:p:1"\n'
        'driver_memory = "2g"\npython = "/usr/bin/python3"\n'
        '[engines.here.conf]\nspark.sql.shuffle.partitions = 8\n"spark.speculation" = true\n',
        jars=["c.jar"],
        conf={"spark.executor.instances": 2},
        executor_memory="3g",
        num_executors=2,
    )

    assert state == "success"
    assert spark_submit.option("master") == ["local[2]"]
    assert spark_submit.option("jars") == ["a.jar,b.jar,c.jar"]
    assert spark_submit.option("packages") == ["g:p:1"]
    assert spark_submit.option("driver-memory") == ["2g"]
    assert spark_submit.option("executor-memory") == ["3g"]
    assert spark_submit.option("num-executors") == ["2"]
    assert spark_submit.option("name") == ["counting.count"]
    assert set(spark_submit.option("conf")) == {
        "spark.sql.shuffle.partitions=8",
        "spark.speculation=true",
        "spark.executor.instances=2",
        "spark.pyspark.python=/usr/bin/python3",
    }


def test_a_connection_says_master_and_mode_where_no_option_does(
    count: Any, spark_submit: SparkSubmit, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {
        "conn_type": "spark",
        "host": "yarn",
        "extra": {"deploy-mode": "cluster", "queue": "q"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_OUR_YARN", json.dumps(value))

    state, _ = count('conn_id = "our_yarn"')

    assert state == "success"
    assert spark_submit.option("master") == ["yarn"]
    assert spark_submit.option("deploy-mode") == ["cluster"]
    assert spark_submit.option("queue") == ["q"]


def test_the_program_is_on_the_worker_in_client_mode_and_in_the_store_in_cluster_mode(
    count: Any, spark_submit: SparkSubmit, store_url: str
) -> None:
    assert count('master = "yarn"')[0] == "success"
    assert count('master = "yarn"\ndeploy_mode = "cluster"')[0] == "success"

    client, cluster = (
        next(each for each in call if each.endswith(".py")) for call in spark_submit.calls()
    )
    assert client.endswith("/dbnd_task.py")
    assert not Path(client).exists()
    assert cluster.startswith(f"file://{store_url}/_code/bootstrap-")
    assert spark_submit.calls()[1][-1].startswith(f"file://{store_url}/_specs/")


# --- applications on YARN that outlive spark-submit -----------------------------------------------


class ResourceManager:
    """YARN's REST API, as far as the official hook asks it."""

    def __init__(self, states: list[tuple[str, str]]) -> None:
        self.states, self.killed = states, False
        manager = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                now = manager.states.pop(0) if len(manager.states) > 1 else manager.states[0]
                app = {"state": now[0], "finalStatus": now[1], "diagnostics": "AM was shot"}
                self._answer({"app": app})

            def do_PUT(self) -> None:
                manager.killed = True
                self._answer({"state": "KILLED"})

            def _answer(self, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def yarn(monkeypatch: pytest.MonkeyPatch) -> Iterator[ResourceManager]:
    """Connection `our_yarn`, with a resource manager that says FINISHED."""
    manager = ResourceManager([("FINISHED", "SUCCEEDED")])
    address = f"http://127.0.0.1:{manager.server.server_address[1]}"
    extra = {"deploy-mode": "cluster", "yarn_resourcemanager_webapp_address": address}
    value = {"conn_type": "spark", "host": "yarn", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_OUR_YARN", json.dumps(value))
    yield manager
    manager.server.shutdown()


TRACKED = 'conn_id = "our_yarn"\nyarn_track_via_rm_api = true\n'


def test_an_application_that_yarn_tracks_is_waited_for(
    count: Any, spark_submit: SparkSubmit, yarn: ResourceManager
) -> None:
    spark_submit.says("Submitted application_17_0001")

    assert count(TRACKED)[0] == "success"
    assert "spark.yarn.submit.waitAppCompletion=false" in spark_submit.option("conf")


def test_an_application_that_yarn_failed_is_named_with_the_reason(
    count: Any, spark_submit: SparkSubmit, yarn: ResourceManager
) -> None:
    yarn.states = [("FINISHED", "FAILED")]
    # The program cannot start: it writes no manifest.
    spark_submit.says("Submitted application_17_0002")
    text = spark_submit.path.read_text().replace("sys.exit(subprocess", "sys.exit(0 and subprocess")
    spark_submit.path.write_text(text)

    state, log = count(TRACKED)

    assert state == "failed"
    assert "engine 'here' (spark), job application_17_0002" in log
    assert "AM was shot" in log


# --- what can be wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("", "connection 'spark_default' is not defined, and the engine names no master"),
        ('conn_id = "none_such"', "connection 'none_such' is not defined"),
        (
            'master = "spark://host:7077"\ndeploy_mode = "cluster"',
            "only with the driver on the worker: leave deploy_mode out",
        ),
    ],
)
def test_an_engine_that_cannot_work_says_what_is_missing(
    count: Any, spark_submit: SparkSubmit, toml: str, message: str
) -> None:
    state, log = count(toml)

    assert state == "failed"
    assert message in log
    assert spark_submit.calls() == []


def test_a_spark_submit_that_is_not_there_is_named(count: Any, spark_submit: SparkSubmit) -> None:
    spark_submit.path.unlink()

    state, log = count('master = "local"')

    assert state == "failed"
    assert f"{str(spark_submit.path)!r} is not on the worker's PATH" in log


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("JAVA_HOME is not set", "Spark needs Java, and the worker has none"),
        ("All masters are unresponsive! Giving up.", "the Spark master does not answer"),
        ("error: Master must either be yarn or start with spark", "the address of the master"),
        ('Cannot run program "pyton": error=2', "the Python of the driver, pyton, is not on"),
    ],
)
def test_what_spark_submit_says_is_explained(
    count: Any, spark_submit: SparkSubmit, line: str, message: str
) -> None:
    spark_submit.says(line, code=1)

    state, log = count('master = "local"')

    assert state == "failed"
    assert "engine 'here' (spark), job process " in log
    assert message in log
    assert line in log


@pytest.mark.parametrize("type_", ["spark", "livy"])
def test_what_a_task_sets_by_itself_cannot_be_an_option(type_: str) -> None:
    from airflow_provider_dbnd.engines.registry import operator_class

    name = {"spark": "application", "livy": "file"}[type_]

    with pytest.raises(ConfigurationError, match=f"{name}='my.py': a task runs its function"):
        operator_class(type_)(
            task_id="t", python_callable=print, op_args=[], op_kwargs={}, **{name: "my.py"}
        )


def test_livy_is_not_asked_to_submit_and_forget() -> None:
    from airflow_provider_dbnd.engines.livy import LivyTask

    with pytest.raises(ConfigurationError, match="polling_interval=0"):
        LivyTask(task_id="t", python_callable=print, op_args=[], op_kwargs={}, polling_interval=0)


# --- one set of options for both ------------------------------------------------------------------

TOML = """
[engines.batches]
type = "livy"
livy_conn_id = "prod_livy"
jars = ["base.jar"]

[engines.batches.conf]
"spark.a" = "engine"

[tasks.mart.spark]
num_executors = 8
conf = { "spark.b" = "file" }

[tasks.mart.livy]
num_executors = 9
"""


@task(
    spark={
        "conf": {"spark.a": "code", "spark.c": 1},
        "jars": "mart.jar,other.jar",
        "packages": ["g:p:1", "g:q:2"],
        "yarn_queue": "night",
        "env_vars": {"MODE": "x"},
        "master": "local[*]",
        "verbose": True,
        "name": "the mart",
    }
)
def mart() -> int:
    return 1


def test_what_a_task_asks_of_spark_holds_for_livy_as_well(tmp_path: Path) -> None:
    (tmp_path / "dbnd.toml").write_text(TOML)
    settings = load_settings(tmp_path)
    definition = mart.definition.with_options(**settings.tasks["mart"])

    engine = select_engine(definition, settings, "batches")

    assert engine.options == {
        "livy_conn_id": "prod_livy",
        "jars": ["base.jar", "mart.jar", "other.jar"],
        "queue": "night",
        "num_executors": 9,
        "conf": {
            "spark.a": "code",
            "spark.b": "file",
            "spark.c": "1",
            "spark.jars.packages": "g:p:1,g:q:2",
            "spark.app.name": "the mart",
            "spark.yarn.appMasterEnv.MODE": "x",
            "spark.kubernetes.driverEnv.MODE": "x",
        },
    }


def test_a_misspelt_option_of_spark_is_found_on_livy_as_well(tmp_path: Path) -> None:
    wrong = mart.override(spark={"num_executor": 2})

    with pytest.raises(ConfigurationError, match="did you mean 'num_executors'"):
        select_engine(wrong.definition, load_settings(tmp_path), "livy")


def test_names_may_be_a_list_or_text() -> None:
    assert as_list("a, b,") == as_list(["a", "b"]) == ["a", "b"]
    assert as_text(["a", "b"]) == as_text("a,b") == "a,b"
    assert as_text([]) is None


def test_numbers_and_booleans_of_conf_are_written_as_spark_writes_them() -> None:
    assert conf({"a": {"b": True, "c.d": 1.5}, "e": "x"}) == {
        "a.b": "true",
        "a.c.d": "1.5",
        "e": "x",
    }
