"""What is imported when: start-up stays cheap, and core works where Airflow is not."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import airflow_provider_dbnd.core

HEAVY = ("airflow", "pandas", "pyarrow", "polars", "numpy", "pydantic", "rich", "fsspec", "s3fs")

BLOCK_AIRFLOW = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "airflow":
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Block())
"""


def loaded_by(code: str) -> set[str]:
    """Run *code* in a fresh Python; return the heavy packages it loaded."""
    code += (
        f"\nimport json, sys; print('\\n' + json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import airflow_provider_dbnd") == set()


def test_decorating_loads_neither_airflow_nor_data_libraries() -> None:
    code = (
        "from airflow_provider_dbnd import *\n"
        "from airflow_provider_dbnd import task, pipeline\n"
        "@task\ndef f(n: int) -> int: return n\n"
        "@pipeline\ndef p(n: int = 1): f(n)\n"
        "p(2)\ndag = p.as_dag()"
    )
    assert loaded_by(code) <= {"fsspec"}


def test_help_loads_nothing_heavy() -> None:
    code = "from airflow_provider_dbnd.cli.main import main\nassert main(['--help']) == 0"
    assert loaded_by(code) == set()


def test_help_is_quick() -> None:
    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "airflow_provider_dbnd.cli", "--help"],
            capture_output=True,
            check=True,
        )
        return time.perf_counter() - started

    # The fastest of a few: other work on the machine is not ours to measure.
    assert min(seconds() for _ in range(5)) < 0.5


def test_a_run_without_data_loads_no_data_library(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "from airflow_provider_dbnd import task, pipeline\n"
        "@task\ndef f(n: int) -> int: return n\n"
        "@pipeline\ndef p(n: int = 1): return f(n)\n"
    )
    code = (
        "from airflow_provider_dbnd.cli.main import main\n"
        f"assert main(['run', {str(tmp_path / 'plain.py')!r}]) == 0"
    )
    assert loaded_by(code).isdisjoint({"pandas", "pyarrow", "polars", "airflow", "rich", "s3fs"})


def test_core_imports_and_runs_without_airflow(tmp_path: Path) -> None:
    prefix = "airflow_provider_dbnd.core."
    modules = [m.name for m in pkgutil.walk_packages(airflow_provider_dbnd.core.__path__, prefix)]
    (tmp_path / "frames.py").write_text(
        "from pandas import DataFrame\n"
        "from airflow_provider_dbnd import task, pipeline\n"
        "@task\ndef f() -> DataFrame: return DataFrame({'x': [1]})\n"
        "@task\ndef g(d: DataFrame) -> int: return len(d)\n"
        "@pipeline\ndef p(): return g(f())\n"
        "dag = p.as_dag(schedule='@daily')\n"
    )
    code = (
        f"{BLOCK_AIRFLOW}\nimport importlib\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "from airflow_provider_dbnd.cli.main import main\n"
        f"assert main(['run', {str(tmp_path / 'frames.py')!r}]) == 0"
    )

    assert len(modules) > 30
    assert "airflow" not in loaded_by(code)


@pytest.mark.parametrize("name", airflow_provider_dbnd.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(airflow_provider_dbnd, name) is not None
    assert name in dir(airflow_provider_dbnd)
