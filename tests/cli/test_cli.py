"""The dbnd command, as a process: output, exit codes, errors."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_dbnd import __version__

DBND = [sys.executable, "-m", "airflow_provider_dbnd.cli"]

PIPELINE = '''
"""A file."""
from typing import Annotated
from pandas import DataFrame
from airflow_provider_dbnd import log_metric, output, parameter, pipeline, task

@task
def prepare(raw: DataFrame, ratio: float = 0.5) -> tuple[DataFrame, DataFrame]:
    """Split a table."""
    cut = int(len(raw) * ratio)
    return raw[:cut], raw[cut:]

@task
def count(data: DataFrame, token: Annotated[str, parameter(hidden=True)] = "hush-default") -> int:
    log_metric("rows", len(data))
    if token == "very-secret":
        raise ValueError(f"no login with {token}")
    return len(data)

@pipeline
def split(raw: DataFrame = "raw.csv", loops: int = 1):
    """Split a table and count.

    More text.
    """
    first, second = prepare(raw)
    return [count(second) for _ in range(loops)]
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("DBND")]:
        monkeypatch.delenv(name)
    (tmp_path / "split.py").write_text(PIPELINE)
    (tmp_path / "raw.csv").write_text("x\n" + "1\n" * 10)
    return tmp_path


def dbnd(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DBND, *arguments], capture_output=True, text=True)


def timeless(text: str) -> str:
    """Replace what differs from run to run."""
    text = re.sub(r"\d+\.\d\d s, run local__\S+", "T s, run R", text)
    return re.sub(r"[0-9a-f]{32}-[0-9a-f]{12}", "D", text)


def test_run_prints_values_with_sources_results_and_metrics(folder: Path) -> None:
    done = dbnd("run", "split.py", "--set", "prepare.ratio=0.2", "--set", "raw=./raw.csv")

    sizes = [f"({n} rows, " for n in (2, 8)]
    lines = re.sub(r"[\d,]+ bytes", "B bytes", timeless(done.stdout)).splitlines()
    store = f"{folder}/.dbnd/store"
    assert (done.returncode, done.stderr) == (0, "")
    assert lines == [
        "dbnd run split.py --set prepare.ratio=0.2 --set raw=./raw.csv",
        f"  store {store}  (default)",
        "  raw    DataFrame  './raw.csv'  --set",
        "  loops  int        1            default",
        f"  prepare.result_1 = file://{store}/split/prepare/result_1/D.arrow  {sizes[0]}B bytes)",
        f"  prepare.result_2 = file://{store}/split/prepare/result_2/D.arrow  {sizes[1]}B bytes)",
        "  count.result = 8",
        "  count: rows = 8",
        "split: success, 2 tasks in T s, run R",
    ]


def test_a_failing_task_shows_the_users_frames_and_exits_with_1(folder: Path) -> None:
    (folder / "bad.py").write_text(
        "from airflow_provider_dbnd import pipeline, task\n"
        "@task\ndef bad() -> int:\n    return 1 / 0\n"
        "@task\ndef after(n: int) -> int:\n    return n\n"
        "@pipeline\ndef p(): return after(bad())\n"
    )

    done = dbnd("run", "bad.py")

    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "task bad failed:"
    assert f'  File "{folder}/bad.py", line 4, in bad' in done.stderr
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "airflow_provider_dbnd" not in done.stderr
    assert "  after: not run, an upstream task failed" in done.stdout
    assert "p: FAILED, 2 tasks in " in done.stdout


def test_one_task_of_a_file_runs_by_name(folder: Path) -> None:
    done = dbnd("run", "split.py:count", "--set", "data=raw.csv")

    assert done.returncode == 0, done.stderr
    assert "  count.result = 10" in done.stdout


def test_a_module_runs_by_its_dotted_name(folder: Path) -> None:
    done = dbnd("run", "split:split")

    assert done.returncode == 0, done.stderr


def test_an_environment_is_chosen_and_shown(folder: Path) -> None:
    (folder / "dbnd.toml").write_text('[environments.prod]\nstore = "prod_store"')

    done = dbnd("run", "split.py", "--env", "prod")

    assert done.stdout.splitlines()[:2] == [
        "dbnd run split.py --env prod",
        f"  store {folder}/prod_store  ({folder}/dbnd.toml [environments.prod])",
    ]
    assert (folder / "prod_store" / "split").is_dir()


def test_hidden_values_are_shown_nowhere(folder: Path) -> None:
    done = dbnd("--verbose", "run", "split.py", "--set", "count.token=very-secret")

    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "dbnd run split.py --set count.token=***"
    assert "ValueError: no login with ***" in done.stderr
    kept = [p.read_bytes() for p in (folder / ".dbnd").rglob("*") if p.is_file()]
    assert not any(b"very-secret" in content for content in kept)
    assert "very-secret" not in done.stdout + done.stderr
    assert "hush-default" not in dbnd("show", "split.py").stdout


def test_quiet_prints_nothing_but_errors(folder: Path) -> None:
    assert dbnd("run", "split.py", "--quiet").stdout == ""
    failed = dbnd("run", "split.py", "-q", "--set", "raw=no.csv")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(
        "task prepare failed: ArtifactNotFoundError: parameter 'raw' of task 'prepare' (from --set): "
        "'no.csv' matches no file"
    )


def test_parallel_and_date_and_run_id_are_taken(folder: Path) -> None:
    done = dbnd(
        "run", "split.py", "-p", "3", "--set", "loops=3", "--run-id", "mine", "--date", "2024-01-02"
    )

    assert done.returncode == 0, done.stderr
    assert "split: success, 4 tasks in " in done.stdout
    assert done.stdout.rstrip().endswith("run mine")
    manifest = folder / ".dbnd/store/_runs/split/mine/count__2/-1/1.json"
    assert '"logical_date":"2024-01-02"' in manifest.read_text()


@pytest.mark.parametrize("command", [("show",), ("run", "--describe")], ids=" ".join)
def test_show_and_describe_print_tasks_and_run_nothing(
    folder: Path, command: tuple[str, ...]
) -> None:
    done = dbnd(*command, "split.py")

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "pipeline split",
        "  Split a table and count.",
        f"  store {folder}/.dbnd/store  (default)",
        "  raw    DataFrame  'raw.csv'  default",
        "  loops  int        1          default",
        "  fixed when the graph is built: split.loops",
        "tasks",
        "  prepare -> result_1: DataFrame, result_2: DataFrame",
        "      raw    DataFrame  split.raw  pipeline parameter",
        "      ratio  float      0.5        default",
        "  count -> result: int  after prepare",
        "      data   DataFrame  <result of prepare['result_2']>  upstream task",
        "      token  str        ***                              default",
    ]
    assert not (folder / ".dbnd").exists()


def test_list_finds_what_is_decorated_and_imports_nothing_else(folder: Path) -> None:
    (folder / "script.py").write_text("raise SystemExit('this script was run')")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "x.py").write_text("import airflow_provider_dbnd; raise SystemExit('run')")

    done = dbnd("list")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "split.py:prepare  task      (raw, ratio)   Split a table.",
        "split.py:count    task      (data, token)",
        "split.py:split    pipeline  (raw, loops)   Split a table and count.",
    ]


def test_list_names_broken_files_and_goes_on(folder: Path) -> None:
    (folder / "broken.py").write_text("import airflow_provider_dbnd\nimport no_such_module\n")

    done = dbnd("list")

    assert done.returncode == 1
    assert "split.py:split" in done.stdout
    assert done.stderr == (
        "broken.py cannot be imported:\n"
        f'  File "{folder}/broken.py", line 2, in <module>\n'
        "    import no_such_module\n"
        "ModuleNotFoundError: No module named 'no_such_module'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "no.py"), "ConfigurationError: No such file: no.py."),
        (
            ("run", "split.py:splitt"),
            "ConfigurationError: split.py has no task or pipeline 'splitt'; did you mean 'split'?",
        ),
        (
            ("run", "split.py", "--set", "lops=1"),
            "ParameterError: unknown parameter 'lops' (from --set); did you mean 'loops'?",
        ),
        (
            ("run", "split.py", "--set", "loops"),
            "ParameterError: --set takes NAME=VALUE or TASK.NAME=VALUE, got 'loops'.",
        ),
        (
            ("run", "split.py", "--set", "loops=x"),
            "ParameterError: parameter 'loops' of pipeline 'split': expected int, got 'x' (from --set). "
            "Input should be a valid integer, unable to parse string as an integer.",
        ),
        (
            ("run", "split.py", "--env", "prod"),
            "ConfigurationError: Unknown environment 'prod' (no dbnd.toml was found); there are "
            "none.",
        ),
        (
            ("run", "split.py", "--date", "today"),
            "ConfigurationError: --date takes a day or a time such as 2026-01-31 or "
            "2026-01-31T06:00, got 'today'.",
        ),
        *(
            (
                (command, target),
                f"ConfigurationError: {target.removesuffix(':x')!r} names no file and no module: "
                "expected FILE.py[:NAME] or package.module[:NAME].",
            )
            for command, target in (("run", ""), ("run", ":x"), ("why", ""), ("show", ".."))
        ),
        *(
            (
                arguments,
                "ParameterError: A pipeline, run, task, output or tag needs a name of one character "
                "at least, got ''.",
            )
            for arguments in (
                ("replay", "split", "a", ""),
                ("replay", "", "a", "count"),
            )
        ),
        (
            ("run", "empty.py"),
            "ConfigurationError: empty.py has no function decorated with @pipeline or @task of "
            "airflow_provider_dbnd.",
        ),
        (
            ("run", "two.py"),
            "ConfigurationError: two.py has several: a, b. Name one: two.py:NAME.",
        ),
        (
            ("run", "no_such_module"),
            "ConfigurationError: no_such_module cannot be imported:\n"
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
    ],
)
def test_our_own_errors_are_a_message_and_exit_code_2(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    (folder / "empty.py").write_text("")
    (folder / "two.py").write_text(
        "from airflow_provider_dbnd import task\n@task\ndef a(): ...\n@task\ndef b(): ...\n"
    )

    done = dbnd(*arguments)

    assert (done.returncode, done.stderr.rstrip(), done.stdout) == (2, message, "")


BODIES = """from airflow_provider_dbnd import pipeline, task

