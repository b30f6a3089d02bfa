"""Amazon on loopback: moto's S3, EMR and EMR Serverless in this process, where jobs really run.

moto's EMR takes steps and leaves them as they are, and its EMR Serverless calls every job run a
success at once. What is added here: a step or job run executes its command as a process, its state
follows that process, `CancelSteps` (which moto lacks) and `CancelJobRun` kill it, and a client token
that was seen gives the job run of before. What is not Amazon's: the cluster is this machine, and the
program is downloaded first, as EMRFS would do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

BUCKET = "dbnd-emr"
ROLE = "arn:aws:iam::123456789012:role/job"

#: Turns what a service was told to run into a command of this machine.
Command = Callable[[str, Sequence[str], Sequence[str]], list[str]]


def with_python(program: str, arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Run the program by this Python, whatever spark-submit was told."""
    return [sys.executable, program, *arguments]


class Amazon:
    """The servers and the processes of the jobs."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        from moto.server import ThreadedMotoServer

        self.folder = folder
        self.command: Command = with_python
        self.jobs: dict[str, subprocess.Popen[str]] = {}
        self.submitted: list[Sequence[str]] = []
        self.hold = threading.Event()
        self.hold.set()
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            **environment,
        }

    def client(self, name: str) -> Any:
        import boto3

        return boto3.client(
            name,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def run(self, job: Any, name: str, words: Sequence[str], done: Callable[..., None]) -> None:
        """Run a program with its options, and tell *done* the exit code and the last lines."""
        self.submitted.append(list(words))
        # The program is the first word that ends in .py and is no option's value.
        values = {i + 1 for i, word in enumerate(words) if word.startswith("--")}
        at = next(i for i, w in enumerate(words) if w.endswith(".py") and i not in values)
        threading.Thread(
            target=self._run, args=(job.id, words[:at], words[at], words[at + 1 :], done)
        ).start()

    def kill(self, job: str) -> None:
        self.jobs[job].send_signal(signal.SIGKILL)

    def stop(self) -> None:
        for process in self.jobs.values():
            if process.poll() is None:
                process.kill()
        self._server.stop()

    def _run(
        self,
        job: str,
        options: Sequence[str],
        uri: str,
        arguments: Sequence[str],
        done: Callable[..., None],
    ) -> None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        program = self.folder / f"{job}.py"
        self.client("s3").download_file(bucket, key, str(program))
        self.hold.wait(60)
        self.jobs[job] = process = subprocess.Popen(
            self.command(str(program), arguments, options),
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output, _ = process.communicate()
        done(process.returncode, output)


@pytest.fixture
def amazon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, airflow_db: str) -> Any:
    """Amazon with an empty bucket; the environment of this process leads there."""
    pytest.importorskip("airflow.providers.amazon", reason="the extra emr is not installed")
    from tests.engines.engine_contract import PASSWORD

    folder = tmp_path / "amazon"
    folder.mkdir()
    amazon = Amazon(folder, {PASSWORD[0]: PASSWORD[1]})
    for name, value in amazon.environment.items():
        if name != PASSWORD[0]:
            monkeypatch.setenv(name, value)
    _steps_run(amazon, monkeypatch)
    _job_runs_run(amazon, monkeypatch)
    amazon.client("s3").create_bucket(Bucket=BUCKET)
    yield amazon
    amazon.stop()


def _steps_run(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.core.responses import ActionResult
    from moto.emr.models import Cluster, Step
    from moto.emr.responses import ElasticMapReduceResponse

    add = Cluster.add_steps

    def add_steps(self: Cluster, steps: list[dict[str, Any]]) -> list[Step]:
        added = add(self, steps)
        for step in added:
            step.state = "RUNNING"
            amazon.run(step, step.name, step.args[1:], _ends(step))
        return added

    def cancel_steps(self: ElasticMapReduceResponse) -> ActionResult:
        cluster = self.backend.clusters[self._get_param("ClusterId")]
        wanted = self._get_param("StepIds")
        for step in cluster.steps:
            if step.id in wanted:
                step.state = "CANCELLED"
                amazon.kill(step.id)
        told = [{"StepId": each, "Status": "SUBMITTED"} for each in wanted]
        return ActionResult({"CancelStepsInfoList": told})

    monkeypatch.setattr(Cluster, "add_steps", add_steps)
    monkeypatch.setattr(ElasticMapReduceResponse, "cancel_steps", cancel_steps, raising=False)


def _ends(step: Any) -> Callable[..., None]:
    def done(code: int, output: str) -> None:
        if step.state == "RUNNING":
            step.last_state_change_reason = None if code == 0 else f"exit code {code}"
            step.state = "COMPLETED" if code == 0 else "FAILED"

    return done


def _job_runs_run(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.emrserverless.models import EMRServerlessBackend, JobRun

    start, cancel = EMRServerlessBackend.start_job_run, EMRServerlessBackend.cancel_job_run

    def start_job_run(self: EMRServerlessBackend, **given: Any) -> JobRun:
        for run in self.job_runs.get(given["application_id"], []):
            if run.client_token == given["client_token"]:
                return run
        run = start(self, **given)
        driver = given["job_driver"]["sparkSubmit"]
        parameters = driver.get("sparkSubmitParameters", "").split()
        words = [*parameters, driver["entryPoint"], *driver["entryPointArguments"]]
        run.state = "RUNNING"
        amazon.run(run, given["name"], words, _run_ends(run))
        return run

    def cancel_job_run(
        self: EMRServerlessBackend, application_id: str, job_run_id: str
    ) -> tuple[str, str]:
        told = cancel(self, application_id, job_run_id)
        amazon.kill(job_run_id)
        return told

    monkeypatch.setattr(EMRServerlessBackend, "start_job_run", start_job_run)
    monkeypatch.setattr(EMRServerlessBackend, "cancel_job_run", cancel_job_run)


def _run_ends(run: Any) -> Callable[..., None]:
    def done(code: int, output: str) -> None:
        if run.state == "RUNNING":
            run.state_details = None if code == 0 else output.strip().splitlines()[-1]
            run.state = "SUCCESS" if code == 0 else "FAILED"

    return done
