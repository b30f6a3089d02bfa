"""Single flight over a deferral: who waits for a job without a worker is still the one that computes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from process_engine import ProcessTrigger

from airflow_provider_dbnd.core.manifest import Identity
from airflow_provider_dbnd.core.reuse import flight
from airflow_provider_dbnd.core.reuse.flight import Lease
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.lease_trigger import LeaseTrigger

ROOT = Path(__file__).parents[2]

FLOW = """
import time
from airflow_provider_dbnd import Reuse, pipeline, task

@task(engine="here", reuse=Reuse(single_flight=True), retries=0)
def slow(log: str, fails: bool = False) -> int:
    with open(log, "a") as file:
        file.write("ran\\n")
    time.sleep(7)
    if fails:
        raise ValueError("not today")
    return 42

@pipeline
def flow(log: str = "", fails: bool = False):
    slow(log, fails)

dag = flow.as_dag()
"""

ENGINE = f"""
[engines.here]
type = "process"
python = "{sys.executable}"
deferrable = true
"""

#: A run of the flow in a process and with a database of its own.
RUN = """
import json, sys
from airflow_provider_dbnd.cli.dags import parse
from airflow_provider_dbnd.core.reuse import flight
flight.LOOK = 0.01  # so that it does not look away while the lease changes hands
flight.WAITING_RENEWAL, flight.WAITING_OVER = 0.5, float(sys.argv[3])
dag = next(iter(parse(sys.argv[1]).dags.values()))
run = dag.test(run_conf=json.loads(sys.argv[2]))
print("run:", run.run_id, run.state)
"""


@pytest.fixture
def begin(airflow_db: str, tmp_path: Path, configure: Any, store_url: str) -> Iterator[Any]:
    """``begin(patience, **conf)`` begins a run of the flow in Airflow.

    The lease of a deferred task is over when it was not renewed for *patience* seconds.
    """
    configure(ENGINE)
    file = Path(airflow_db) / "single_flight.py"
    file.write_text(FLOW)
    begun: list[subprocess.Popen[str]] = []

    def start(patience: float, **conf: Any) -> subprocess.Popen[str]:
        home = tmp_path / f"home-{len(begun)}"
        home.mkdir()
        with (
            contextlib.closing(sqlite3.connect(Path(airflow_db).parent / "airflow.db")) as database,
            contextlib.closing(sqlite3.connect(home / "airflow.db")) as copy,
        ):
            database.backup(copy)
        path = os.pathsep.join((str(Path(__file__).parent), str(ROOT)))
        given = json.dumps({"log": str(tmp_path / "log"), **conf})
        begun.append(
            subprocess.Popen(
                [sys.executable, "-c", RUN, str(file), given, str(patience)],
                env={
                    **os.environ,
                    "AIRFLOW_HOME": str(home),
                    "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
                    "PYTHONPATH": path,
                },
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()
    file.unlink()


def ended(process: subprocess.Popen[str]) -> tuple[str, str, str]:
    """Return id, state and log of a run that has begun."""
    log, _ = process.communicate(timeout=180)
    last = next((x for x in reversed(log.splitlines()) if x.startswith("run:")), None)
    assert last is not None, log
    _, run_id, state = last.split()
    return run_id, state, log


def test_of_two_runs_whose_tasks_defer_one_computes(begin: Any, tmp_path: Path) -> None:
    less_than_the_job_takes = 4
    runs = [ended(each) for each in [begin(less_than_the_job_takes) for _ in range(2)]]

    assert [state for _, state, _ in runs] == ["success", "success"], runs
    assert (tmp_path / "log").read_text() == "ran\n"
    assert sum("another run computes the same result" in log for *_, log in runs) == 1
    assert sum("Pausing task as DEFERRED" in log for *_, log in runs) == 1
    (line,) = [line for *_, log in runs for line in log.splitlines() if "reused from run" in line]
    assert any(f"reused from run {run_id} " in line for run_id, *_ in runs), line


def test_a_deferred_task_that_fails_lets_the_other_run_compute_at_once(
    begin: Any, tmp_path: Path
) -> None:
    more_than_the_test_waits = 600
    runs = [ended(each) for each in [begin(more_than_the_test_waits, fails=True) for _ in range(2)]]

    assert [state for _, state, _ in runs] == ["failed", "failed"], runs
    assert (tmp_path / "log").read_text() == "ran\n" * 2


class Waiting:
    """A task that waits for a process, and holds a lease."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore(str(folder / "store"))
        self.process = subprocess.Popen(["sleep", "60"], start_new_session=True)
        self.lease = Lease(self.store, digest="d", generation=0, holder="one", task=self.task())
        assert self.lease.created()
        with self.lease.held():
            self.lease.keep()
        other = ProcessTrigger(pid=self.process.pid)
        trigger = LeaseTrigger.around(other, self.lease, self.store.url, {})
        # As the triggerer makes it.
        class_path, arguments = trigger.serialize()
        assert class_path == "airflow_provider_dbnd.engines.lease_trigger.LeaseTrigger"
        self.trigger = LeaseTrigger(**json.loads(json.dumps(arguments)))

    @staticmethod
    def task(run_id: str = "one") -> list[str | int]:
        return ["flow", run_id, "slow", -1]

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.store.get_bytes("_reuse/leases/d/0.json"))
        return state

    def may_compute(self, run_id: str, looks: int) -> bool:
        """Tell whether another run gets the right to compute while it looks so often."""
        left = iter(range(looks))
        identity = Identity(pipeline="flow", run_id=run_id, task_id="slow")
        arrived = lambda: next(left, None) is None  # noqa: E731
        with flight.holding(self.store, "d", identity, arrived) as lease:
            return lease is not None


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    monkeypatch.setattr(flight, "LOOK", 0.01)
    monkeypatch.setattr(flight, "OVER", 0.2)
    task = Waiting(tmp_path)
    yield task
    task.process.kill()
    task.process.wait()


