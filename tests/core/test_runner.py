"""Running a graph here: order, failures, retries, rules, sensors, threads, manifests, crashes."""

from __future__ import annotations

import datetime as dt
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from local_project import Project
from pandas import DataFrame

from airflow_provider_dbnd import (
    log_duration,
    log_metric,
    log_metrics,
    parameter,
    pipeline,
    sensor,
    task,
)
from airflow_provider_dbnd.core.manifest import Manifest, read_manifest
from airflow_provider_dbnd.core.past.history import last_attempts, newest_run
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    GraphError,
    ParameterError,
    SignatureError,
    StoreError,
    TaskFailedError,
)

STARTED: list[str] = []
LOCK = threading.Lock()


@task
def step(name: str, after: Any = None) -> str:
    STARTED.append(name)
    return name


@task
def failing(name: str = "failing") -> str:
    STARTED.append(name)
    raise ValueError("no luck")


@task
def leaves() -> None:
    sys.exit(3)


@task(retries=2)
def third_time_lucky() -> int:
    STARTED.append("try")
    if len(STARTED) < 3:
        raise ConnectionError("not yet")
    return len(STARTED)


@task(retries=5)
def never_right(n: int) -> int:
    return n


@task
def half(n: int) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2


@task
def together(n: int) -> int:
    """Succeeds only where another instance runs at the same time."""
    BARRIER.wait(timeout=20)
    log_metric("n", n)
    return n


BARRIER = threading.Barrier(2)


@task
def measured(frame: DataFrame) -> int:
    log_metric("rows", len(frame))
    log_metrics({"mean": frame["x"].mean(), "nan": float("nan"), "name": "a"})
    with log_duration("slept"):
        time.sleep(0.01)
    return nested(len(frame))


@task
def nested(n: int) -> int:
    return n + 1


@sensor(poke_interval=0.01, timeout=5)
def arrives(path: str) -> Any:
    STARTED.append("poke")
    return Path(path).read_text() if len(STARTED) > 2 else None


@sensor(poke_interval=0.01, timeout=0.02)
def never(path: str) -> bool:
    return False


@pytest.fixture(autouse=True)
def nothing_started() -> None:
    STARTED.clear()


def test_tasks_run_after_what_they_depend_on(project: Project) -> None:
    @pipeline
    def p():
        last = step("last")
        last << step("first")  # type: ignore[operator]
        step("end", after=last)

    project.run(p)

    assert STARTED == ["first", "last", "end"]


def test_a_circle_is_refused(project: Project) -> None:
    @pipeline
    def p():
        a, b = step("a"), step("b")
        a >> b >> a  # type: ignore[operator]

    with pytest.raises(GraphError) as error:
        project.run(p)

    assert str(error.value) == (
        "Tasks wait for each other in a circle: step, step__1. Take one of their >> or arguments "
        "away."
    )


def test_a_failure_stops_only_what_depends_on_it(project: Project) -> None:
    @pipeline
    def p():
        step("after failure", after=failing())
        step("independent")
        step("anyway", after=step("x", task_id="x")) << failing(task_id="f2")  # type: ignore[call-arg, operator]

    result = project.run(p)

    assert not result.success
    assert {n: o.state for n, o in result.outcomes.items()} == {
        "failing": "failed",
        "step": "upstream_failed",
        "step__1": "success",
        "x": "success",
        "f2": "failed",
        "step__2": "upstream_failed",
    }
    assert "independent" in STARTED


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ("all_success", "upstream_failed"),
        ("all_done", "success"),
        ("one_success", "success"),
        ("one_failed", "success"),
        ("all_failed", "skipped"),
        ("none_failed_min_one_success", "upstream_failed"),
        ("always", "success"),
        ("TriggerRule.ALL_DONE", "success"),
    ],
)
def test_trigger_rules_are_airflows(project: Project, rule: str, state: str) -> None:
    @pipeline
    def p():
        [step("a"), failing()] >> step.override(trigger_rule=rule, task_id="end")("end")  # type: ignore[operator]

    assert project.run(p).outcomes["end"].state == state


