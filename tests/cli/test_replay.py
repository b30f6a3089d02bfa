"""`dbnd replay`, `resume` and `why`: recorded attempts again, stopped runs on, and what would run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SOURCE = """
from typing import Annotated
from pandas import DataFrame
from airflow_provider_dbnd import log_metric, output, parameter, pipeline, task

@task
def double(n: int) -> int:
    return 2 * n

@task
def make(raw: DataFrame, n: int = 30) -> DataFrame:
    return raw.head(n)

@task
def total(rows: DataFrame, factor: int = 1) -> Annotated[float, output(path="{store}/total.json")]:
    log_metric("rows", len(rows))
    return float(rows["x"].sum()) * factor

@task
def login(password: Annotated[str, parameter(hidden=True)]) -> int:
    return len(password)

@pipeline
def sums(raw: DataFrame = "raw.csv", password: Annotated[str, parameter(hidden=True)] = "swordfish"):
    login(password)
    double.expand(n=[1, 2, 3])
    return total(make(raw))
"""


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "raw.csv").write_text("x\n" + "\n".join(map(str, range(50))) + "\n")
        self.edit()

    def edit(self, old: str = "", new: str = "") -> None:
        (self.path / "sums.py").write_text(SOURCE.replace(old, new) if old else SOURCE)

    def dbnd(self, *arguments: str, code: int = 0, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "airflow_provider_dbnd.cli", *arguments],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def stored(self) -> dict[str, bytes]:
        files = (self.path / ".dbnd" / "store").rglob("*")
        return {str(f): f.read_bytes() for f in files if f.is_file()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    for name in [n for n in os.environ if n.startswith("DBND")]:
        monkeypatch.delenv(name)
    made = Folder(tmp_path)
    made.dbnd("run", "sums.py:sums", "--run-id", "r1", "-q")
    return made


def test_the_same_code_on_the_same_inputs_gives_what_is_recorded_and_touches_nothing(
    folder: Folder,
) -> None:
    before = folder.stored()

    for task in ("make", "total", "double[1]"):
        assert "as recorded" in folder.dbnd("replay", "sums", "r1", task)

    assert folder.stored() == before


def test_changed_code_shows_which_outputs_and_metrics_differ(folder: Folder) -> None:
    folder.edit("len(rows))", "len(rows) + 1)")
    said = folder.dbnd("replay", "sums", "r1", "total", code=1)
    assert "metric rows: recorded 30, now 31" in said
    assert "result: as recorded" in said

    folder.edit("raw.head(n)", "raw.head(n).assign(x=raw['x'] + 1)")
    said = folder.dbnd("replay", "sums", "r1", "make", code=1)
    assert "result: differs" in said
    assert re.search(r"^ +x +30\b", said, re.MULTILINE), said


def test_recorded_code_is_that_of_the_run_where_the_settings_keep_it(folder: Folder) -> None:
    (folder.path / "dbnd.toml").write_text("[bundle]\nrecord = true\n")
    folder.dbnd("run", "sums.py:sums", "--run-id", "kept", "-q")
    folder.edit("raw.head(n)", "raw.head(n).assign(x=raw['x'] + 1)")

    assert "result: differs" in folder.dbnd("replay", "sums", "kept", "make", code=1)
    said = folder.dbnd("replay", "sums", "kept", "make", "--recorded-code")
    assert "result: as recorded" in said


def test_values_are_overridden_by_set(folder: Folder) -> None:
    said = folder.dbnd("replay", "sums", "r1", "total", "--set", "factor=2", code=1)

    assert "435  870" in said


def test_an_input_file_that_changed_since_is_refused_and_can_be_set(folder: Folder) -> None:
    (folder.path / "raw.csv").write_text("x\n1\n")

    said = folder.dbnd("replay", "sums", "r1", "make", code=2)
    assert "changed since that run: expected blake3:" in said
    assert "differs" in folder.dbnd("replay", "sums", "r1", "make", "--set", "raw=raw.csv", code=1)


def test_a_hidden_value_is_asked_for(folder: Folder) -> None:
    said = folder.dbnd("replay", "sums", "r1", "login", code=2)
    assert "hidden, so its value was not recorded" in said

    said = folder.dbnd("replay", "sums", "r1", "login", "--set", "password=swordfish")
    assert "as recorded" in said


def test_a_hidden_value_stays_hidden_where_the_replay_fails(folder: Folder) -> None:
    folder.edit("return len(password)", "raise KeyError(f'refused {password!r}')")
    secret = ("--set", "login.password=kraken\\7")
    folder.dbnd("run", "sums.py:sums", "--run-id", "r7", "-q", *secret, code=1)

    said = folder.dbnd("replay", "sums", "r7", "login", "--set", "password=kraken\\7")

    assert "KeyError: \"refused '***'\"" in said
    assert "status: failed as recorded" in said
    assert "kraken" not in said


def test_what_was_hidden_in_the_run_is_hidden_in_the_replay(folder: Folder) -> None:
    folder.edit("double.expand", "plain(password)\n    double.expand")
    source = (folder.path / "sums.py").read_text()
    plain = "@task\ndef plain(x: str) -> int:\n    raise ValueError(x)\n\n@pipeline"
    (folder.path / "sums.py").write_text(source.replace("@pipeline", plain))
    folder.dbnd("run", "sums.py:sums", "--run-id", "r9", "-q", code=1)

    said = folder.dbnd("replay", "sums", "r9", "plain", "--set", "x=kraken", code=0)

    assert "ValueError: ***" in said
    assert "kraken" not in said


def test_a_metric_that_is_no_number_is_as_recorded(folder: Folder) -> None:
    folder.edit("len(rows))", "float('nan'))")
    folder.dbnd("run", "sums.py:sums", "--run-id", "nan", "-q")

    assert "metric" not in folder.dbnd("replay", "sums", "nan", "total")
    folder.edit("len(rows))", "float('inf'))")
    said = folder.dbnd("replay", "sums", "nan", "total", code=1)
    assert "metric rows: recorded 'nan', now 'inf'" in said


def test_only_the_results_that_are_told_of_are_left(folder: Folder, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def left(*arguments: str, code: int = 0) -> list[str]:
        said = folder.dbnd("replay", "sums", "r1", *arguments, code=code, TMPDIR=str(scratch))
        found = [str(each) for each in scratch.iterdir()]
        assert all(f"{each}/store)\n" in said for each in found)
        return found

    assert left("login", code=2) == []
    assert left("total", "--as-test", "test_total.py") == []
    assert left("total", "--file", "nowhere.py", code=2) == []
    assert len(left("total")) == 1


def test_a_failure_is_compared_with_the_recorded_one(folder: Folder) -> None:
    folder.edit("return float", "raise ValueError('bad day')\n    return float")
    folder.dbnd("run", "sums.py:sums", "--run-id", "r2", "-q", code=1)

    assert "status: failed as recorded" in folder.dbnd("replay", "sums", "r2", "total")
    folder.edit()
    assert "status: recorded failed, now success" in folder.dbnd(
        "replay", "sums", "r2", "total", code=1
    )


def test_the_code_of_a_task_that_ran_in_its_worker_was_not_recorded(folder: Folder) -> None:
    said = folder.dbnd("replay", "sums", "r1", "total", "--recorded-code", code=2)

    assert "was not recorded: it ran in its worker" in said
    assert "[bundle] record = true" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sums", "r1", "totl"), "did you mean 'total'?"),
        (("sums", "r9", "total"), "r9"),
        (("sums", "r1", "double"), "name one of its 3 instances, such as double[0]"),
        (("sums", "r1", "double[7]"), "no instance 7"),
        (("sums", "r1", "total", "--file", "nowhere.py"), "No such file: nowhere.py"),
        (("sums", "r1", "total", "--set", "facto=2"), "did you mean 'factor'?"),
    ],
)
def test_what_is_not_there_is_named(
    folder: Folder, arguments: tuple[str, ...], message: str
) -> None:
    assert message in folder.dbnd("replay", *arguments, code=2)


def test_a_task_becomes_a_pytest_case_on_small_inputs(folder: Folder) -> None:
    folder.dbnd("replay", "sums", "r1", "total", "--as-test", "test_total.py")
    run = [sys.executable, "-m", "pytest", "-q", "test_total.py", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    assert subprocess.run(run, cwd=folder.path, env=environment).returncode == 0
    import pandas

    assert len(pandas.read_parquet(folder.path / "test_total_data" / "rows.parquet")) == 20
    folder.edit("* factor", "* factor + 1")
    assert subprocess.run(run, cwd=folder.path, env=environment).returncode == 1
    assert "exists" in folder.dbnd(
        "replay", "sums", "r1", "total", "--as-test", "test_total.py", code=2
    )


def pytest_of(folder: Folder, file: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", file, "-p", "no:cacheprovider"],
        cwd=folder.path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("annotation", "given", "read"),
    [("str", "kraken-7", "os.environ["), ("list[str]", '["kraken-7"]', "json.loads(os.environ[")],
)
def test_a_hidden_parameter_of_a_pytest_case_is_read_from_the_environment(
    folder: Folder, annotation: str, given: str, read: str
) -> None:
    folder.edit("login(password: Annotated[str,", f"login(password: Annotated[{annotation},")
    as_test = ("replay", "sums", "r1", "login", "--as-test", "test_login.py")

    said = folder.dbnd(*as_test, "--set", f"password={given}")

    variable = "DBND__LOGIN__PASSWORD"
    assert f"parameter 'password' is hidden: set {variable} where the test runs" in said
    test = (folder.path / "test_login.py").read_text()
    assert f"password={read}'{variable}']" in test
    assert f"read from the environment: password in {variable}." in test
    assert "kraken" not in test + said
    assert pytest_of(folder, "test_login.py", **{variable: given}).returncode == 0
    assert f"KeyError: '{variable}'" in pytest_of(folder, "test_login.py").stdout


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ("password", "parameter or result 'result' holds the value of a hidden parameter", 2),
        ("int(f'{password}')", "ValueError: invalid literal for int() with base 10: '***'", 1),
    ],
    ids=["result", "failure"],
)
def test_no_pytest_case_is_written_that_would_tell_a_hidden_value(
    folder: Folder, body: str, message: str, code: int
) -> None:
    folder.edit("len(password)", body)
    source = (folder.path / "sums.py").read_text()
    (folder.path / "sums.py").write_text(
        source.replace("parameter(hidden=True)]) -> int:", "parameter(hidden=True)]) -> object:")
    )
    as_test = ("replay", "sums", "r1", "login", "--as-test", "test_login.py")

    said = folder.dbnd(*as_test, "--set", "password=kraken-7", code=code)

    assert message in said
    assert "kraken" not in said
    assert not list(folder.path.glob("test_login*"))


def test_a_pytest_case_of_recorded_code_is_refused(folder: Folder) -> None:
    as_test = ("replay", "sums", "r1", "total", "--as-test", "test_total.py")

    said = folder.dbnd(*as_test, "--recorded-code", code=2)

    assert "Leave --recorded-code out" in said


def test_a_failed_run_goes_on_from_where_it_stopped(folder: Folder) -> None:
    folder.edit("return float", "raise ValueError('bad day')\n    return float")
    folder.dbnd("run", "sums.py:sums", "--set", "make.n=7", "--run-id", "r3", "-q", code=1)
    folder.edit()

    said = folder.dbnd("resume", "r3")

    assert "make: reused from run r3" in said
    assert (folder.path / ".dbnd" / "store" / "total.json").read_text().strip() == "21.0"
    assert "total: reused" not in said


def test_resuming_runs_again_what_changed_since(folder: Folder) -> None:
    folder.edit("return float", "raise ValueError('bad day')\n    return float")
    folder.dbnd("run", "sums.py:sums", "--run-id", "r4", "-q", code=1)
    folder.edit("raw.head(n)", "raw.head(n + 1)")

    said = folder.dbnd("resume", "r4")

    assert "make: reused" not in said
    assert (folder.path / ".dbnd" / "store" / "total.json").read_text().strip() == "465.0"


def test_resuming_keeps_the_runs_logical_date_whatever_the_day(folder: Folder) -> None:
    (folder.path / "dated.py").write_text(
        """
