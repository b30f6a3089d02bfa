"""The built wheel beside a stock Airflow: a newcomer's installation, with no further configuration.

Makes virtual environments of its own, which takes minutes: .ci/run runs these, scripts/test does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas
import pytest

from airflow_provider_dbnd.core.formats.containers import container_for_value
from airflow_provider_dbnd.core.formats.fingerprint import fingerprint_of

ROOT = Path(__file__).parents[2]
FLOOR = "3.1.8"

DROPPED_IN = '''
"""A pipeline a newcomer drops into the dags folder."""
from pandas import DataFrame
from airflow_provider_dbnd import pipeline, task

@task
def make(rows: int = 3) -> DataFrame:
    frame = DataFrame({"x": range(rows), "word": [f"word {n}" for n in range(rows)]})
    return frame.assign(kind=frame["word"].astype("category"))

@task
def total(df: DataFrame) -> int:
    return int(df["x"].sum())

@pipeline
def newcomer(rows: int = 3):
    """Add some numbers.

    :param rows: how many
    """
    return total(make(rows))

dag = newcomer.as_dag()
'''

FORM = """
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.session import create_session
with create_session() as session:
    dag = SerializedDagModel.get("newcomer", session=session).dag
    param = dag.params.get_param("rows")
    print("FORM", param.value, param.schema, param.description)
"""


def digest_of_the_frame(rows: int) -> str:
    """Return the digest that the frame of the pipeline has here."""
    words = [f"word {n}" for n in range(rows)]
    frame = pandas.DataFrame({"x": range(rows), "word": words})
    frame = frame.assign(kind=frame["word"].astype("category"))
    outgoing = container_for_value(frame).outgoing(frame)
    return fingerprint_of(outgoing.schema, outgoing.batches, outgoing.extras).digest


class Environment:
    """A virtual environment with an Airflow home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "airflow"
        (self.home / "dags").mkdir(parents=True)

    def run(self, *command: str, check: bool = True) -> str:
        program = self.folder / "venv" / "bin" / command[0]
        env = {
            k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "DBND", "PYTHON"))
        }
        env |= {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "HOME": str(self.folder),
        }
        done = subprocess.run(
            [str(program), *command[1:]],
            capture_output=True,
            text=True,
            env=env,
            cwd=self.folder,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(folder),
            str(ROOT),
        ],
        check=True,
    )
    (path,) = folder.glob("airflow_provider_dbnd-*.whl")
    return path


def install(folder: Path, wheel: Path, constraints: str) -> Environment:
    environment = Environment(folder)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    # Most of what Airflow brings is never imported here: compiling it all takes as long as the rest.
    pins = ("--constraint", str(ROOT / constraints))
    environment.run("pip", "install", "--quiet", "--no-compile", *pins, str(wheel))
    environment.run("airflow", "db", "migrate")
    (environment.home / "dags" / "newcomer.py").write_text(DROPPED_IN)
    return environment


@pytest.fixture(scope="session")
def newest(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    return install(tmp_path_factory.mktemp("newest"), wheel, "constraints.txt")


@pytest.fixture(scope="session")
def floor(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    return install(tmp_path_factory.mktemp("floor"), wheel, "constraints-airflow-3.1.txt")


def test_the_wheel_holds_types_and_nothing_but_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert "airflow_provider_dbnd/py.typed" in names
    assert {name.split("/")[0] for name in names} == {
        "airflow_provider_dbnd",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }


def test_airflow_lists_provider_configuration_plugin_and_command(newest: Environment) -> None:
    assert "airflow-provider-dbnd" in newest.run("airflow", "providers", "list")
    assert "[dbnd]" in newest.run("airflow", "config", "list", "--section", "dbnd")
    assert "airflow_provider_dbnd.plugins.dbnd" in newest.run("airflow", "plugins")
    assert "run, resume, replay, why, list, show, check" in newest.run("airflow", "dbnd", "--help")
    assert "Run a pipeline or a task here" in newest.run("airflow", "dbnd", "run", "--help")


def test_a_dropped_in_pipeline_runs_with_a_trigger_form(newest: Environment) -> None:
    newest.run("airflow", "dags", "test", "newcomer", "-c", '{"rows": 4}')

    assert "FORM 3 {'type': 'integer'} how many" in newest.run("python", "-c", FORM)
    assert list((newest.home / "dbnd/store/newcomer/make/result").glob("*.arrow"))


def test_the_task_decorators_are_registered(newest: Environment) -> None:
    out = newest.run(
        "python", "-c", "from airflow.sdk import task; print(task.dbnd, task.dbnd_sensor)"
    )

    assert "airflow_provider_dbnd" in out or "function task" in out


def test_the_same_pipeline_makes_the_same_data_on_the_oldest_airflow(floor: Environment) -> None:
    assert FLOOR in floor.run("airflow", "version")

    floor.run("airflow", "dags", "test", "newcomer", "-c", '{"rows": 4}')

    # Its pandas and pyarrow are older as well; the digest is that of the data.
    (made,) = (floor.home / "dbnd/store/newcomer/make/result").glob("*.arrow")
    assert made.name.partition("-")[0] == digest_of_the_frame(4)


@pytest.mark.parametrize("airflow", ["newest", "floor"])
def test_a_dag_serializes_to_the_same_bytes_on_every_airflow(
    airflow: str, request: pytest.FixtureRequest
) -> None:
    environment: Environment = request.getfixturevalue(airflow)
    words = ("python", str(ROOT / "tests/serialize_dags.py"), str(environment.home / "dags"))

    # Each run has a hash seed and addresses of its own.
    runs = [environment.run(*words).splitlines() for _ in range(2)]
    first, second = (next(line for line in lines if line.startswith("[{")) for lines in runs)

    assert "newcomer" in first
    assert first == second


def test_the_connection_type_is_known(newest: Environment) -> None:
    out = newest.run(
        "python",
        "-c",
        "from airflow.providers_manager import ProvidersManager as P; print('TYPE', 'dbnd' in P().hooks)",
    )

    assert "TYPE True" in out
