"""One Airflow for the whole session: an empty home, a migrated SQLite, dag.test() in this process."""

from __future__ import annotations

import compileall
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.records import Records

ROOT = Path(__file__).parent.parent
HOME = tempfile.mkdtemp(prefix="dbnd-airflow-")
DAGS = os.path.join(HOME, "dags")

# Airflow reads its configuration when it is first imported, so this comes before any test module.
for name in [
    n for n in os.environ if n.startswith(("AIRFLOW", "DBND__", "DBND_STORE", "DBND_ENV"))
]:
    del os.environ[name]
os.makedirs(DAGS)
os.environ.update(
    AIRFLOW_HOME=HOME,
    AIRFLOW__CORE__DAGS_FOLDER=DAGS,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
)


def pytest_collection_finish() -> None:
    """Keep compiled copies of the package, and none of what the tests write.

    Python takes such a copy for that of a file which was written again in the same second, if it has
    the same length.
    """
    compileall.compile_dir(ROOT / "airflow_provider_dbnd", quiet=2)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def pytest_unconfigure() -> None:
    """Remove the home, which Airflow has filled as soon as a test has imported it."""
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_db() -> str:
    """A migrated metadata DB; gives the dags folder, where a DAG's file has to be to run."""
    from airflow.utils.db import initdb

    initdb()
    return DAGS


@pytest.fixture
def parse_dag(airflow_db: str) -> Iterator[Callable[..., Any]]:
    """Parse a file as Airflow does: ``parse_dag(text_or_path, dag_id=None)`` returns the DAG."""
    made: list[Path] = []

    def parse(source: str | Path, dag_id: str | None = None) -> Any:
        from airflow_provider_dbnd.cli.dags import parse as dag_bag

        if isinstance(source, Path):
            path = Path(airflow_db) / source.name
            shutil.copy(source, path)
        else:
            path = (
                Path(airflow_db) / f"dag_{len(list(Path(airflow_db).iterdir()))}_{os.getpid()}.py"
            )
            path.write_text(source)
        made.append(path)
        bag = dag_bag(str(path))
        assert not bag.import_errors, next(iter(bag.import_errors.values()))
        return bag.dags[dag_id] if dag_id else next(iter(bag.dags.values()))

    yield parse
    for path in made:
        path.unlink(missing_ok=True)


@pytest.fixture
def run_dag(airflow_db: str) -> Callable[..., Any]:
    """Run a DAG with ``dag.test()``: ``run_dag(dag, **conf)`` returns the DagRun."""

    def run(dag: Any, **conf: Any) -> Any:
        return dag.test(run_conf=conf or None)

    return run


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``configure(text)`` writes a ``dbnd.toml`` that holds for this test, and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "dbnd.toml"
        path.write_text(text)
        monkeypatch.setenv("DBND_CONFIG", str(path))
        return path

    return write


@pytest.fixture
def run_source(
    parse_dag: Any, run_dag: Any, records: Any, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Records, str]]:
    """``run_source(source, **conf)`` runs the DAG of a file; returns what it left, and the log."""

    def run(source: str, **conf: Any) -> tuple[Records, str]:
        left = records(run_dag(parse_dag(source), **conf))
        return left, capsys.readouterr().out

    return run


@pytest.fixture
def store_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An artifact store of this test's own."""
    url = str(tmp_path / "store")
    monkeypatch.setenv("DBND_STORE", url)
    return url


@pytest.fixture
def records() -> type[Records]:
    """``records(dag_run)`` reads what the run left in the metadata DB."""
    return Records