import datetime as dt
import os
from airflow_provider_dbnd import LOGICAL_DATE, pipeline, task

@task
def day(of: dt.date = LOGICAL_DATE) -> str:
    return str(of)

@task
def fails(of: str) -> str:
    if not os.path.exists("ready"):
        raise FileNotFoundError("ready")
    return of

@pipeline
def dated():
    return fails(day())
"""
    )
    folder.dbnd("run", "dated.py", "--run-id", "d1", "-q", code=1)
    (start,) = (folder.path / ".dbnd" / "store" / "_starts" / "dated").glob("d1.json")
    start.write_text(re.sub(r'"date": "[0-9-]+"', '"date": "2020-02-29"', start.read_text()))
    (folder.path / "ready").touch()

    assert "fails.result = '2020-02-29'" in folder.dbnd("resume", "d1")


def test_resuming_looks_into_the_store_that_is_named(folder: Folder) -> None:
    elsewhere = folder.path / "elsewhere"
    folder.edit("return float", "raise ValueError('bad day')\n    return float")
    folder.dbnd("run", "sums.py:sums", "--run-id", "r8", "-q", code=1, DBND_STORE=str(elsewhere))
    folder.edit()

    said = folder.dbnd("resume", "r8", "--store", str(elsewhere))

    assert f"store {elsewhere}  (--store)" in said
    assert "make: reused from run r8" in said


def test_airflow_dbnd_replays_from_airflows_store(folder: Folder) -> None:
    store = folder.path / ".dbnd" / "store"
    code = (
        "from airflow_provider_dbnd.cli.main import main;"
        "raise SystemExit(main(['replay', 'sums', 'r1', 'make'], airflow=True))"
    )
    home = folder.path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DBND__STORE": str(store),
        },
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "result: as recorded" in done.stdout


def test_a_run_that_is_none_is_named(folder: Folder) -> None:
    assert "did you mean 'r1'?" in folder.dbnd("resume", "r11", code=2)


def test_hidden_values_are_not_kept_for_resuming(folder: Folder) -> None:
    folder.dbnd("run", "sums.py:sums", "--set", "password=kraken-7", "--run-id", "r5", "-q")

    assert not [name for name, data in folder.stored().items() if b"kraken" in data]


@pytest.mark.parametrize("key", ["password", "sums.password", "login.password"])
def test_a_hidden_value_that_was_set_is_asked_for_when_a_run_is_resumed(
    folder: Folder, key: str
) -> None:
    folder.dbnd("run", "sums.py:sums", "--set", f"{key}=kraken-7", "--run-id", "r9", "-q")

    said = folder.dbnd("resume", "r9", code=2)

    kind, owner = ("task", "login") if key == "login.password" else ("pipeline", "sums")
    named = "login.password" if key == "login.password" else "password"
    now = "call" if key == "login.password" else "default"
    assert said == (
        f"ParameterError: parameter 'password' of {kind} {owner!r} is hidden, so its value was not "
        f"recorded: expected it from --set, as the run had it, got it from {now}. Give it by "
        f"--set {named}=...\n"
    )
    assert "login.result = 8" in folder.dbnd("resume", "r9", "--set", f"{named}=kraken-7")


def test_a_hidden_value_from_the_environment_has_to_be_there_when_a_run_is_resumed(
    folder: Folder,
) -> None:
    variable = {"DBND__SUMS__PASSWORD": "kraken-7"}
    folder.dbnd("run", "sums.py:sums", "--run-id", "r10", "-q", **variable)

    said = folder.dbnd("resume", "r10", code=2)

    assert "from environment variable DBND__SUMS__PASSWORD, as the run had it, got it from" in said
    assert "login.result = 8" in folder.dbnd("resume", "r10", **variable)


def test_a_run_is_of_its_pipeline_whatever_id_others_have(folder: Folder) -> None:
    source = SOURCE.replace("def sums(", "def others(").replace("[1, 2, 3]", "[1]")
    (folder.path / "others.py").write_text(source)
    folder.dbnd("run", "others.py", "--run-id", "r1", "-q")

    said = folder.dbnd("resume", "r1", code=2)

    store = folder.path / ".dbnd" / "store"
    assert said == (
        f"ParameterError: store file://{store} has a run 'r1' of each of others, sums: name one by "
        "--pipeline.\n"
    )
    assert "sums: success" in folder.dbnd("resume", "r1", "--pipeline", "sums")
    assert "others: success" in folder.dbnd("resume", "r1", "--pipeline", "others")
    said = folder.dbnd("resume", "r1", "--pipeline", "summ", code=2)
    assert "no local run of pipeline 'summ'; did you mean 'sums'?" in said


def test_why_tells_what_would_be_reused_and_which_part_changed(folder: Folder) -> None:
    assert "make: would run, reuse is off for this task" in folder.dbnd("why", "sums.py:sums")
    folder.dbnd("run", "sums.py:sums", "--reuse", "--run-id", "r6", "-q")
    on = ("why", "sums.py:sums", "--set", "reuse=on")
    before = folder.stored()

    assert "total: would be reused from run r6" in folder.dbnd(*on)
    said = folder.dbnd(*on, "--set", "total.factor=3")
    assert "total: would run, no result with this key" in said
    assert 'parameter factor: {"value": ["int", 1]} -> {"value": ["int", 3]}' in said
    folder.edit("raw.head(n)", "raw.head(n)[::1]")
    said = folder.dbnd(*on)
    assert "code sums.make: " in said
    assert "total: would run, what it depends on would run" in said
    assert folder.stored() == before
