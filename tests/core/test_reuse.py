"""A stored result stands for a run only when code, inputs and parameters are the same by content."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
from local_project import Project
from pandas import DataFrame

from airflow_provider_dbnd import Reuse, output, parameter, pipeline, task
from airflow_provider_dbnd.core.reuse import flight
from airflow_provider_dbnd.core.reuse.attempt import duration
from airflow_provider_dbnd.core.reuse.policy import policy_of
from airflow_provider_dbnd.exceptions import ConfigurationError

RAN: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


@task(reuse=True)
def make(n: int = 3) -> DataFrame:
    RAN.append("make")
    return DataFrame({"x": range(n), "y": [1.5] * n})


@task(reuse=True)
def total(rows: DataFrame, factor: int = 1) -> float:
    RAN.append("total")
    return float(rows["x"].sum()) * factor


@pipeline
def sums(n: int = 3):
    return total(make(n))


@task(reuse=True)
def count(raw: DataFrame) -> int:
    RAN.append("count")
    return len(raw)


def ran(
    project: Project, runnable: Any, given: dict[str, Any] | None = None, **options: Any
) -> list[str]:
    """Run, and return which tasks ran."""
    RAN.clear()
    result = project.run(runnable, given or {}, **options)
    for outcome in result.outcomes.values():
        if outcome.error is not None:
            raise outcome.error
    return list(RAN)


def test_an_equal_run_takes_the_stored_results_and_says_from_which_run(project: Project) -> None:
    assert ran(project, sums, run_id="first") == ["make", "total"]

    result = project.run(sums, run_id="second")

    assert RAN == ["make", "total"]
    assert result.value() == 3.0
    (manifest,) = result.outcomes["total"].manifests
    assert manifest.reuse["hit"]["run_id"] == "first"
    assert manifest.identity.run_id == "second"
    assert manifest.status == "success"


def test_another_parameter_is_a_miss_and_the_log_says_which(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ran(project, sums)

    assert ran(project, sums, {"total.factor": "2"}) == ["total"]
    assert 'parameter factor: {"value": ["int", 1]} -> {"value": ["int", 2]}' in caplog.text


def test_the_same_value_from_another_source_and_of_another_form_is_a_hit(project: Project) -> None:
    ran(project, sums)

    assert ran(project, sums, {"n": "3"}) == []


def test_a_file_with_new_bytes_misses_and_a_copy_of_the_old_ones_hits(project: Project) -> None:
    (project.folder / "a.csv").write_text("x\n1\n")
    assert ran(project, count, {"raw": "a.csv"}) == ["count"]
    os.utime(project.folder / "a.csv", (1, 1))
    assert ran(project, count, {"raw": "a.csv"}) == []
    (project.folder / "b.csv").write_text("x\n1\n")
    assert ran(project, count, {"raw": "b.csv"}) == []
    (project.folder / "a.csv").write_text("x\n1\n2\n")
    assert ran(project, count, {"raw": "a.csv"}) == ["count"]


@task(reuse=True)
def counts(parts: list[DataFrame]) -> list[int]:
    RAN.append("counts")
    return [len(each) for each in parts]


def test_a_comma_belongs_to_the_name_of_one_file_and_parts_those_of_a_list(
    project: Project,
) -> None:
    (project.folder / "jan,feb.csv").write_text("x\n1\n")
    (project.folder / "mar.csv").write_text("x\n1\n2\n")
    (project.folder / "apr.csv").write_text("x\n1\n2\n3\n")

    assert ran(project, count, {"raw": "jan,feb.csv"}) == ["count"]
    assert ran(project, count, {"raw": "jan,feb.csv"}) == []
    assert project.value(counts, {"parts": "mar.csv, apr.csv"}) == [2, 3]
    assert ran(project, counts, {"parts": "mar.csv,apr.csv"}) == []
    assert ran(project, counts, {"parts": "apr.csv,mar.csv"}) == ["counts"]


def test_files_in_a_dict_are_read_and_make_the_task_run(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    @task(reuse=True)
    def sizes(parts: dict[str, DataFrame]) -> int:
        return sum(map(len, parts.values()))

    caplog.set_level(logging.INFO)
    (project.folder / "a.csv").write_text("x\n1\n")
    assert project.value(sizes, {"parts": {"a": "a.csv"}}) == 1
    (project.folder / "a.csv").write_text("x\n1\n2\n")

    assert project.value(sizes, {"parts": {"a": "a.csv"}}) == 2
    assert "not reusable: parameter 'parts' names files inside of other values" in caplog.messages


def test_a_path_to_what_is_not_there_yet_is_given_as_it_is(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    @task(reuse=True)
    def writes(to: Path) -> bool:
        return to.exists()

    caplog.set_level(logging.INFO)

    assert project.value(writes, {"to": "new,er.txt"}) is False
    assert "not reusable: parameter 'to' names what is not there yet" in caplog.messages


def test_equal_data_made_by_other_code_hits_downstream(project: Project) -> None:
    @task
    def filtered() -> DataFrame:
        frame = DataFrame({"x": range(10), "y": [1.5] * 10})
        return frame[frame["x"] < 3].reset_index(drop=True)

    @pipeline
    def other():
        return total(filtered())

    ran(project, sums)

    assert ran(project, other) == []


@pytest.mark.parametrize(
    "changed",
    [
        lambda frame: frame[::-1].reset_index(drop=True),
        lambda frame: frame.astype({"x": "int32"}),
        lambda frame: frame[["y", "x"]],
        lambda frame: frame.assign(x=frame["x"] + 1),
        lambda frame: frame.rename(columns={"y": "z"}),
    ],
    ids=["rows reordered", "retyped", "columns reordered", "a value changed", "a name changed"],
)
def test_data_that_differs_misses(project: Project, changed: Any) -> None:
    @task
    def edited() -> DataFrame:
        return changed(DataFrame({"x": range(3), "y": [1.5] * 3}))

    @pipeline
    def other():
        return total(edited())

    ran(project, sums)

    assert ran(project, other) == ["total"]


def test_an_insignificant_parameter_does_not_count(project: Project) -> None:
    @task(reuse=True)
    def quiet(level: Annotated[int, parameter(significant=False)] = 1) -> int:
        RAN.append("quiet")
        return 7

    ran(project, quiet)

    assert ran(project, quiet, {"level": "2"}) == []


def test_without_the_option_every_run_runs_every_task(project: Project) -> None:
    @task
    def plain() -> int:
        RAN.append("plain")
        return 1

    ran(project, plain)

    assert ran(project, plain) == ["plain"]
    assert ran(project, plain, {"reuse": "on"}) == ["plain"]  # nothing was recorded before
    assert ran(project, plain, {"reuse": "on"}) == []


def test_a_run_says_off_or_refresh_over_the_option(project: Project) -> None:
    ran(project, sums)

    assert ran(project, sums, {"reuse": "off"}) == ["make", "total"]
    assert ran(project, sums, {"total.reuse": "refresh"}) == ["total"]
    assert ran(project, sums) == []


def test_a_pipelines_option_holds_for_its_tasks_unless_they_have_their_own(
    project: Project,
) -> None:
    @task
    def inherits() -> int:
        RAN.append("inherits")
        return 1

    @task(reuse=False)
    def own(after: int) -> int:
        RAN.append("own")
        return 2

    @pipeline(reuse=True)
    def both():
        return own(inherits())

    ran(project, both)

    assert ran(project, both) == ["own"]


def test_a_settings_file_turns_reuse_on_for_a_task(project: Project) -> None:
    @task
    def plain() -> int:
        RAN.append("plain")
        return 1

    project.configure('[tasks.plain.reuse]\nttl = "1h"\n')
    ran(project, plain)

    assert ran(project, plain) == []


@pytest.mark.parametrize("damage", ["delete", "truncate", "tamper"])
def test_a_result_that_is_not_intact_is_never_a_hit(project: Project, damage: str) -> None:
    ran(project, sums)
    (stored,) = (project.folder / ".dbnd" / "store" / "sums" / "make" / "result").iterdir()
    data = stored.read_bytes()
    if damage == "delete":
        stored.unlink()
    elif damage == "truncate":
        stored.write_bytes(data[:-9])
    else:
        at = data.index(dt_bytes())
        stored.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
        os.utime(stored, (1, 1))

    assert ran(project, sums) == ["make"]
    assert project.run(sums).value() == 3.0


def dt_bytes() -> bytes:
    import struct

    return struct.pack("<3d", 1.5, 1.5, 1.5)


def test_a_half_committed_record_is_a_miss(project: Project) -> None:
    ran(project, sums)
    for record in (project.folder / ".dbnd" / "store" / "_reuse" / "results").rglob("*.json"):
        record.write_bytes(record.read_bytes()[:10])

    assert ran(project, sums) == ["make", "total"]


def test_a_deleted_manifest_is_a_miss(project: Project) -> None:
    ran(project, sums, run_id="first")
    for manifest in (project.folder / ".dbnd" / "store" / "_runs").rglob("*.json"):
        manifest.unlink()

    assert ran(project, sums) == ["make", "total"]


def test_a_failed_attempt_is_no_result(project: Project) -> None:
    @task(reuse=True)
    def fails() -> int:
        RAN.append("fails")
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            ran(project, fails)
        assert RAN == ["fails"]


def test_an_old_result_is_a_miss(project: Project) -> None:
    @task(reuse=Reuse(ttl=dt.timedelta(milliseconds=50)))
    def fresh() -> int:
        RAN.append("fresh")
        return 1

    ran(project, fresh)
    time.sleep(0.1)

    assert ran(project, fresh) == ["fresh"]


def test_a_declared_file_counts_by_its_content(project: Project) -> None:
    rules = project.folder / "rules.txt"

    @task(reuse=Reuse(depends=(str(rules),)))
    def ruled() -> str:
        RAN.append("ruled")
        return rules.read_text()

    rules.write_text("a")
    assert ran(project, ruled) == ["ruled"]
    assert ran(project, ruled) == []
    rules.write_text("b")
    assert ran(project, ruled) == ["ruled"]


def test_a_reused_result_is_published_for_the_new_run(project: Project) -> None:
    @task(reuse=True)
    def report(
        day: Annotated[str, parameter(significant=False)] = "mon",
    ) -> Annotated[DataFrame, output(path="{store}/out/{day}.csv")]:
        RAN.append("report")
        return DataFrame({"x": [1]})

    ran(project, report)

    assert ran(project, report, {"day": "tue"}) == []
    assert (project.folder / ".dbnd" / "store" / "out" / "tue.csv").read_text() == "x\n1\n"


def test_hidden_values_count_and_are_not_in_the_store(project: Project) -> None:
    @task(reuse=True)
    def login(password: Annotated[str, parameter(hidden=True)]) -> int:
        RAN.append("login")
        return len(password)

    assert ran(project, login, {"password": "swordfish-1"}) == ["login"]
    assert ran(project, login, {"password": "swordfish-1"}) == []
    assert ran(project, login, {"password": "swordfish-2"}) == ["login"]
    stored = b"".join(p.read_bytes() for p in (project.folder / ".dbnd").rglob("*") if p.is_file())
    assert b"swordfish" not in stored


def test_a_value_without_content_runs_and_says_why(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    @task(reuse=True)
    def with_object(thing: Any) -> int:
        RAN.append("with_object")
        return 1

    @pipeline
    def objects():
        with_object(object())

    ran(project, objects)

    assert ran(project, objects) == ["with_object"]
    assert "not reusable: parameter 'thing' holds a object" in caplog.text


def test_of_two_runs_at_once_one_computes(project: Project) -> None:
    @task(reuse=Reuse(single_flight=True))
    def slow() -> int:
        RAN.append("slow")
        time.sleep(1)
        return 1

    threads = [threading.Thread(target=project.run, args=(slow,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert RAN == ["slow"]


def test_whoever_died_computing_is_taken_over_from(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "OVER", 1.0)

    @task(reuse=Reuse(single_flight=True))
    def slow() -> int:
        RAN.append("slow")
        return 1

    ran(project, slow)
    (result,) = (project.folder / ".dbnd" / "store" / "_reuse" / "results").rglob("*.json")
    result.unlink()
    lease = project.folder / ".dbnd" / "store" / "_reuse" / "leases" / result.stem / "1.json"
    lease.write_text(json.dumps({"holder": "dead", "renewed": 0, "over": False}))

    assert ran(project, slow) == ["slow"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("onn", "mode is 'onn'; did you mean 'on'?"),
        ({"tll": "1d"}, "unknown field 'tll'; did you mean 'ttl'?"),
        ({"ttl": "soon"}, "reuse: "),
        (3, "reuse=3: expected True, False"),
    ],
)
def test_a_wrong_option_says_what_is_wrong(option: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        policy_of(option)

    assert message in str(error.value)


def test_another_process_hits(project: Project) -> None:
    (project.folder / "p.py").write_text(
        "from airflow_provider_dbnd import task\n"
        "@task(reuse=True)\ndef noisy(n: int = 1) -> int:\n    print('computing')\n    return n\n"
    )
    command = [sys.executable, "-m", "airflow_provider_dbnd.cli", "run", "p.py"]
    root = str(Path(__file__).parents[2])
    outs = [
        subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]

    assert "computing" in outs[0]
    assert "computing" not in outs[1]
    assert "noisy: reused from run local__" in outs[1]


def test_a_damaged_manifest_of_an_earlier_try_does_not_keep_a_task_from_running(
    project: Project,
) -> None:
    @task
    def plain() -> int:
        RAN.append("plain")
        return 1

    ran(project, plain, run_id="r")
    (manifest,) = (project.folder / ".dbnd" / "store" / "_runs").rglob("1.json")
    manifest.write_bytes(manifest.read_bytes()[:20])

    assert ran(project, plain, run_id="r", resumes=True) == ["plain"]


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (0.42, 840, 9000)] == ["0.4 s", "14 min", "2.5 h"]
