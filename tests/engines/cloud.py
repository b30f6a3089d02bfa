"""A cloud service on loopback whose jobs really run, as processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

#: Turns a program with its arguments and spark-submit's options into a command of this machine.
Command = Callable[[str, Sequence[str], Sequence[str]], list[str]]


def with_python(program: str, arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Run the program by this Python, whatever spark-submit is told."""
    return [sys.executable, program, *arguments]


class Cloud:
    """What the fakes of services share. ``behaviour`` is what becomes of jobs."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir()
        self.folder = folder
        self.environment = dict(environment)
        self.behaviour: Literal["run", "succeed", "fail"] = "run"
        self.command: Command = with_python
        self.jobs: list[str] = []
        self.processes: dict[str, subprocess.Popen[str]] = {}

    @abstractmethod
    def fetch(self, uri: str, path: str) -> None:
        """Download a program."""

    @abstractmethod
    def cancel(self, job: str) -> None:
        """Cancel a job, as somebody does in the console."""

    @abstractmethod
    def lose(self, job: str) -> None:
        """Delete all that is known of a job."""

    def run(
        self,
        job: str,
        program: str,
        arguments: Sequence[str],
        options: Sequence[str],
        done: Callable[[int, str], None],
    ) -> None:
        """Run a job's program; *done* is told the exit code and the output."""
        self.jobs.append(job)
        if self.behaviour == "run":
            given = (job, program, arguments, options, done)
            threading.Thread(target=self._run, args=given).start()
        else:
            end = (0, "") if self.behaviour == "succeed" else (1, "the node went away")
            # Later, so that a task that defers has deferred.
            threading.Timer(0.7, done, args=end).start()

    def kill(self, job: str) -> None:
        """Kill the process of a job, if it has one."""
        if job in self.processes:
            self.processes[job].send_signal(signal.SIGKILL)

    def wait_for_job(self, flag: Path) -> str:
        """Wait until the newest job says that it runs."""
        for _ in range(1200):
            if flag.exists():
                return self.jobs[-1]
            time.sleep(0.1)
        raise AssertionError("no job ran")

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()

    def _run(
        self,
        job: str,
        uri: str,
        arguments: Sequence[str],
        options: Sequence[str],
        done: Callable[..., Any],
    ) -> None:
        program = str(self.folder / f"{job}.py")
        self.fetch(uri, program)
        self.processes[job] = process = subprocess.Popen(
            self.command(program, arguments, options),
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output, _ = process.communicate()
        (self.folder / f"{job}.log").write_text(output)
        done(process.returncode, output)