def test_a_misspelt_option_is_refused_before_anything_runs(project: Project) -> None:
    @task(retires=3)
    def slip() -> int:
        return 1

    with pytest.raises(SignatureError) as error:
        project.graph(slip)

    assert str(error.value) == (
        "task 'slip' has an unknown option 'retires'; did you mean 'retries'? Options in @task and "
        "[tasks.slip] of dbnd.toml are arguments of Airflow's operator."
    )
    project.configure("[tasks.failing]\ntrigger_rul = 'always'")
    with pytest.raises(SignatureError, match=r"^task 'failing' .* did you mean 'trigger_rule'"):
        project.graph(failing)


def test_an_unknown_trigger_rule_is_refused_before_anything_runs(project: Project) -> None:
    @pipeline
    def p():
        step("a")
        step.override(trigger_rule="all_sucess", task_id="b")("b")

    with pytest.raises(GraphError) as error:
        project.run(p)

    assert str(error.value) == (
        "task 'b': unknown trigger_rule 'all_sucess' in a run without Airflow; did you mean "
        "'all_success'?"
    )
    assert STARTED == []


def test_retries_leave_a_manifest_each(project: Project) -> None:
    result = project.run(third_time_lucky)

    assert result.value() == 3
    kept = [read_manifest(project.store, i.key) for i in project.store.list("_runs")]
    tries = sorted((m.identity.try_number, m.status) for m in kept)
    assert tries == [(1, "failed"), (2, "failed"), (3, "success")]
    last = last_attempts(project.store, "third_time_lucky", result.run_id, "third_time_lucky")
    assert [m.identity.try_number for m in last] == [3]


def test_a_wrong_parameter_is_not_tried_again(project: Project) -> None:
    outcome = project.run(never_right, {"n": "x"}).outcomes["never_right"]

    assert isinstance(outcome.error, ParameterError)
    assert len(list(project.store.list("_runs"))) == 1


def test_all_instances_of_a_mapped_task_run_where_one_fails(project: Project) -> None:
    @pipeline
    def p():
        half.expand(n=[2, 3, 4, 5])

    outcome = project.run(p).outcomes["half"]

    assert outcome.state == "failed"
    assert [m.identity.map_index for m in outcome.manifests] == [0, 2]
    assert str(outcome.error) == "3 is odd"


def test_sys_exit_fails_the_task_and_not_the_run(project: Project) -> None:
    @pipeline
    def p():
        leaves()
        step("other")

    result = project.run(p)

    assert result.outcomes["step"].state == "success"
    assert str(result.outcomes["leaves"].error) == "task 'leaves' called sys.exit(3)."


def test_a_sensor_is_asked_until_it_is_satisfied(project: Project) -> None:
    Path("there.txt").write_text("here")

    @pipeline
    def p():
        return step("next", after=arrives("there.txt")), arrives("there.txt")

    assert project.value(p) == ("next", "here")
    assert STARTED.count("poke") == 4


def test_a_sensor_that_is_never_satisfied_fails(project: Project) -> None:
    outcome = project.run(never, {"path": "x"}).outcomes["never"]

    assert isinstance(outcome.error, TaskFailedError)
    assert str(outcome.error) == ("sensor 'never' was not satisfied within 0.02 s (timeout=...).")
    (info,) = project.store.list("_runs")
    assert read_manifest(project.store, info.key).status == "failed"


def test_parallel_runs_tasks_and_instances_at_once(project: Project) -> None:
    @pipeline
    def p():
        return together.expand(n=[1, 2]), [together(3), together(4)]

    result = project.run(p, parallel=2)

    assert result.value() == ([1, 2], [3, 4])
    metrics = [m.metrics for o in result.outcomes.values() for m in o.manifests]
    assert sorted(m["n"] for m in metrics) == [1, 2, 3, 4]


def test_parallel_gives_what_one_at_a_time_gives(project: Project) -> None:
    @pipeline
    def p():
        ones = [nested(n, task_id=f"n{n}") for n in range(30)]  # type: ignore[call-arg]
        return total(ones), failing()

    result = project.run(p, parallel=8)

    assert result.outcomes["failing"].state == "failed"
    assert result.outcomes["total"].manifests[0].outputs["result"] == sum(range(1, 31))


@task
def total(values: list[int]) -> int:
    return sum(values)


@dataclass
class Limits:
    low: int = 0
    high: int = 9


