"""dbnd check, dbnd test-task and airflow dbnd: the commands that need Airflow."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.cli.main import main

PIPELINE = """
from pandas import DataFrame
from airflow_provider_dbnd import pipeline, task

@task
def make(n: int = 3) -> DataFrame:
    return DataFrame({{"x": range(n)}})

@task
def count(data: DataFrame, factor: int = 1) -> int:
    return factor * len(data) // (0 if factor == 13 else 1)

@pipeline
def {name}(n: int = 3):
    return count(make(n))

{dag}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, airflow_db: str) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("DBND")]:
        monkeypatch.delenv(name)
    return tmp_path


def write(name: str, dag: str) -> str:
    path = f"{name}.py"
    Path(path).write_text(PIPELINE.format(name=name, dag=dag))
    return path


def test_check_says_what_airflow_would_find(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("checked", "dag = checked.as_dag()")

    assert main(["check", path]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{path}: ok: DAG checked: 2 tasks"


@pytest.mark.parametrize(
    ("dag", "message"),
    [
        (
            "",
            "error: Airflow skips files without the word 'dag' in them ([core] "
            "dag_discovery_safe_mode). Write `dag = your_pipeline.as_dag()`.",
        ),
        (
            "# a dag without one",
            "error: no DAG in this file; add `dag = unchecked.as_dag()` at module level.",
        ),
        ("dag = unchecked.as_dag(); 1 / 0", "error: import error in Airflow:"),
    ],
)
def test_check_fails_with_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], dag: str, message: str
) -> None:
    path = write("unchecked", dag)

    assert main(["check", path]) == 1
    assert f"{path}: {message}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (
            "count(rows=make(3))",
            "airflow_provider_dbnd.exceptions.SignatureError: count(): got an unexpected keyword "
            "argument 'rows'.",
        ),
        (
            "count(min([], key=lambda each: each))",
            "airflow_provider_dbnd.exceptions.GraphError: Pipeline 'body' failed while its graph was "
            "built:",
        ),
    ],
)
def test_check_names_the_line_of_an_error_in_a_body(
    folder: Path, capsys: pytest.CaptureFixture[str], statement: str, error: str
) -> None:
    path = write("body", "dag = body.as_dag()")
    Path(path).write_text(Path(path).read_text().replace("count(make(n))", statement))

    assert main(["check", path]) == 1
    report = capsys.readouterr().out.rpartition(error)[2].splitlines()
    assert report[1].strip() in (
        f"at {folder}/body.py:15",
        f'File "{folder}/body.py", line 15, in body',
    )


def test_check_of_no_file_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "no.py"]) == 2
    assert capsys.readouterr().err == "ConfigurationError: No such file: no.py.\n"


def test_a_task_runs_on_the_upstream_results_of_a_past_run(
    folder: Path,
    parse_dag: Callable[..., Any],
    run_dag: Callable[..., Any],
    store_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = Path(write("tested", "dag = tested.as_dag()"))
    dag = parse_dag(source, "tested")
    assert run_dag(dag, n=5).state == "success"
    capsys.readouterr()

    assert main(["test-task", "tested", "count", "--file", dag.fileloc]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"dbnd test-task tested count  \(upstream from run .+\)", lines[0])
    assert lines[-1] == "  count.result = 5"

    command = ["test-task", "tested", "count", "--file", dag.fileloc, "--set"]
    assert main([*command, "count.factor=2"]) == 0
    assert "  count.result = 10" in capsys.readouterr().out
    assert main([*command, "count.factor=13"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("testd", "count"), "No DAG 'testd' in known.py"),
        (("known", "cuont"), "DAG 'known' has no task 'cuont'; did you mean 'count'?"),
        (("known", "count"), "has no run of 'known'. Run it once, or name another store by"),
        (("known", "make", "--run", "x"), None),
    ],
)
def test_a_task_that_cannot_be_tested_is_an_error(
    folder: Path,
    store_url: str,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str | None,
) -> None:
    write("known", "dag = known.as_dag()")

    code = main(["test-task", *arguments, "--file", "known.py"])

    error = capsys.readouterr().err
    if message is None:
        assert code == 0, error  # it needs nothing of upstream
    else:
        assert code == 2
        assert message in error


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["list", "no.py", "--help"], "Usage: dbnd list "),
        (["--version"], "dbnd "),
        (["--verbose", "list", "--help"], "Usage: dbnd list "),
        ([], "Usage: dbnd "),
    ],
)
def test_airflow_dbnd_is_the_same_command(
    capfd: pytest.CaptureFixture[str], words: list[str], printed: str
) -> None:
    from airflow.cli.cli_parser import get_parser

    arguments = get_parser().parse_args(["dbnd", *words])
    with pytest.raises(SystemExit) as ended:
        arguments.func(arguments)

    assert ended.value.code == 0
    assert capfd.readouterr().out.startswith(printed)


def test_the_help_of_airflow_dbnd_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    from airflow.cli.cli_parser import get_parser

    assert main(["--help"]) == 0
    listed = re.findall(r"^  ([a-z-]+)  ", capsys.readouterr().out.partition("Commands:")[2], re.M)
    with pytest.raises(SystemExit):
        get_parser().parse_args(["dbnd", "--help"])

    told = " ".join(capsys.readouterr().out.split())
    assert "replay" in listed
    assert f"The commands of dbnd: {', '.join(listed)}. `airflow dbnd COMMAND --help`" in told


HIDDEN = """
from typing import Annotated
from airflow_provider_dbnd import parameter, pipeline, task

@task
def plain(x: str, y: list[str] = []) -> int:
    raise ValueError(f"refused {x} and {y}")

@task
def each(x: str) -> int:
    raise ValueError(f"refused {x}")

@pipeline
def secretive(token: Annotated[str, parameter(hidden=True)] = "kraken\\\\7", n: str = "open"):
    plain(token, [token, n])
    each.expand(x=["first", token])

dag = secretive.as_dag()
"""


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["plain"], "  x  ***  default\n  y  ***  call\n"),
        (["each", "--map-index", "1"], "  x  ***  call\n"),
        (["plain", "--set", "token=kraken 8"], "  x  ***  --set\n  y  ***  call\n"),
    ],
    ids=["call", "mapped", "set"],
)
def test_a_hidden_pipeline_parameter_is_masked_in_what_test_task_prints(
    folder: Path,
    store_url: str,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    shown: str,
) -> None:
    Path("secretive.py").write_text(HIDDEN)

    assert main(["test-task", "secretive", *words, "--file", "secretive.py"]) == 1

    printed = capsys.readouterr()
    assert shown in printed.out
    assert "ValueError: refused ***" in printed.err
    assert "kraken" not in printed.out + printed.err
