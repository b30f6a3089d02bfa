"""dbnd runs and dbnd artifacts: what they print, as text and as JSON, and how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airflow_provider_dbnd import Run, load
from airflow_provider_dbnd.cli.main import main

PIPELINE = """
from datetime import datetime
from typing import Annotated, Any
from pandas import DataFrame, date_range
from airflow_provider_dbnd import load, log_metric, output, parameter, pipeline, task

@task
def make(n: int = 3, token: Annotated[str, parameter(hidden=True)] = "hush") -> DataFrame:
    if n < 0:
        raise ValueError("a negative number of rows")
    return DataFrame({"day": date_range("2026-01-01", periods=n), "x": range(n)})

@task
def count(data: DataFrame) -> int:
    log_metric("rows", len(data))
    return len(data)

@task
def both(data: DataFrame) -> tuple[DataFrame, int]:
    return data[:1], 1

@task
def pieces(n: int) -> list[int]:
    return list(range(n))

@task
def double(piece: int) -> int:
    log_metric("value", 2 * piece)
    return 2 * piece

@pipeline
def daily(n: int = 3):
    data = make(n)
    double.expand(piece=pieces(n))
    return count(data), both(data)

dag = daily.as_dag()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the runs d1, d2 and d3, of 1, 2 and 3 rows."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("DBND")]:
        monkeypatch.delenv(name)
    (tmp_path / "daily_.py").write_text(PIPELINE)
    for n in (1, 2, 3):
        run(n, f"d{n}", f"2026-01-0{n}")
    return tmp_path


def run(n: int, run_id: str, date: str = "2026-01-09") -> int:
    arguments = ["--set", f"n={n}", "--run-id", run_id, "--date", date, "--quiet"]
    return main(["run", "daily_.py", *arguments])


