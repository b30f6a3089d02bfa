"""Of runs that want the same result at once one computes it, whoever is killed when."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from local_project import Project

from airflow_provider_dbnd import Reuse, task
from airflow_provider_dbnd.core.past.fsck import check
from airflow_provider_dbnd.core.past.history import attempts_of_run
from airflow_provider_dbnd.core.reuse import flight

ROUNDS = 200
#: Rounds under way at the same time: most of a round is waiting.
AT_ONCE = 8
TAKES = 0.15

FORK = multiprocessing.get_context("fork")


@task(reuse=Reuse(single_flight=True))
def doubled(n: int) -> list[int]:
    _log(n, "start")
    time.sleep(TAKES)
    _log(n, "end")
    return [2 * n] * 1000


def _log(n: int, what: str) -> None:
    line = f"{os.getpid()} {what} {time.monotonic()}\n"
    with open(_log_of(n), "a") as file:
        file.write(line)


def _log_of(n: int) -> Path:
    return Path(os.environ["FLIGHT_LOGS"], str(n))


class Round:
    """Two runs that want the same result, and what kills them.

    Half of the victims are killed within some time of their start, half within some of that of the
    computing: how fast the machine is does not decide where the kills land.
    """

    def __init__(self, project: Project, number: int, dice: random.Random) -> None:
        self.project, self.number = project, number
        self.processes = [self._started(), self._started()]
        victims = [self.processes[v] for v in dice.choice([[0], [1], [0, 1], []])]
        while_computing = dice.random() < 0.5
        within = 2 * TAKES if while_computing else TAKES
        self.kills = {victim: dice.uniform(0, within) for victim in victims}
        self.since = None if while_computing else time.monotonic()
        self.killed: dict[int, float] = {}

    def _started(self) -> Any:
        process = FORK.Process(target=self._run)
        process.start()
        return process

    def _run(self) -> None:
        result = self.project.run(
            doubled, {"n": self.number}, run_id=f"r{self.number}-{os.getpid()}"
        )
        os._exit(0 if result.value() == [2 * self.number] * 1000 else 1)

    def over(self) -> bool:
        """Kill whose time has come; tell whether a run came to its end and none is left."""
        if self.since is None and _log_of(self.number).exists():
            self.since = time.monotonic()
        for process, after in list(self.kills.items()):
            if self.since is not None and time.monotonic() >= self.since + after:
                del self.kills[process]
                process.kill()
                process.join()
                if process.exitcode == -signal.SIGKILL:
                    self.killed[process.pid] = time.monotonic()
        if any(process.is_alive() for process in self.processes):
            return False
        if len(self.killed) == len(self.processes):
            self.processes.append(self._started())
            return False
        return True


def test_killing_runs_at_random_points_no_result_is_computed_twice_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 rounds of kill -9, with seconds instead of half minutes; the store is consistent."""
    monkeypatch.setattr(flight, "RENEWAL", 0.1)
    monkeypatch.setattr(flight, "OVER", 2.0)
    monkeypatch.setattr(flight, "LOOK", 0.01)
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setenv("FLIGHT_LOGS", str(logs))
    project, dice = Project(folder=tmp_path), random.Random(7)
    project.run(doubled, {"n": -1})  # so that nothing is left to import
    waiting, flying, ended = list(range(ROUNDS)), list[Round](), list[Round]()
    while waiting or flying:
        while waiting and len(flying) < AT_ONCE:
            flying.append(Round(project, waiting.pop(), dice))
        for each in [each for each in flying if each.over()]:
            flying.remove(each)
            ended.append(each)
        time.sleep(0.005)

    taken_over = 0
    for each in ended:
        survivors = [p for p in each.processes if p.pid not in each.killed]
        assert [p.exitcode for p in survivors] == [0] * len(survivors)
        computed = sorted(
            (start, end if end is not None else each.killed[pid], pid)
            for pid, (start, end) in _spans(each.number).items()
        )
        for (_, before, _), (after, _, _) in itertools.pairwise(computed):
            assert before <= after, f"round {each.number}: {computed}"
        assert sum(pid not in each.killed for _, _, pid in computed) <= 1
        taken_over += len(computed) > 1
        committed = [
            manifest
            for process in survivors
            for manifest in attempts_of_run(
                project.store, "doubled", f"r{each.number}-{process.pid}"
            )
        ]
        assert len(committed) == len(survivors)
        assert sum("hit" not in manifest.reuse for manifest in committed) <= 1
        (digest,) = {manifest.outputs["result"]["digest"] for manifest in committed}
        assert digest
    assert sum(len(each.killed) for each in ended) > ROUNDS / 2
    assert taken_over > 10
    problems = [found for found in check(project.store, full=True) if found.level == "problem"]
    assert problems == []


def test_a_result_that_arrives_between_the_last_look_and_the_end_of_the_lease_is_not_computed_again(
    tmp_path: Path,
) -> None:
    store, looks = Project(folder=tmp_path).store, iter([False, True])
    with flight.holding(store, "d", lambda: False) as to_compute:
        assert to_compute
    with flight.holding(store, "d", lambda: next(looks)) as to_compute:
        assert not to_compute


def _spans(n: int) -> dict[int, tuple[float, float | None]]:
    """Return when each process of a round began and ended to compute."""
    spans: dict[int, tuple[float, float | None]] = {}
    for line in _log_of(n).read_text().splitlines():
        pid, what, when = line.split()
        start = spans.get(int(pid), (float(when), None))[0]
        spans[int(pid)] = (start, float(when) if what == "end" else None)
    return spans
