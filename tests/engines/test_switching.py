"""A run may name another engine for a task than its code and files do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import HERE

SOURCE = """
import os
from airflow_provider_dbnd import pipeline, task

@task
def where(engine_of: str = "x") -> int:
    return os.getpid()

@pipeline
def switching():
    where()

dag = switching.as_dag()
"""


@pytest.fixture
def configured(configure: Callable[[str], Path]) -> Path:
    return configure(f'[engines.away]\ntype = "process"\npython = "{sys.executable}"\n')


@pytest.mark.usefixtures("process_engine", "configured")
class TestInAirflow:
    def test_a_local_task_runs_elsewhere_when_the_trigger_form_says_so(
        self, parse_dag: Any, run_dag: Any, records: Any, store_url: str
    ) -> None:
        import os

        dag = parse_dag(SOURCE)

        here = records(run_dag(dag))
        away = records(run_dag(dag, **{"where.engine": "away"}))

        assert here.xcom("where") == os.getpid()
        assert away.xcom("where") != os.getpid()
        assert away.xcom("where", "dbnd")["engine"]["name"] == "away"

    def test_a_remote_task_runs_in_the_worker_when_the_trigger_form_says_so(
        self, parse_dag: Any, run_dag: Any, records: Any, store_url: str, configured: Path
    ) -> None:
        import os

        configured.write_text('engine = "away"\n' + configured.read_text())

        left = records(run_dag(parse_dag(SOURCE), **{"where.engine": "local"}))

        assert left.xcom("where") == os.getpid()

    def test_an_engine_that_is_none_fails_the_task_with_what_was_meant(
        self, parse_dag: Any, run_dag: Any, records: Any, store_url: str, capsys: Any
    ) -> None:
        left = records(run_dag(parse_dag(SOURCE), **{"where.engine": "awy"}))

        assert left.states() == {"where": "failed"}
        assert "unknown engine 'awy'; did you mean 'away'?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "engine"),
    [([], "None"), (["--set", "where.engine=away"], "away"), (["--env", "far"], "away")],
)
def test_dbnd_run_takes_the_engine_from_the_command_line_or_the_environment(
    tmp_path: Path, configured: Path, arguments: list[str], engine: str
) -> None:
    configured.write_text(configured.read_text() + '\n[environments.far]\nengine = "away"\n')
    (tmp_path / "file.py").write_text(SOURCE)

    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_dbnd.cli", "run", "file.py:switching", *arguments],
        cwd=tmp_path,
        env={
            "PYTHONPATH": f"{HERE.parent.parent}:{HERE}",
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    manifests = list((tmp_path / ".dbnd" / "store" / "_runs").rglob("1.json"))
    import json

    found = json.loads(manifests[0].read_text())["engine"].get("name")
    assert str(found) == engine
