"""Amazon on loopback: moto's S3, EMR and EMR Serverless in this process, where jobs really run.

moto's EMR takes steps and leaves them as they are, and its EMR Serverless calls every job run a
success at once. What is added here: a step or job run executes its program as a process and its state
follows that process; `CancelSteps` (which moto lacks) and `CancelJobRun` kill it; a client token that
was seen gives the job run of before; a step that is not there is an error. What is not Amazon's: the cluster is this machine, and the
program is downloaded first, as EMRFS would do.
"""

from __future__ import annotations

import atexit
import functools
import logging
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cloud import Cloud

ROLE = "arn:aws:iam::123456789012:role/job"
CLIENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Amazon(Cloud):
    """S3 at ``url``."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.url = moto()
        super().__init__(folder, {"AWS_ENDPOINT_URL": self.url, **CLIENT, **environment})

    def client(self, name: str) -> Any:
        """Return boto's client of a service."""
        import boto3

        return boto3.client(
            name,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def fetch(self, uri: str, path: str) -> None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        self.client("s3").download_file(bucket, key, path)


class Emr(Amazon):
    """A cluster of EMR."""

    def add(self, step: Any) -> None:
        words = list(step.args)
        step.state = "RUNNING"
        assert words.pop(0) == "spark-submit"
        assert step.jar == "command-runner.jar"
        at = _program(words)

        def done(code: int, output: str) -> None:
            if step.state == "RUNNING":
                step.state = "COMPLETED" if code == 0 else "FAILED"
                step.last_state_change_reason = output[-200:] if code else None

        self.run(step.id, words[at], words[at + 1 :], words[:at], done)

    def make_cluster(self) -> str:
        """Start a cluster."""
        made = self.client("emr").run_job_flow(
            Name="cluster",
            Instances={"KeepJobFlowAliveWhenNoSteps": True, "InstanceCount": 1},
            LogUri="s3://logs/",
        )
        return str(made["JobFlowId"])

    def steps(self) -> list[Any]:
        """Return the steps of this test, the oldest first."""
        from moto.emr.models import emr_backends

        clusters = emr_backends["123456789012"]["us-east-1"].clusters
        steps = [step for cluster in clusters.values() for step in cluster.steps]
        return [step for step in steps if step.id in self.jobs]

    def cancel(self, job: str) -> None:
        (step,) = (each for each in self.steps() if each.id == job)
        step.state = "CANCELLED"
        step.last_state_change_reason = "Cancelled by user"
        self.kill(job)

    def lose(self, job: str) -> None:
        from moto.emr.models import emr_backends

        for cluster in emr_backends["123456789012"]["us-east-1"].clusters.values():
            cluster.steps[:] = [step for step in cluster.steps if step.id != job]
        self.kill(job)


class EmrServerless(Amazon):
    """An application of EMR Serverless."""

    def make_application(self) -> str:
        """Start an application."""
        made = self.client("emr-serverless").create_application(
            name="app", releaseLabel="emr-7.5.0", type="SPARK"
        )
        return str(made["applicationId"])

    def start(self, run: Any) -> None:
        driver = run.job_driver["sparkSubmit"]
        run.state = "RUNNING"

        def done(code: int, output: str) -> None:
            if run.state == "RUNNING":
                run.state = "SUCCESS" if code == 0 else "FAILED"
                run.state_details = output[-200:] if code else None

        options = shlex.split(driver.get("sparkSubmitParameters", ""))
        self.run(run.id, driver["entryPoint"], driver["entryPointArguments"], options, done)

    def job_runs(self) -> list[Any]:
        """Return the job runs of this test, the oldest first."""
        runs = [run for runs in self._backend().job_runs.values() for run in runs]
        return [run for run in runs if run.id in self.jobs]

    def cancel(self, job: str) -> None:
        (run,) = (each for each in self.job_runs() if each.id == job)
        run.state, run.state_details = "CANCELLED", "Cancelled by user"
        self.kill(job)

    def lose(self, job: str) -> None:
        for runs in self._backend().job_runs.values():
            runs[:] = [run for run in runs if run.id != job]
        self.kill(job)

    def _backend(self) -> Any:
        from moto.emrserverless.models import emrserverless_backends

        return emrserverless_backends["123456789012"]["us-east-1"]


@functools.cache
def moto() -> str:
    """Start moto in this process, for as long as it lasts, and return its URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


class InBucket:
    """Tests whose store is a bucket of moto."""

    @pytest.fixture
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """URL of a bucket, where the environment of this process leads."""
        import boto3
        import s3fs

        for name, value in {"AWS_ENDPOINT_URL": moto(), **CLIENT}.items():
            monkeypatch.setenv(name, value)
        name = f"dbnd-{uuid.uuid4().hex[:8]}"
        boto3.client("s3").create_bucket(Bucket=name)
        # Others of this process were made for another server, by the same arguments.
        s3fs.S3FileSystem.clear_instance_cache()
        yield f"s3://{name}"
        s3fs.S3FileSystem.clear_instance_cache()

    @pytest.fixture
    def engine_store(self, bucket: str) -> str:
        return f"{bucket}/store"


def steps_run(emr: Emr, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let moto's EMR run steps by *emr*, and cancel them."""
    from moto.core.responses import ActionResult
    from moto.emr.exceptions import InvalidRequestException
    from moto.emr.models import Cluster, ElasticMapReduceBackend
    from moto.emr.responses import ElasticMapReduceResponse

    add: Callable[..., Any] = Cluster.add_steps
    describe: Callable[..., Any] = ElasticMapReduceBackend.describe_step

    def add_steps(self: Any, steps: Any) -> Any:
        added = add(self, steps)
        for step in added:
            emr.add(step)
        return added

    def cancel_steps(self: Any) -> Any:
        wanted = self._get_param("StepIds")
        for each in wanted:
            emr.cancel(each)
        told = [{"StepId": each, "Status": "SUBMITTED"} for each in wanted]
        return ActionResult({"CancelStepsInfoList": told})

    def describe_step(self: Any, cluster_id: str, step_id: str) -> Any:
        found = describe(self, cluster_id, step_id)
        if found is None:
            raise InvalidRequestException(f"Step id '{step_id}' is not valid.")
        return found

    monkeypatch.setattr(Cluster, "add_steps", add_steps)
    monkeypatch.setattr(ElasticMapReduceBackend, "describe_step", describe_step)
    monkeypatch.setattr(ElasticMapReduceResponse, "cancel_steps", cancel_steps, raising=False)


def job_runs_run(serverless: EmrServerless, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let moto's EMR Serverless run jobs by *serverless*, and cancel them."""
    from moto.emrserverless.models import EMRServerlessBackend

    start: Callable[..., Any] = EMRServerlessBackend.start_job_run
    cancel: Callable[..., Any] = EMRServerlessBackend.cancel_job_run

    def start_job_run(self: Any, **given: Any) -> Any:
        for run in self.job_runs.get(given["application_id"], []):
            if run.client_token == given["client_token"]:
                return run
        run = start(self, **given)
        serverless.start(run)
        return run

    def cancel_job_run(self: Any, application_id: str, job_run_id: str) -> Any:
        told = cancel(self, application_id, job_run_id)
        serverless.kill(job_run_id)
        return told

    monkeypatch.setattr(EMRServerlessBackend, "start_job_run", start_job_run)
    monkeypatch.setattr(EMRServerlessBackend, "cancel_job_run", cancel_job_run)


def _program(words: list[str]) -> int:
    """Return where the program is: options of spark-submit come with a value each."""
    at = 0
    while words[at].startswith("--"):
        at += 2
    return at