@task
def typed(
    n: int,
    options: dict[str, int],
    wait: dt.timedelta = dt.timedelta(),
    tags: set[str] = frozenset(),  # type: ignore[assignment]
    limits: Limits = Limits(),  # noqa: B008
    token: Annotated[str, parameter(hidden=True)] = "t",
) -> int:
    return n


def test_a_manifest_records_what_ran_on_what_and_what_came_of_it(project: Project) -> None:
    DataFrame({"x": [1, 2, 3]}).to_csv("raw.csv", index=False)

    @pipeline
    def p(frame: DataFrame = "raw.csv"):  # type: ignore[assignment]
        return measured(frame)

    result = project.run(p, {"frame": "raw.csv"}, run_id="r1", logical_date="2024-01-02")
    (info,) = project.store.list("_runs")
    manifest = read_manifest(project.store, info.key)

    assert info.key == "_runs/p/r1/measured/-1/1.json"
    assert manifest == Manifest.from_json(result.outcomes["measured"].manifests[0].to_json())
    assert manifest.status == "success"
    assert manifest.identity.logical_date == "2024-01-02"
    assert manifest.function["module"] == "test_runner"
    assert manifest.function["name"] == "measured"
    assert manifest.function["source"]
    assert manifest.environment["versions"].keys() >= {"pandas", "pyarrow"}
    assert (manifest.parameters["frame"].value, manifest.parameters["frame"].source) == (
        "raw.csv",
        "--set",
    )
    assert manifest.inputs["frame"][0]["uri"] == f"file://{project.folder}/raw.csv"
    assert manifest.outputs == {"result": 4}
    assert manifest.metrics.pop("slept") >= 0.01  # type: ignore[attr-defined]
    assert manifest.metrics == {"rows": 3, "mean": 2.0, "nan": "nan", "name": "a"}
    assert [c.task for c in manifest.calls] == ["nested"]
    assert manifest.error is None
    assert newest_run(project.store, "p") == "r1"


