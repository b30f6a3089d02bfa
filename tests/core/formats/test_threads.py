from __future__ import annotations

import multiprocessing
import threading
import time
from functools import partial

import pytest

from airflow_provider_dbnd.core.formats import threads
from airflow_provider_dbnd.core.formats.threads import Shared


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 4)


def test_results_come_in_the_order_of_the_jobs(four_cores: None) -> None:
    assert Shared(partial(pow, n, 2) for n in range(500)).results() == [n * n for n in range(500)]


def test_threads_start_before_anyone_waits(four_cores: None) -> None:
    started = threading.Event()

    shared = Shared([started.set, started.set])

    assert started.wait(10)
    shared.results()


def test_who_waits_does_what_busy_threads_do_not(four_cores: None) -> None:
    """Both jobs of the pair are under way at once, or neither ends."""
    meeting = threading.Barrier(2, timeout=10)
    met = Shared([meeting.wait, meeting.wait]).results()
    assert sorted(met) == [0, 1]


def test_small_jobs_stay_with_the_caller(four_cores: None) -> None:
    assert set(Shared([threading.get_ident] * 9, alone=True).results()) == {threading.get_ident()}


@pytest.mark.parametrize("failing", [0, 1])
def test_nothing_runs_on_after_an_error(four_cores: None, failing: int) -> None:
    """A file that is read may be replaced as soon as the error is out."""
    meeting = threading.Barrier(2, timeout=10)
    running: set[int] = set()

    def job(number: int) -> None:
        running.add(number)
        meeting.wait()
        if number != failing:
            time.sleep(0.2)
        running.discard(number)
        if number == failing:
            raise ValueError(number)

    with pytest.raises(ValueError, match=str(failing)):
        Shared([partial(job, 0), partial(job, 1)]).results()
    assert not running


def _hash_in_child() -> None:
    threads.working_threads()
    assert Shared(partial(pow, n, 2) for n in range(50)).results() == [n * n for n in range(50)]


def test_threads_work_in_a_child_forked_after_their_first_use(four_cores: None) -> None:
    _hash_in_child()
    child = multiprocessing.get_context("fork").Process(target=_hash_in_child)
    child.start()
    child.join(30)
    assert child.exitcode == 0