@pytest.fixture
def dbnd(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that ends with *code*; return what it prints."""

    def command(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main([*arguments]) == code, capsys.readouterr()
        done = capsys.readouterr()
        return done.out if code < 2 else done.err

    return command


def timeless(text: str) -> str:
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME", text)
    return re.sub(r" +", " ", re.sub(r"\d+\.\d\d s", "SECONDS", text))


def test_runs_are_listed_newest_first(dbnd: Callable[..., str]) -> None:
    run(-1, "d4")

    lines = timeless(dbnd("runs")).splitlines()

    assert lines == [
        "run pipeline status started time tasks metrics",
        "d4 daily failed TIME SECONDS 1 success, 1 failed",
        "d3 daily success TIME SECONDS 5 success count.rows=3 double[0].value=0 double[1].value=2 +1",
        "d2 daily success TIME SECONDS 5 success count.rows=2 double[0].value=0 double[1].value=2",
        "d1 daily success TIME SECONDS 5 success count.rows=1 double[0].value=0",
    ]


def test_runs_as_json(dbnd: Callable[..., str]) -> None:
    (document,) = json.loads(dbnd("runs", "daily", "--limit", "1", "--json"))

    assert document == {
        **document,
        "run": "d3",
        "pipeline": "daily",
        "status": "success",
        "tasks": {"success": 5, "failed": 0, "skipped": 0},
        "logical_date": "2026-01-03",
        "partition": "2026-01-03",
    }
    assert document["metrics"]["count.rows"] == 3
    assert document["seconds"] == pytest.approx(Run("daily", "d3").seconds, abs=1e-6)


def test_an_empty_store_has_no_runs(
    dbnd: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "--store", "nowhere"]) == 0
    assert capsys.readouterr().err == f"No runs in file://{os.getcwd()}/nowhere.\n"
    assert json.loads(dbnd("runs", "--store", "nowhere", "--json")) == []
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("runs", "dayli"), "has no run of 'dayli'; did you mean 'daily'?"),
        (("artifacts", "list", "dayli"), "has no run of 'dayli'; did you mean 'daily'?"),
        (("artifacts", "show", "daily/cuont"), "has no task 'cuont' in"),
        (("artifacts", "show", "daily/count@d9"), "no run 'd9' of 'daily'; there are: d1, d2, d3."),
        (("artifacts", "history", "daily/both"), "has 2 outputs, name one: daily/both/result_1, "),
        (("artifacts", "diff", "daily"), "'daily' names a pipeline: expected PIPELINE/TASK"),
        (
            ("artifacts", "untag", "daily/count", "prod"),
            "daily/count has no tag 'prod'; there are n",
        ),
        (("artifacts", "tag", "daily/double[0]", "prod"), "a tag is on a whole output, not on"),
        (("artifacts", "tag", "daily/count", ""), "or tag needs a name of one character at least"),
        (("artifacts", "untag", "daily/count@d1", "p"), "this takes no version, leave @d1 out."),
        (
            ("artifacts", "get", "daily/make", "x.nope"),
            "there is no format for the extension 'nope'",
        ),
        (("artifacts", "get", "daily/make", "daily_.py"), "daily_.py is there already: --force"),
        (("artifacts", "shwo", "daily/count"), "No such command 'shwo'"),
    ],
)
def test_a_wrong_name_is_one_line_and_exit_code_2(
    dbnd: Callable[..., str], arguments: tuple[str, ...], message: str
) -> None:
    error = dbnd(*arguments, code=2)

    assert message in error
    assert "Traceback" not in error


def test_outputs_are_listed_with_their_newest_version(dbnd: Callable[..., str]) -> None:
    digest = "[0-9a-f]{12}"
    lines = timeless(dbnd("artifacts", "list")).splitlines()

    expected = [
        "output type rows size digest run made tags",
        rf"daily/both/result_1 pandas.DataFrame 1 [\d,]+ bytes {digest} d3 TIME",
        f"daily/both/result_2 int {digest} d3 TIME",
        f"daily/count/result int {digest} d3 TIME",
        f"daily/double/result list {digest} d3 TIME",
        rf"daily/make/result pandas.DataFrame 3 [\d,]+ bytes {digest} d3 TIME",
        f"daily/pieces/result list {digest} d3 TIME",
    ]
    assert all(re.fullmatch(e, line) for e, line in zip(expected, lines, strict=True)), lines
    assert len(json.loads(dbnd("artifacts", "list", "daily/both", "--json"))) == 2
    (one,) = json.loads(dbnd("artifacts", "list", "daily/both/result_2", "--json"))
    assert (one["version"], one["value"], one["tags"]) == ("daily/both/result_2@d3", 1, {})


def test_what_a_failed_run_made_last_is_not_the_newest_version(dbnd: Callable[..., str]) -> None:
    run(-1, "d4")

    newest = {each["name"]: each["run"] for each in json.loads(dbnd("artifacts", "list", "--json"))}

    assert newest["daily/make/result"] == "d3"


def test_a_version_is_shown_with_who_made_and_who_read_it(dbnd: Callable[..., str]) -> None:
    lines = timeless(dbnd("artifacts", "show", "daily/make")).splitlines()

    assert lines[0] == "daily/make/result@d3"
    assert re.fullmatch(r" what pandas.DataFrame, 3 rows, [\d,]+ bytes, as arrow", lines[2])
    assert lines[3].startswith(f" uri file://{os.getcwd()}/.dbnd/store/daily/make/result/")
    assert lines[4] == " made by make (daily_.py, line 7), try 1, TIME, SECONDS"
    assert lines[5:] == [
        " from n = 3 (--set)",
        " from token = '***' (default)",
        " read by count.data",
        " read by both.data",
        " column day timestamp[us]",
        " column x int64",
    ]


def test_a_version_is_shown_as_json(dbnd: Callable[..., str]) -> None:
    (document,) = json.loads(dbnd("artifacts", "show", "daily/count@d2", "--json"))

    assert document["value"] == 2
    assert document["made_by"]["task"] == "count"
    assert document["made_by"]["function"]["name"] == "count"
    (read,) = document["inputs"]["data"]
    assert read["rows"] == 2
    assert document["parameters"]["data"]["source"] == "task make"


def test_readers_of_a_small_value_are_found_by_it(dbnd: Callable[..., str]) -> None:
    (document,) = json.loads(dbnd("artifacts", "show", "daily/pieces", "--json"))

    assert document["read_by"] == []  # its elements were read, not itself
    (document,) = json.loads(dbnd("artifacts", "show", "daily/make@d1", "--runs", "3", "--json"))
    assert {r["run"] for r in document["read_by"]} == {"d1"}


def test_readers_in_other_runs_are_found_where_asked(dbnd: Callable[..., str]) -> None:
    run(3, "again")  # equal data: the same object

    (alone,) = json.loads(dbnd("artifacts", "show", "daily/make@d3", "--json"))
    (more,) = json.loads(dbnd("artifacts", "show", "daily/make@d3", "--runs", "2", "--json"))

    assert {r["run"] for r in alone["read_by"]} == {"d3"}
    assert {r["run"] for r in more["read_by"]} == {"d3", "again"}


def test_history_says_which_versions_changed(dbnd: Callable[..., str]) -> None:
    run(3, "again")

    text = dbnd("artifacts", "history", "daily/make")
    lines = timeless(text).splitlines()
    documents = json.loads(dbnd("artifacts", "history", "daily/make/result", "--json"))

    assert lines[0] == "run made partition type rows size digest tags"
    assert re.match(
        r"again TIME 2026-01-09 pandas.DataFrame 3 [\d,]+ bytes [0-9a-f]{12}$", lines[1]
    )
    assert re.match(r"d3 TIME 2026-01-03 pandas.DataFrame 3 .* changed$", lines[2])
    assert [(d["run"], d["changed"], d["rows"]) for d in documents] == [
        ("again", False, 3),
        ("d3", True, 3),
        ("d2", True, 2),
        ("d1", True, 1),
    ]
    (newest,) = json.loads(dbnd("artifacts", "history", "daily/make", "--limit", "1", "--json"))
    assert newest["changed"] is False


def test_two_versions_are_compared(dbnd: Callable[..., str]) -> None:
    text = dbnd("artifacts", "diff", "daily/make@d1", "@d3", code=1)

    assert re.sub(" +", " ", text).splitlines()[2:] == [
        "rows 1 -> 3 (0 removed, 2 added)",
        " day 0 differ max 2026-01-01T00:00:00 -> 2026-01-03T00:00:00",
        " x 0 differ max 0 -> 2 mean 0 -> 1",
    ]
    document = json.loads(
        dbnd("artifacts", "diff", "daily/make@d1", "daily/make@d3", "--json", code=1)
    )
    assert (document["rows_added"], document["same"]) == (2, False)
    assert document["before"]["version"] == "daily/make/result@d1"


def test_rows_are_matched_by_a_key(dbnd: Callable[..., str]) -> None:
    text = dbnd("artifacts", "diff", "daily/make@d1", "@d2", "--key", "x", code=1)

    assert "  + x=1" in text.splitlines()


def test_one_version_is_compared_with_the_newest_and_the_newest_with_the_last_other(
    dbnd: Callable[..., str],
) -> None:
    run(3, "again")

    first = dbnd("artifacts", "diff", "daily/count@d1", code=1).splitlines()
    last = dbnd("artifacts", "diff", "daily/count", code=1).splitlines()

    assert [line.split()[1] for line in first[:2]] == [
        "daily/count/result@d1",
        "daily/count/result@again",
    ]
    assert [line.split()[1] for line in last[:2]] == [
        "daily/count/result@d2",
        "daily/count/result@again",
    ]
    assert last[2:] == ["first values that differ", "  value  2  3"]
    assert dbnd("artifacts", "diff", "daily/count@d3", code=0).splitlines()[2:] == ["the same data"]


def test_numbers_that_round_to_the_same_are_shown_in_full(
    dbnd: Callable[..., str], folder: Path
) -> None:
    for number in ("1.00000001", "1.00000002"):
        (folder / "tiny.py").write_text(
            "from airflow_provider_dbnd import pipeline, task\n"
            f"@task\ndef t() -> float: return {number}\n"
            "@pipeline\ndef tiny(): return t()\n"
        )
        assert main(["run", "tiny.py", "--quiet"]) == 0

    text = dbnd("artifacts", "diff", "tiny/t", code=1)

    assert text.splitlines()[-1] == "  value  1.00000001  1.00000002"


def test_a_version_is_promoted_loaded_and_taken_off(dbnd: Callable[..., str]) -> None:
    tagged = dbnd("artifacts", "tag", "daily/count@d1", "prod")
    assert re.fullmatch(r"daily/count/result@d1 is prod  \([0-9a-f]{12}\)\n", tagged)
    assert load("daily/count", tag="prod") == 1

    dbnd("artifacts", "tag", "daily/count@d2", "prod")
    dbnd("artifacts", "tag", "daily/count", "next")
    listed = json.loads(dbnd("artifacts", "list", "--tags", "--json"))
    assert [(each["tag"], each["run"]) for each in listed] == [("next", "d3"), ("prod", "d2")]
    lines = dbnd("artifacts", "list", "daily/count").splitlines()
    assert lines[1].endswith("next, prod (d2)")
    assert dbnd("artifacts", "history", "daily/count").splitlines()[2].endswith("prod")
    assert dbnd("artifacts", "show", "daily/count@tag:prod").splitlines()[0].endswith("@d2")

    assert dbnd("artifacts", "untag", "daily/count", "prod") == (
        "daily/count/result has no tag prod any more\n"
    )
    history = json.loads(dbnd("artifacts", "history", "daily/count", "--tags", "--json"))
    assert [(each["tag"], each["run"]) for each in history] == [
        ("prod", None),
        ("next", "d3"),
        ("prod", "d2"),
        ("prod", "d1"),
    ]
    assert "taken off" in dbnd("artifacts", "history", "daily/count", "--tags").splitlines()[1]


def test_a_task_with_several_outputs_is_promoted_as_a_whole(dbnd: Callable[..., str]) -> None:
    made = json.loads(dbnd("artifacts", "tag", "daily/both@d1", "prod", "--json"))

    assert [each["name"] for each in made] == ["daily/both/result_1", "daily/both/result_2"]
    assert list(load("daily/both", tag="prod")) == ["result_1", "result_2"]


def test_a_version_without_its_manifests_is_still_shown_by_its_tag(
    dbnd: Callable[..., str], folder: Path
) -> None:
    dbnd("artifacts", "tag", "daily/make@d1", "prod")
    subprocess.run(["rm", "-r", str(folder / ".dbnd/store/_runs")], check=True)

    lines = dbnd("artifacts", "show", "daily/make@tag:prod").splitlines()

    assert "  made by  run d1, whose manifest is gone" in lines
    assert "  tags     prod" in lines


@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("made.arrow", pd.read_feather),
        ("made.parquet", pd.read_parquet),
        ("made.feather", pd.read_feather),
    ],
)
def test_a_version_is_copied_or_converted_by_the_extension(
    dbnd: Callable[..., str], file: str, read: Callable[..., Any]
) -> None:
    text = dbnd("artifacts", "get", "daily/make@d2", file)

    assert re.fullmatch(rf"daily/make/result@d2 -> {file}  \([\d,]+ bytes\)\n", text)
    assert read(file)["x"].tolist() == [0, 1]


def test_a_format_that_loses_something_is_written_and_says_so(
    dbnd: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["artifacts", "get", "daily/make@d2", "made.csv"]) == 0

    assert capsys.readouterr().err == (
        "made.csv does not keep everything: csv would lose something: column 'day' of type "
        "timestamp[us] would come back as string\n"
    )
    assert Path("made.csv").read_text() == "day,x\n2026-01-01,0\n2026-01-02,1\n"


def test_small_values_and_parts_are_written(dbnd: Callable[..., str]) -> None:
    dbnd("artifacts", "get", "daily/count", "count.json")
    dbnd("artifacts", "get", "daily/double", "all.json")
    dbnd("artifacts", "get", "daily/double[2]", "one.json")

    texts = [Path(name).read_text() for name in ("count.json", "all.json", "one.json")]
    assert texts == ["3", "[0,2,4]", "4"]


def test_a_file_is_replaced_only_with_force(dbnd: Callable[..., str]) -> None:
    Path("count.json").write_text("mine")

    dbnd("artifacts", "get", "daily/count", "count.json", code=2)
    assert Path("count.json").read_text() == "mine"
    document = json.loads(
        dbnd("artifacts", "get", "daily/count", "count.json", "--force", "--json")
    )

    assert Path("count.json").read_text() == "3"
    assert document["file"] == f"file://{os.getcwd()}/count.json"


def test_a_damaged_artifact_is_not_exported(dbnd: Callable[..., str]) -> None:
    path = load("daily/make", Path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)

    error = dbnd("artifacts", "get", "daily/make", "made.arrow", code=2)

    assert error.startswith("ArtifactCorruptedError: ")
    assert not Path("made.arrow").exists()


def test_a_damaged_manifest_is_skipped_with_a_warning_in_lists(folder: Path) -> None:
    (path,) = (folder / ".dbnd/store/_runs/daily/d2/count").rglob("*.json")
    path.write_text("{")

    listed = process("runs")
    shown = process("artifacts", "show", "daily/count@d2")

    assert listed.returncode == 0
    assert "WARNING skipped: Manifest _runs/daily/d2/count/-1/1.json in " in listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == ["d3", "d2", "d1"]
    assert shown.returncode == 2
    assert shown.stderr.startswith(
        "ArtifactCorruptedError: Manifest _runs/daily/d2/count/-1/1.json"
    )


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "airflow_provider_dbnd.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_store_of_an_environment_is_read(dbnd: Callable[..., str], folder: Path) -> None:
    (folder / ".dbnd/store").rename(folder / "prod")
    (folder / "dbnd.toml").write_text('[environments.prod]\nstore = "prod"\n')

    assert json.loads(dbnd("runs", "--json")) == []
    assert len(json.loads(dbnd("runs", "--env", "prod", "--json"))) == 3
    assert len(json.loads(dbnd("runs", "--store", "prod", "--json"))) == 3


def test_listing_runs_loads_no_data_library(folder: Path) -> None:
    code = (
        "import sys\nfrom airflow_provider_dbnd.cli.main import main\n"
        "assert main(['runs']) == 0 and main(['artifacts', 'list']) == 0\n"
        "print([m for m in ('airflow', 'pandas', 'pyarrow', 'polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_airflow_dbnd_reads_the_store_airflow_is_configured_with(
    folder: Path, airflow_db: str, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from airflow.cli.cli_parser import get_parser

    monkeypatch.setenv("AIRFLOW__DBND__STORE", str(folder / ".dbnd" / "store"))
    arguments = get_parser().parse_args(["dbnd", "runs", "--json", "--limit", "1"])
    os.chdir("/")  # where the settings would name another store
    capfd.readouterr()

    with pytest.raises(SystemExit) as ended:
        arguments.func(arguments)

    assert ended.value.code == 0
    assert [each["run"] for each in json.loads(capfd.readouterr().out)] == ["d3"]


def test_a_task_in_airflow_loads_what_a_run_before_it_made(
    tmp_path: Path,
    parse_dag: Callable[..., Any],
    run_dag: Callable[..., Any],
    store_url: str,
) -> None:
    dag = parse_dag(
        "from airflow_provider_dbnd import load, pipeline, task\n"
        "@task\ndef add(n: int) -> int:\n"
        "    try:\n        before = load('adds_up/add')\n"
        "    except FileNotFoundError:\n        before = 0\n"
        "    return before + n\n"
        "@pipeline\ndef adds_up(n: int = 2): return add(n)\n"
        "dag = adds_up.as_dag()\n"
    )

    runs = [run_dag(dag) for _ in range(2)]

    assert [each.state for each in runs] == ["success", "success"]
    assert load("adds_up/add", store=store_url) == 4
    assert load("adds_up/add", run=runs[0].run_id, store=store_url) == 2
    assert Run("adds_up", store=store_url).status == "success"
