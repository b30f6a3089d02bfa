"""What holds on every engine: the same pipeline leaves the same artifacts, metrics and messages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.past.history import attempts_of_run
from airflow_provider_dbnd.core.storage.store import ArtifactStore

HELPERS = """
from pathlib import Path

def factor() -> int:
    return int((Path(__file__).parent / "contract_data" / "factor.txt").read_text())
"""

PIPELINE = '''
import datetime as dt
from typing import Annotated

from airflow_provider_dbnd import log_metric, parameter, pipeline, task
from pandas import DataFrame

from contract_helpers import factor


@task
def make(n: int = 4, day: dt.date = dt.date(2026, 1, 2)) -> DataFrame:
    return DataFrame({"x": range(n), "day": [str(day)] * n})


@task
def split(rows: DataFrame) -> tuple[DataFrame, DataFrame]:
    return rows[:1], rows[1:]


@task
def total(rows: DataFrame, rest: DataFrame, weights: dict[str, float] = {"a": 0.5}) -> float:
    log_metric("rows", len(rows) + len(rest))
    return float((rows["x"].sum() + rest["x"].sum()) * factor() * weights["a"])


@task
def names(n: int = 3) -> list[str]:
    return [f"name-{i}" for i in range(n)]


@task
def shout(name: str) -> str:
    return name.upper()


@pipeline
def contract(n: int = 4):
    first, rest = split(make(n))
    total(first, rest)
    shout.expand(name=names())


@task
def fails(n: int = 2) -> int:
    raise ValueError(f"cannot do {n} today")


@task
def skips() -> int:
    class AirflowSkipException(Exception):
        """A task without Airflow skips itself by raising an error of this name."""
    raise AirflowSkipException("nothing to do")


@task
def wrong() -> int:
    return {"not": {1, 2}}


@task
def login(password: Annotated[str, parameter(hidden=True)] = "unset") -> int:
    assert password == "s3cr3t-of-the-contract", "another password"
    return len(password)


@pipeline
def contract_fails(n: int = 2):
    fails(n)


@pipeline
def contract_skips():
    skips()


@pipeline
def contract_wrong():
    wrong()


@pipeline
def contract_hidden(password: Annotated[str, parameter(hidden=True)] = "s3cr3t-of-the-contract"):
    login(password)


dag = contract.as_dag()
dag_fails = contract_fails.as_dag()
dag_skips = contract_skips.as_dag()
dag_wrong = contract_wrong.as_dag()
dag_hidden = contract_hidden.as_dag()
'''

#: Hidden values do not travel: an engine gets them by its own means.
PASSWORD = ("DBND__LOGIN__PASSWORD", "s3cr3t-of-the-contract")

#: The command line on a machine with no engine, no client of one, and no Airflow.
LAPTOP = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("airflow", "docker", "kubernetes", "pyspark"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from airflow_provider_dbnd.cli.main import main
raise SystemExit(main(sys.argv[1:]))
"""

ROOT = Path(__file__).parents[2]

Run = Callable[..., Any]


def on_a_laptop(folder: Path, *arguments: str) -> str:
    """Run a command there; only the way into the store is left in the environment."""
    folder.mkdir()
    engines = ("KUBE", "DOCKER", "SPARK", "JAVA", "HADOOP", "LIVY", "AIRFLOW", "DBND")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(engines)}
    done = subprocess.run(
        [sys.executable, "-c", LAPTOP, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digests(store: str, left: Any) -> dict[Any, Any]:
    """Return what each task of a run put out: values, and of data the digest and type."""
    found = attempts_of_run(ArtifactStore(store), left.dag_run.dag_id, left.dag_run.run_id)
    return {
        (m.identity.task_id, m.identity.map_index, name): (output["digest"], output["type"])
        if is_reference(output)
        else output
        for m in found
        for name, output in m.outputs.items()
    }


class EngineContract:
    """Subclasses give fixture ``engine``: the TOML of an ``[engines.here]`` table.

    They may replace ``engine_store``, the URL of a store that the engine sees, and mark what an
    engine cannot do.
    """

    @pytest.fixture
    def engine_store(self, tmp_path: Path) -> str:
        return str(tmp_path / "engine-store")

    @pytest.fixture
    def project(self, airflow_db: str) -> Iterator[Path]:
        """The dags folder with the pipeline, its helper module and its data file."""
        folder = Path(airflow_db)
        (folder / "contract_data").mkdir(exist_ok=True)
        (folder / "contract_data" / "factor.txt").write_text("10")
        (folder / "contract_helpers.py").write_text(HELPERS)
        yield folder
        (folder / "contract_helpers.py").unlink()
        shutil.rmtree(folder / "contract_data")

    @pytest.fixture
    def run(
        self,
        project: Path,
        parse_dag: Any,
        run_dag: Any,
        records: Any,
        engine: str,
        engine_store: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Run:
        """``run(dag_id, on="here", **conf)`` runs a DAG of the file and returns what it left."""

        def go(dag_id: str, *, on: str = "here", store: str | None = None, **conf: Any) -> Any:
            config = tmp_path / f"{on}.toml"
            config.write_text(f'engine = "{on}"\n{engine if on == "here" else ""}')
            monkeypatch.setenv("DBND_CONFIG", str(config))
            monkeypatch.setenv("DBND_STORE", store or engine_store)
            file = tmp_path / "contract_dag.py"
            file.write_text(PIPELINE)
            return records(run_dag(parse_dag(file, dag_id), **conf))

        return go

    def test_the_same_pipeline_leaves_the_same_artifacts_and_is_replayed_without_the_engine(
        self, run: Run, tmp_path: Path, engine_store: str
    ) -> None:
        local_store = str(tmp_path / "local-store")
        there = run("contract", n=6)
        here = run("contract", n=6, on="local", store=local_store)

        assert set(there.states().values()) == {"success"}
        assert there.xcom("total") == 75.0
        assert digests(engine_store, there) == digests(local_store, here)
        assert there.xcom("total", "dbnd")["metrics"] == {"rows": 6}
        assert there.xcom("total", "dbnd")["engine"]["name"] == "here"
        shouted = [there.xcom("shout", map_index=index) for index in range(3)]
        assert shouted == ["NAME-0", "NAME-1", "NAME-2"]

        replayed = on_a_laptop(
            tmp_path / "laptop",
            *("replay", "contract", there.dag_run.run_id, "total"),
            *("--store", engine_store, "--recorded-code"),
        )
        assert "result: as recorded" in replayed

    def test_a_failing_function_fails_the_task_with_its_message_and_traceback(
        self, run: Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        left = run("contract_fails", n=7)

        log = capsys.readouterr().out
        assert left.states() == {"fails": "failed"}
        assert "ValueError: cannot do 7 today" in log
        assert "in fails" in log

    def test_a_task_that_skips_itself_is_skipped(self, run: Run) -> None:
        assert run("contract_skips").states() == {"skips": "skipped"}

    def test_a_result_of_the_wrong_type_says_so(
        self, run: Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("contract_wrong").states() == {"wrong": "failed"}
        assert "output 'result' of task 'wrong'" in capsys.readouterr().out

    def test_a_hidden_value_comes_from_the_engines_own_environment(
        self, run: Run, engine_store: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        left = run("contract_hidden")

        assert left.states() == {"login": "success"}
        assert PASSWORD[1] not in left.all_text()
        assert PASSWORD[1] not in capsys.readouterr().out
