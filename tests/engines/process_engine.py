"""An engine of our own protocol: each task in a new process of another Python. Found by entry point."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.registry import EngineType
from airflow_provider_dbnd.engines.remote import RemoteTask

ENGINE = EngineType(name="process", operator="process_engine:ProcessTask", install="it is here")


class ProcessOperator(BaseOperator):
    """Runs a command.

    :param env: the environment variables of the process.
    :param deferrable: let the process run by itself, without a worker.
    """

    def __init__(
        self, *, env: dict[str, str] | None = None, deferrable: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.env, self.deferrable = env or {}, deferrable
        self.argv: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        env = {"PATH": "/usr/bin:/bin", **self.env}
        if self.deferrable:
            nowhere = subprocess.DEVNULL
            alone = subprocess.Popen(
                self.argv, env=env, stdout=nowhere, stderr=nowhere, start_new_session=True
            )
            self.defer(trigger=ProcessTrigger(pid=alone.pid), method_name="execute_complete")
        self.process = subprocess.Popen(
            self.argv, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.info(line.rstrip())
        if self.process.wait() != 0:
            raise RuntimeError(f"exit code {self.process.returncode}")

    def on_kill(self) -> None:
        if self.process is not None:
            self.process.kill()


class ProcessTrigger(BaseTrigger):
    """Waits for the end of a process."""

    def __init__(self, *, pid: int) -> None:
        super().__init__()
        self.pid = pid

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", {"pid": self.pid}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while self._runs():
            await asyncio.sleep(0.2)
        yield TriggerEvent({"pid": self.pid})

    async def on_kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)

    def _runs(self) -> bool:
        try:
            # Nobody may have waited for a process that has ended.
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False


class ProcessTask(RemoteTask, ProcessOperator):
    """A task in a process of its own."""

    shares_disk = True
    defaults = {"python": sys.executable}

    def configure(self, job: Job, store: ArtifactStore) -> None:
        self.argv = self.program(job)

    def launch(self, context: Any) -> None:
        ProcessOperator.execute(self, context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        return self.resumed(context, lambda: None)

    def external_id(self) -> str:
        return str(self.process.pid) if self.process else "not started"
