"""Of runs that want the same result at once one computes it, whoever is killed when."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from local_project import Project

from airflow_provider_dbnd import Reuse, task
from airflow_provider_dbnd.core.execute import TaskSpec, execute
from airflow_provider_dbnd.core.manifest import Identity, Manifest
from airflow_provider_dbnd.core.past.fsck import check
from airflow_provider_dbnd.core.past.history import attempts_of_run
from airflow_provider_dbnd.core.reuse import flight
from airflow_provider_dbnd.core.reuse.attempt import run_or_reuse
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, StoreError

ROUNDS = 200
#: Rounds under way at the same time: most of a round is waiting.
AT_ONCE = 8
TAKES = 0.15

ROOT = Path(__file__).parents[2]
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


def _die(n: int, after: float, *, while_computing: bool) -> None:
    """Kill this process some time after its start, or after that of the computing."""
    while while_computing and not (_log_of(n).exists() and "start" in _log_of(n).read_text()):
        time.sleep(0.005)
    time.sleep(after)
    _log(n, "killed")
    os.kill(os.getpid(), signal.SIGKILL)


class Round:
    """Two runs that want the same result, none, one or both of which are killed.

    They do it themselves: how long it takes to fork does not decide where the kills land.
    """

    def __init__(self, project: Project, number: int, dice: random.Random) -> None:
        self.project, self.number = project, number
        victims = dice.choice([[0], [1], [0, 1], []])
        while_computing = dice.random() < 0.5
        within = 2 * TAKES if while_computing else TAKES
        kills = [(dice.uniform(0, within), while_computing) for _ in range(2)]
        self.processes = [self._started(kills[n] if n in victims else None) for n in range(2)]

    def _started(self, kill: tuple[float, bool] | None = None) -> Any:
        process = FORK.Process(target=self._run, args=(kill,))
        process.start()
        return process

    def _run(self, kill: tuple[float, bool] | None) -> None:
        if kill is not None:
            after, while_computing = kill
            threading.Thread(
                target=_die,
                args=(self.number, after),
                kwargs={"while_computing": while_computing},
                daemon=True,
            ).start()
        result = self.project.run(
            doubled, {"n": self.number}, run_id=f"r{self.number}-{os.getpid()}"
        )
        os._exit(0 if result.value() == [2 * self.number] * 1000 else 1)

    def over(self) -> bool:
        """Tell whether a run came to its end and none is left; start another where all were killed."""
        if any(process.is_alive() for process in self.processes):
            return False
        if not self.survivors():
            self.processes.append(self._started())
            return False
        return True

    def survivors(self) -> list[Any]:
        return [p for p in self.processes if p.exitcode != -signal.SIGKILL]


def test_killing_runs_at_random_points_no_result_is_computed_twice_at_once(tmp_path: Path) -> None:
    """200 rounds of kill -9, with seconds instead of half minutes; the store is consistent."""
    # From a process of their own, as it takes long to fork one that has run many tests.
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FLIGHT_LOGS": str(tmp_path / "logs")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "consistent"


def fly(folder: Path) -> None:
    """Run the rounds and look at what they left."""
    flight.RENEWAL, flight.OVER, flight.LOOK = 0.1, 2.0, 0.01
    Path(os.environ["FLIGHT_LOGS"]).mkdir()
    project, dice = Project(folder=folder), random.Random(7)
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
        survivors = each.survivors()
        survived = {process.pid for process in survivors}
        assert [p.exitcode for p in survivors] == [0] * len(survivors)
        computed = sorted((*span, pid) for pid, span in _spans(each.number).items())
        for (_, before, _), (after, _, _) in itertools.pairwise(computed):
            assert before <= after, f"round {each.number}: {computed}"
        assert sum(pid in survived for _, _, pid in computed) <= 1
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
    killed = sum(len(each.processes) - len(each.survivors()) for each in ended)
    assert killed > ROUNDS / 2, killed
    assert taken_over > 10, taken_over
    problems = [found for found in check(project.store, full=True) if found.level == "problem"]
    assert problems == []


def test_a_result_that_arrives_between_the_last_look_and_the_end_of_the_lease_is_not_computed_again(
    tmp_path: Path,
) -> None:
    store, looks = Project(folder=tmp_path).store, iter([False, True])
    task_one, task_two = (Identity(pipeline="p", run_id=r, task_id="t") for r in "ab")
    with flight.holding(store, "d", task_one, lambda: False) as to_compute:
        assert to_compute
    with flight.holding(store, "d", task_two, lambda: next(looks)) as to_compute:
        assert not to_compute


class Unwritable(ArtifactStore):
    """Does not take some keys any more once a task was called."""

    down = ""

    def put_bytes(self, key: str, data: bytes, *, overwrite: bool = False) -> str:
        if self.down and key.startswith(self.down):
            raise StoreError("the store does not answer")
        return super().put_bytes(key, data, overwrite=overwrite)


def attempt(store: Unwritable, function: Any) -> Manifest:
    identity = Identity(pipeline="p", run_id="r", task_id="t")
    spec = TaskSpec(identity=identity, arguments={}, store=store)
    definition = task(function).definition
    option = Reuse(single_flight=True)
    return run_or_reuse(spec, definition, lambda s: execute(s, definition), option=option)


NOT_ENDED = (
    "the lease of this result is over in 30 s, since its last write failed; after that another run "
    "that wants the same result, and does not find it, computes it: the store does not answer"
)


def test_a_result_stands_where_its_lease_cannot_be_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Unwritable(str(tmp_path))

    def computes() -> int:
        store.down = "_reuse/leases"
        return 1

    assert attempt(store, computes).status == "success"
    assert caplog.messages[-1] == NOT_ENDED


def test_the_error_of_a_task_stands_where_its_lease_cannot_be_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Unwritable(str(tmp_path))

    def fails() -> int:
        store.down = "_reuse/leases"
        raise ValueError("the user's own")

    with pytest.raises(ValueError, match="the user's own"):
        attempt(store, fails)

    assert caplog.messages[-1] == NOT_ENDED


def test_a_deferral_stands_where_its_lease_cannot_be_handed_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Deferred(BaseException): ...

    store = Unwritable(str(tmp_path))
    lease = flight.Lease(store, digest="d", generation=0, holder="one", task=["p", "r", "t", -1])
    assert lease.created()

    def defer() -> None:
        with lease.held():
            lease.keep()
            store.down = "_reuse/leases"
            raise Deferred

    with pytest.raises(Deferred):
        defer()

    (told,) = caplog.messages
    assert "goes on if the triggerer renews it within 30 s" in told


def test_a_result_stands_where_later_runs_cannot_be_told_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Unwritable(str(tmp_path))

    def computes() -> int:
        store.down = "_reuse/results"
        return 1

    assert attempt(store, computes).outputs == {"result": 1}
    assert caplog.messages[-1] == (
        "later runs may not find this result, and compute it again then: the store does not answer"
    )


def test_a_damaged_lease_is_told_and_taken_over_like_that_of_a_dead_holder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "OVER", 0.3)
    monkeypatch.setattr(flight, "LOOK", 0.01)
    store = ArtifactStore(str(tmp_path))
    store.put_bytes("_reuse/leases/d/0.json", b'{"holder": "x", "tas')
    mine = Identity(pipeline="p", run_id="r", task_id="t")

    with flight.holding(store, "d", mine, lambda: False) as lease:
        assert lease is not None

    damaged, *_, over = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert damaged.startswith(f"{store.url}/_reuse/leases/d/0.json is no lease that can be read: ")
    assert damaged.endswith("; waiting for 0.3 s whether it is renewed")
    assert over == "whoever computed d died; taking over"


def test_a_foreign_file_among_leases_is_told_as_what_it_is(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    store.put_bytes("_reuse/leases/d/x.json", b"{}")
    mine = Identity(pipeline="p", run_id="r", task_id="t")

    with (
        pytest.raises(ArtifactCorruptedError) as caught,
        flight.holding(store, "d", mine, lambda: False),
    ):
        pass

    assert str(caught.value) == (
        f"{store.url}/_reuse/leases/d/x.json is no lease: expected NUMBER.json, found what this "
        "package did not write. Delete it, and run the task again."
    )


def _spans(n: int) -> dict[int, tuple[float, float]]:
    """Return when each process of a round began to compute, and when it ended or was killed."""
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    for line in _log_of(n).read_text().splitlines():
        pid, what, when = int(line.split()[0]), line.split()[1], float(line.split()[2])
        (starts if what == "start" else ends).setdefault(pid, when)
    # One that was about to be killed may have begun between saying so and its death.
    return {pid: (start, max(start, ends.get(pid, math.inf))) for pid, start in starts.items()}


if __name__ == "__main__":
    fly(Path(sys.argv[1]))
    print("consistent")