@task
def one(n: int = 1) -> int:
    return n

@pipeline
def user():
    return one({}["k"])

@pipeline
def ours():
    return one(1 + one())
"""


@pytest.mark.parametrize("command", [("run",), ("run", "--describe"), ("show",), ("why",)])
def test_an_error_in_a_pipelines_body_shows_the_users_line_and_exits_with_2(
    folder: Path, command: tuple[str, ...]
) -> None:
    (folder / "bodies.py").write_text(BODIES)

    user, ours = dbnd(*command, "bodies.py:user"), dbnd(*command, "bodies.py:ours")

    lines = [line for line in user.stderr.splitlines() if not set(line) <= set(" ~^")]
    assert (user.returncode, user.stdout, ours.returncode, ours.stdout) == (2, "", 2, "")
    assert lines == [
        "GraphError: Pipeline 'user' failed while its graph was built:",
        f'  File "{folder}/bodies.py", line 9, in user',
        '    return one({}["k"])',
        "KeyError: 'k'",
    ]
    assert ours.stderr == (
        "GraphError: The result of task 'one' is not known while the graph is built, so it cannot "
        f"be calculated with. Calculate inside a task.\n  at {folder}/bodies.py:13\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("run", "split.py", "--nope"), ("fly",), ("run", "split.py", "-p", "0")],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(folder: Path, arguments: tuple[str, ...]) -> None:
    done = dbnd(*arguments)

    assert done.returncode == 2
    assert done.stderr.startswith("Usage: dbnd")
    assert "Traceback" not in done.stderr


def test_a_file_named_as_a_library_module_runs(folder: Path) -> None:
    (folder / "wave.py").write_text(PIPELINE)

    done = dbnd("run", "wave.py")

    assert done.returncode == 0, done.stderr


NATIVE = """
from airflow.sdk import {name}
from airflow_provider_dbnd import pipeline, task