async def _within(seconds: float, holds: Callable[[], bool]) -> None:
    for _ in range(int(seconds / 0.01)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


def test_the_trigger_renews_the_lease_until_the_job_ends_and_hands_it_on(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "WAITING_RENEWAL", 0.05)
    seen: set[float] = set()

    def renewed_often() -> bool:
        seen.add(waiting.state()["renewed"])
        return len(seen) > 5

    async def wait() -> Any:
        events = waiting.trigger.run()
        event = asyncio.ensure_future(anext(events))
        await _within(10, renewed_often)
        waiting.process.kill()
        return await event

    event = asyncio.run(wait())

    assert event.payload == {"pid": waiting.process.pid}
    # No worker has the task yet, and none may for minutes.
    assert not waiting.may_compute("another", looks=60)
    assert waiting.state()["patience"] == flight.WAITING_OVER
    assert not waiting.state()["over"]


def test_a_lease_that_no_trigger_renews_is_over_after_a_while(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not waiting.may_compute("another", looks=60)
    monkeypatch.setattr(flight, "WAITING_OVER", 0.2)
    waiting.lease.renew_waiting()

    assert waiting.may_compute("another", looks=500)


def test_a_later_try_of_the_same_task_does_not_wait_for_its_own_lease(waiting: Waiting) -> None:
    assert waiting.may_compute("one", looks=2)


def test_killing_the_deferred_task_kills_the_job_and_ends_the_lease(waiting: Waiting) -> None:
    asyncio.run(waiting.trigger.on_kill())

    assert waiting.process.wait(10) < 0
    assert waiting.may_compute("another", looks=2)


def test_a_store_that_cannot_be_written_does_not_keep_the_task_from_its_end(
    waiting: Waiting, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = waiting.trigger.serialize()[1]
    arguments["lease"]["store"] = "s3://nobody@bucket/store"
    trigger = LeaseTrigger(**arguments)
    waiting.process.kill()

    event = asyncio.run(anext(trigger.run()))

    assert event.payload == {"pid": waiting.process.pid}
    assert "the lease of this task's result could not be written: connection 'nobody' is not" in (
        capsys.readouterr().out
    )


def test_what_the_triggerer_sets_reaches_the_other_trigger(waiting: Waiting) -> None:
    other: ProcessTrigger = waiting.trigger._other
    waiting.trigger.trigger_id, waiting.trigger.task_instance = 7, None
    waiting.process.kill()

    asyncio.run(anext(waiting.trigger.run()))

    assert other.trigger_id == 7
