"""dbnd gc and dbnd fsck: what they print, as text and as JSON, and how they end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from airflow_provider_dbnd.cli.main import main

PIPELINE = """
from pandas import DataFrame
from airflow_provider_dbnd import pipeline, task

@task
def make(n: int = 3) -> DataFrame:
    return DataFrame({"x": range(n)})

@pipeline
def daily(n: int = 3):
    return make(n)

dag = daily.as_dag()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two runs, one of them ten days old."""
    for name in [n for n in os.environ if n.startswith("DBND")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "daily.py").write_text(PIPELINE)
    assert main(["run", "daily.py", "-q", "--run-id", "old", "--set", "n=2"]) == 0
    store = tmp_path / ".dbnd" / "store"
    for path in store.rglob("*.*"):
        os.utime(path, (path.stat().st_mtime - 864_000,) * 2)
    assert main(["run", "daily.py", "-q", "--run-id", "new"]) == 0
    return store


def artifacts(home: Path) -> list[str]:
    return [path.name for path in home.glob("daily/*/*/*")]


def test_gc_tells_what_would_go_and_deletes_when_asked(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gc", "--keep-days", "5"]) == 0
    told = capsys.readouterr().out
    assert "1 live, 1 dead" in told
    assert "would delete" in told
    assert "give --delete" in told
    assert len(artifacts(home)) == 2

    assert main(["gc", "--keep-days", "5", "--delete"]) == 0
    assert "deleted" in capsys.readouterr().out
    assert len(artifacts(home)) == 1


def test_how_a_run_was_started_goes_with_that_run_of_that_pipeline(home: Path) -> None:
    source = PIPELINE.replace("daily", "other")
    (home.parents[1] / "other.py").write_text(source)
    assert main(["run", "other.py", "-q", "--run-id", "old"]) == 0

    assert main(["gc", "--keep-last", "1", "--delete"]) == 0

    starts = {str(path.relative_to(home)) for path in home.rglob("_starts/*/*")}
    assert starts == {"_starts/daily/new.json", "_starts/other/old.json"}


def test_gc_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--keep-days", "5", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == {"live": 1, "dead": 1}
    (row,) = told["tasks"]
    assert (row["pipeline"], row["task"]) == ("daily", "make")
    assert (row["dead"]["objects"], row["live"]["objects"]) == (1, 1)
    assert row["dead"]["bytes"] > 100
    assert not told["deleted"]


def test_the_rules_are_those_of_the_settings(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dbnd.toml").write_text("[gc]\nkeep_days = 5\n[environments.dev.gc]\nkeep_last = 9")

    assert main(["gc"]) == 0
    assert "1 live, 1 dead" in capsys.readouterr().out
    assert main(["gc", "--env", "dev"]) == 0
    assert "2 live, 0 dead" in capsys.readouterr().out


def test_without_a_rule_gc_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--delete"]) == 0

    assert "No rule lets runs go" in capsys.readouterr().out
    assert len(artifacts(home)) == 2


def test_a_wrong_rule_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--grace", "1m"]) == 2

    assert "grace is 0:01:00: expected 1:00:00 or more" in capsys.readouterr().err


def test_fsck_ends_with_1_where_a_promise_is_not_kept(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fsck", "--full"]) == 0
    assert "0 problems, 0 notes" in capsys.readouterr().out
    next(home.glob("daily/make/result/*")).unlink()

    assert main(["fsck"]) == 1
    assert "problem: missing: daily/make/result/" in capsys.readouterr().out
    assert main(["fsck", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["level"], found["kind"]) == ("problem", "missing")
    assert found["remedy"]


@pytest.mark.parametrize("where", ["nowhere", "elsewhere"])
@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["text", "json"])
def test_fsck_of_what_is_no_store_is_an_error(
    home: Path, capsys: pytest.CaptureFixture[str], where: str, arguments: tuple[str, ...]
) -> None:
    url = home.with_name(where)
    if where == "elsewhere":
        url.mkdir()
        (url / "notes.txt").write_text("not a store")

    assert main(["fsck", "--store", str(url), *arguments]) == 2

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        f"ArtifactNotFoundError: file://{url} is no store with runs: expected manifests in _runs, "
        "found none. Check the URL, which is from --store, DBND_STORE or dbnd.toml; a new store has "
        "some after its first run.\n"
    )


def test_fsck_tells_what_lies_in_a_store_that_lost_its_manifests(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(home / "_runs")

    assert main(["fsck"]) == 0
    assert "note: garbage: daily/make/result/" in capsys.readouterr().out