def test_a_manifest_has_the_converted_values_whatever_their_source(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    @pipeline
    def p(n: int = 1):
        return typed(n, {"x": "4"})  # type: ignore[arg-type]

    monkeypatch.setenv("DBND__TYPED__WAIT", "2d")
    given = {"typed.tags": "b,a", "typed.limits": '{"low": "1"}', "typed.token": "hush"}
    manifest = project.run(p, {"n": "100", **given}).outcomes["typed"].manifests[0]

    assert {name: record.value for name, record in manifest.parameters.items()} == {
        "n": 100,
        "options": {"x": 4},
        "wait": "2 days, 0:00:00",
        "tags": ["a", "b"],
        "limits": {"low": 1, "high": 9},
        "token": "***",
    }
    assert manifest.parameters["n"].source == "--set"
    assert project.run(typed, {"n": "x", "options": "{}"}).outcomes["typed"].state == "failed"
    failed = [read_manifest(project.store, i.key) for i in project.store.list("_runs/typed")]
    assert failed[0].parameters["n"].value == "x"


def test_a_failed_attempt_leaves_its_traceback(project: Project) -> None:
    project.run(failing)

    (info,) = project.store.list("_runs")
    manifest = read_manifest(project.store, info.key)

    assert manifest.status == "failed"
    assert manifest.error is not None
    assert (manifest.error["type"], manifest.error["message"]) == ("ValueError", "no luck")
    assert 'raise ValueError("no luck")' in manifest.error["traceback"]


def test_a_task_that_is_not_there_is_named_with_a_suggestion(project: Project) -> None:
    run_id = project.run(failing).run_id

    with pytest.raises(ArtifactNotFoundError) as error:
        last_attempts(project.store, "failing", run_id, "failin")

    assert str(error.value) == (
        f"Run {run_id!r} of 'failing' has no manifest of task 'failin' in {project.store.url}; "
        "did you mean 'failing'?"
    )


def test_a_cut_manifest_is_an_error_that_names_it(project: Project) -> None:
    project.store.put_bytes("_runs/p/r/t/-1/1.json", b'{"identity"')

    with pytest.raises(ArtifactCorruptedError) as error:
        read_manifest(project.store, "_runs/p/r/t/-1/1.json")

    assert str(error.value).startswith(
        f"Manifest _runs/p/r/t/-1/1.json in {project.store.url} cannot be read: expected the JSON "
        "of a manifest, found 11 bytes that are not (JSONDecodeError: "
    )


KILLED = """
import os, signal, sys, time
from pandas import DataFrame
from airflow_provider_dbnd import task, pipeline

@task
def first() -> DataFrame:
    return DataFrame({"x": range(1000)})

@task
def second(data: DataFrame, wait: bool = True) -> DataFrame:
    if wait:
        open("started", "w").close()
        time.sleep(60)
    return data * 2

@pipeline
def killed():
    return second(first())
"""


def test_a_killed_run_leaves_a_usable_store(project: Project) -> None:
    Path("killed.py").write_text(KILLED)
    command = [sys.executable, "-m", "airflow_provider_dbnd.cli", "run", "killed.py"]
    process = subprocess.Popen([*command, "--run-id", "dead"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not Path("started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()

    kept = [read_manifest(project.store, i.key) for i in project.store.list("_runs")]
    again = subprocess.run([*command, "--set", "second.wait=no"], capture_output=True, text=True)

    assert [(m.identity.task_id, m.status) for m in kept] == [("first", "success")]
    assert again.returncode == 0, again.stderr
    assert len(list(project.store.list("killed/first"))) == 1  # the same content, once


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_without_write_permission_is_an_error(project: Project) -> None:
    Path(".dbnd").mkdir()
    Path(".dbnd").chmod(stat.S_IRUSR | stat.S_IXUSR)

    error = project.run(step, {"name": "a"}).outcomes["step"].error

    assert isinstance(error, StoreError)


def test_a_store_that_cannot_be_written_is_an_error_that_names_it(project: Project) -> None:
    Path(".dbnd").write_text("a file where the store's folder would be")

    error = project.run(step, {"name": "a"}).outcomes["step"].error

    assert isinstance(error, StoreError)
    assert f"file://{project.folder}/.dbnd/store" in str(error)


def test_a_full_disk_is_an_error_and_the_manifest_says_failed(project: Project) -> None:
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "from airflow_provider_dbnd.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    Path("killed.py").write_text(KILLED.replace("range(1000)", "range(100_000)"))

    done = subprocess.run(
        [sys.executable, "-c", code, "run", "killed.py", "--run-id", "full"],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "task first failed: StoreError: output 'result' of task 'first': " in done.stderr
    manifest = last_attempts(project.store, "killed", "full", "first")[0]
    assert manifest.status == "failed"
    assert list(project.store.list("killed")) == []


def test_a_task_that_skips_itself_skips_what_needs_it(project: Project) -> None:
    class AirflowSkipException(Exception):
        pass

    @task
    def maybe() -> int:
        raise AirflowSkipException("not today")

    @task
    def after(n: int) -> int:
        return n

    @task(trigger_rule="none_failed")
    def anyway(n: int | None) -> str:
        return f"got {n}"

    @pipeline
    def flow() -> None:
        n = maybe()
        after(n)
        anyway(n)

    result = project.run(flow)

    states = {name: outcome.state for name, outcome in result.outcomes.items()}
    assert states == {"maybe": "skipped", "after": "skipped", "anyway": "success"}
    assert result.success


def test_a_task_that_is_mapped_over_nothing_is_skipped_and_so_is_what_needs_it(
    project: Project,
) -> None:
    @task
    def nothing() -> list[int]:
        return []

    @task
    def one(n: int) -> int:
        return n

    @task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @pipeline
    def flow() -> None:
        numbers = one.expand(n=nothing())
        total(numbers)
        total.override(task_id="anyway", trigger_rule="none_failed")(numbers)

    result = project.run(flow)

    states = {name: outcome.state for name, outcome in result.outcomes.items()}
    assert states == {
        "nothing": "success",
        "one": "skipped",
        "total": "skipped",
        "anyway": "success",
    }
    assert result.success
    assert result.outcomes["anyway"].manifests[0].outputs == {"result": 0}


def test_an_edge_names_the_task_it_came_from_in_the_manifest(project: Project) -> None:
    @task
    def one() -> int:
        return 1

    @task
    def two(n: int) -> int:
        return n

    @pipeline
    def flow() -> None:
        two(one())

    (manifest,) = project.run(flow).outcomes["two"].manifests

    assert manifest.parameters["n"].source == "task one"
