"""Work shared by a few threads and whoever waits for it.

Hashing with blake3 and most of Arrow and numpy leave the interpreter lock alone, so threads do.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any, Generic, TypeVar

from airflow_provider_dbnd.core.digest import available_cores

T = TypeVar("T")


@lru_cache(maxsize=1)
def working_threads() -> ThreadPoolExecutor:
    """Return the threads of this process, one a core."""
    return ThreadPoolExecutor(available_cores(), thread_name_prefix="dbnd-worker")


# Airflow forks its task processes, and threads do not survive a fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=working_threads.cache_clear)


class Shared(Generic[T]):
    """Jobs that threads start on at once, one by one; :meth:`results` joins in.

    The caller's own core is left to the caller until it asks for results. As it then takes what is
    left, no busy moment of the other cores holds it up for longer than one job.
    """

    def __init__(self, jobs: Iterable[Callable[[], T]], *, alone: bool = False) -> None:
        """Start; *alone* leaves jobs too small for threads to the caller."""
        self._jobs = deque(enumerate(jobs))
        self._results: list[Any] = [None] * len(self._jobs)
        count = 0 if alone else min(available_cores(), len(self._jobs)) - 1
        self._helpers = [working_threads().submit(self._work) for _ in range(count)]

    def results(self) -> list[T]:
        """Return what all jobs returned, in order; after an error nothing runs on."""
        try:
            self._work()
        finally:
            self._jobs.clear()
            wait(self._helpers)
        for helper in self._helpers:
            helper.result()
        return self._results

    def _work(self) -> None:
        while self._jobs:
            try:
                number, job = self._jobs.popleft()
            except IndexError:  # another thread took the last one
                return
            self._results[number] = job()
