"""An engine of our own protocol: each task in a new process of another Python. Found by entry point."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from airflow.sdk import BaseOperator

from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.registry import EngineType
from airflow_provider_dbnd.engines.remote import RemoteTask

ENGINE = EngineType(name="process", operator="process_engine:ProcessTask", install="it is here")


class ProcessOperator(BaseOperator):
    """Runs a command. :param env: the environment variables of the process."""

    def __init__(self, *, env: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.env = env or {}
        self.argv: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        self.process = subprocess.Popen(
            self.argv,
            env={"PATH": "/usr/bin:/bin", **self.env},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.info(line.rstrip())
        if self.process.wait() != 0:
            raise RuntimeError(f"exit code {self.process.returncode}")

    def on_kill(self) -> None:
        if self.process is not None:
            self.process.kill()


class ProcessTask(RemoteTask, ProcessOperator):
    """A task in a process of its own."""

    shares_disk = True
    defaults = {"python": sys.executable}

    def configure(self, job: Job, store: ArtifactStore) -> None:
        self.argv = self.program(job)

    def launch(self, context: Any) -> None:
        ProcessOperator.execute(self, context)

    def external_id(self) -> str:
        return str(self.process.pid) if self.process else "not started"