@task
def one() -> int:
    return 1

@pipeline
def helper():
    return one()
"""


@pytest.mark.parametrize(
    ("name", "dag"),
    [
        ("DAG", 'with DAG("flow"):\n    helper()\n'),
        ("dag", "@dag\ndef flow():\n    helper()\nflow()\n"),
    ],
)
def test_a_pipeline_beside_a_dag_of_airflows_own_is_told(folder: Path, name: str, dag: str) -> None:
    (folder / "flow.py").write_text(NATIVE.format(name=name) + dag)

    done = dbnd("run", "flow.py", "-q")

    assert done.returncode == 0, done.stderr
    assert (
        "flow.py: this is pipeline 'helper', written flow.py:helper. A DAG in the file that as_dag() "
        "did not make is run by `airflow dags test`.\n"
    ) in done.stderr
    assert "helper" not in dbnd("run", "flow.py:helper", "-q").stderr


def test_the_dag_of_a_pipeline_needs_no_telling(folder: Path) -> None:
    source = NATIVE.format(name="Asset") + "flow = helper.as_dag()\n"
    (folder / "flow.py").write_text(source)

    done = dbnd("run", "flow.py", "-q")

    assert (done.returncode, done.stderr) == (0, "")


def test_version_and_help() -> None:
    assert dbnd("--version").stdout == f"dbnd {__version__}\n"
    text = dbnd("--help").stdout
    commands = re.findall(r"^  ([a-z][a-z-]*)  ", text, re.MULTILINE)
    assert commands[0] == "run"
    assert sorted(commands) == [
        "artifacts",
        "check",
        "fsck",
        "gc",
        "list",
        "replay",
        "resume",
        "run",
        "runs",
        "show",
        "test-task",
        "why",
    ]
    for command in commands:
        assert dbnd(command, "--help").returncode == 0


def on_a_terminal(*arguments: str) -> str:
    """Run with stdout and stderr on a pseudo-terminal; return what it shows."""
    main, child = pty.openpty()
    process = subprocess.Popen(
        [*DBND, *arguments], stdout=child, stderr=child, env={**os.environ, "TERM": "xterm"}
    )
    os.close(child)
    shown = b""
    try:
        while chunk := os.read(main, 4096):
            shown += chunk
    except OSError:  # the terminal is gone with the process
        pass
    os.close(main)
    assert process.wait() == 0
    return shown.decode()


def test_progress_is_shown_on_a_terminal_only(folder: Path) -> None:
    assert "\x1b[" in on_a_terminal("run", "split.py")
    assert "\x1b[" not in on_a_terminal("run", "split.py", "--quiet")
    piped = dbnd("run", "split.py")
    assert "\x1b[" not in piped.stdout + piped.stderr


def test_ctrl_c_ends_with_130(folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import time\nfrom airflow_provider_dbnd import task\n"
        "@task\ndef slow():\n    print('started', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [*DBND, "run", "slow.py", "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(2)
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert errors == "interrupted\n"


def test_hidden_arguments_of_a_fan_out_are_masked(folder: Path) -> None:
    Path("fan.py").write_text(
        "from typing import Annotated\n"
        "from airflow_provider_dbnd import parameter, pipeline, task\n"
        "Hidden = Annotated[str, parameter(hidden=True)]\n"
        "@task\n"
        "def login(token: Hidden) -> int:\n    raise ValueError(f'{token!r} is no login')\n"
        "@task\n"
        "def plain(token: str) -> int:\n    raise KeyError(f'{token} is no login')\n"
        "@pipeline\n"
        "def fan(one: Hidden = 'kraken\\\\1'):\n"
        "    login.expand(token=['kraken-2', one])\n"
        "    login.expand_kwargs([{'token': 'kraken-3'}])\n"
        "    plain.expand(token=[one, 'open'])\n"
        "    plain.expand_kwargs([{'token': one}])\n"
    )

    done = dbnd("run", "fan.py:fan")

    assert done.stderr.count("'***' is no login") == 2
    assert done.stderr.count("KeyError: '*** is no login'") == 2
    kept = [p.read_bytes() for p in (folder / ".dbnd").rglob("*") if p.is_file()]
    assert not any(b"kraken" in content for content in kept)
    assert "kraken" not in done.stdout + done.stderr
