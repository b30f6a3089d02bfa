"""Tasks in real pods."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines.engine_contract import PASSWORD, EngineContract


@dataclass
class Cluster:
    """A namespace of a cluster, a bucket that its pods reach, and images its node has."""

    config: str
    api: Any
    namespace: str
    s3: str
    bucket: str
    image: str
    bare: str
    no_python: str

    @property
    def credentials(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "AK",
            "AWS_SECRET_ACCESS_KEY": "SK",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.s3,
        }

    def table(self, **more: str) -> str:
        """Return the engine's table of dbnd.toml."""
        lines = {
            "type": '"kubernetes"',
            "config_file": f'"{self.config}"',
            "namespace": f'"{self.namespace}"',
            "image": f'"{self.image}"',
            "image_pull_policy": '"Never"',
            "hostnetwork": "true",
            "termination_grace_period": "1",
            "startup_check_interval_seconds": "1",
            "secrets": '[{ type = "env", secret = "aws" }]',
            **more,
        }
        text = "\n".join(f"{name} = {value}" for name, value in lines.items())
        return f"[engines.here]\n{text}\n"

    def pods(self, **labels: str) -> list[Any]:
        """Return the pods of tasks."""
        selector = ",".join(("dbnd/task", *(f"{k}={v}" for k, v in labels.items())))
        return list(self.api.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def wait_for(self, phase: str, **labels: str) -> Any:
        """Return the pod of a task once it is in *phase*."""
        for _ in range(300):
            for pod in self.pods(**labels):
                if pod.status.phase == phase:
                    return pod
            time.sleep(0.2)
        raise AssertionError(f"no pod is {phase}: {self.pods()}")

    def secret(self, name: str, **data: str) -> None:
        body = {"metadata": {"name": name}, "stringData": data}
        self.api.create_namespaced_secret(self.namespace, body)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A namespace of this session's own."""
    try:
        config, s3 = os.environ["DBND_TEST_KUBECONFIG"], os.environ["DBND_TEST_S3_MOTO"]
        images = [os.environ[f"DBND_TEST_IMAGE{x}"] for x in ("", "_BARE", "_NO_PYTHON")]
    except KeyError as missing:
        if os.environ.get("DBND_TEST_SERVICES"):
            raise
        pytest.skip(f"{missing} is not set: run .ci/services up and export its env file")
    import boto3
    import urllib3
    from kubernetes.client import CoreV1Api
    from kubernetes.config import new_client_from_config

    urllib3.disable_warnings()  # the cluster's certificate is its own
    api = CoreV1Api(new_client_from_config(config))
    name = f"dbnd-{uuid.uuid4().hex[:8]}"
    boto3.client(
        "s3", endpoint_url=s3, aws_access_key_id="AK", aws_secret_access_key="SK"
    ).create_bucket(Bucket=name)
    api.create_namespace({"metadata": {"name": name}})
    made = Cluster(config, api, name, s3, name, *images)
    made.secret("aws", **made.credentials)
    made.secret("login", password=PASSWORD[1])
    for _ in range(100):
        if any(
            each.metadata.name == "default"
            for each in api.list_namespaced_service_account(name).items
        ):
            break
        time.sleep(0.1)
    yield made
    api.delete_namespace(name)


@pytest.fixture(autouse=True)
def credentials(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own way into the bucket."""
    for name, value in cluster.credentials.items():
        monkeypatch.setenv(name, value)


class OnKubernetes(EngineContract):
    """The contract with a pod for each task."""

    mode = "false"

    @pytest.fixture
    def engine_store(self, cluster: Cluster) -> str:
        return f"s3://{cluster.bucket}/{uuid.uuid4().hex[:8]}"

    @pytest.fixture
    def engine(self, cluster: Cluster) -> str:
        name = PASSWORD[0]
        return cluster.table(
            deferrable=self.mode,
            secrets=f'[{{ type = "env", secret = "aws" }}, {{ type = "env", target = "{name}", secret = "login", key = "password" }}]',
        )


class TestSync(OnKubernetes):
    mode = "false"


class TestDeferrable(OnKubernetes):
    mode = "true"


SOURCE = """
import importlib, os, time
from airflow_provider_dbnd import pipeline, task

@task(engine="here", kubernetes={OPTIONS}, retries={RETRIES})
def work(seconds: float = 0, mb: int = 0, code: int = -1, needs: str = "json") -> int:
    importlib.import_module(needs)
    time.sleep(seconds)
    if code >= 0:
        os._exit(code)
    return len(bytearray(b"1") * (mb * 2**20))

@pipeline
def in_pods(seconds: float = 0, mb: int = 0, code: int = -1, needs: str = "json"):
    work(seconds, mb, code, needs)

dag = in_pods.as_dag()
"""


@pytest.fixture
def work(
    cluster: Cluster,
    tmp_path: Path,
    parse_dag: Any,
    run_dag: Any,
    records: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """``work(conf, store=..., **options)`` runs one task in a pod; returns its state and log."""

    def go(
        conf: dict[str, Any] | None = None,
        *,
        store: str | None = None,
        retries: int = 0,
        **options: Any,
    ) -> tuple[str, str]:
        config = tmp_path / "dbnd.toml"
        config.write_text(cluster.table())
        monkeypatch.setenv("DBND_CONFIG", str(config))
        monkeypatch.setenv("DBND_STORE", store or f"s3://{cluster.bucket}/{uuid.uuid4().hex[:8]}")
        source = SOURCE.replace("{OPTIONS}", repr(options)).replace("{RETRIES}", str(retries))
        left = records(run_dag(parse_dag(source), **(conf or {})))
        return left.states()["work"], capsys.readouterr().out

    return go


def in_background(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def mounted(folder: Path, **more: Any) -> dict[str, Any]:
    """Return the options that give a pod *folder* of this machine."""
    return {
        "volumes": [{"name": "disk", "hostPath": {"path": str(folder)}}],
        "volume_mounts": [{"name": "disk", "mountPath": str(folder), **more}],
    }


def failed(outcome: tuple[str, str]) -> str:
    """Return the message of the task that failed."""
    state, log = outcome
    assert state == "failed", log
    found = re.search(r"(engine 'here' \(kubernetes\), job .*?)(\nFile|\Z|\n\d{4}-\d\d)", log, re.S)
    assert found, log
    return found[1]


def test_an_image_without_python_is_named(work: Any, cluster: Cluster) -> None:
    message = failed(work(image=cluster.no_python))

    assert f"job {cluster.namespace}/in-pods-work-" in message
    assert "container base cannot run its program" in message
    assert "Use an image with Python 3.10 or newer" in message


def test_an_image_without_the_stores_library_says_so(work: Any, cluster: Cluster) -> None:
    message = failed(work(image=cluster.bare))

    assert "the task could not start in container base (exit code 64)" in message
    assert "the image has no fsspec" in message


def test_an_image_without_a_library_names_the_library(
    work: Any, cluster: Cluster, tmp_path: Path
) -> None:
    state, log = work(
        {"needs": "pandas"}, image=cluster.bare, store=str(tmp_path / "s"), **mounted(tmp_path)
    )

    assert state == "failed"
    assert f"task 'work' failed in job {cluster.namespace}/in-pods-work-" in log
    assert "No module named 'pandas'" in log


@pytest.mark.parametrize(
    ("image", "policy", "says"),
    [
        pytest.param("dbnd/nothing:here", "Never", "ErrImageNeverPull", id="never"),
        pytest.param("127.0.0.1:9/dbnd/nothing:1", "Always", "connection refused", id="pull"),
        pytest.param("Not An Image", "Never", "InvalidImageName", id="name"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_not_tried_again(
    work: Any, image: str, policy: str, says: str
) -> None:
    message = failed(work(image=image, image_pull_policy=policy, retries=2))

    assert f"image '{image}' cannot be pulled" in message
    assert says in message
    assert "Not tried again: retries_by_reason.image_pull is 0." in message


def test_a_pod_that_no_node_takes_tells_what_the_scheduler_says(work: Any) -> None:
    message = failed(work(node_selector={"disk": "none-has-this"}, startup_timeout_seconds=2))

    assert "no node took the pod in time: 0/1 nodes are available" in message
    assert "didn't match" in message
    assert "Check node_selector" in message


def test_a_pod_out_of_memory_names_the_limit_and_is_not_tried_again(work: Any) -> None:
    limits = {"limits": {"memory": "64Mi"}}
    message = failed(work({"mb": 200}, container_resources=limits, retries=2))

    assert "container base was killed for want of memory (its limit is 64Mi)" in message
    assert "Not tried again: retries_by_reason.oom is 0." in message


def test_an_exit_code_is_told_with_the_last_lines(work: Any) -> None:
    message = failed(work({"code": 3}))

    assert "container base ended with exit code 3" in message


def test_a_missing_secret_is_named(work: Any) -> None:
    missing = [{"type": "env", "target": "TOKEN", "secret": "nowhere", "key": "token"}]
    message = failed(work(secrets=missing, startup_timeout_seconds=4))

    assert 'container base cannot be made: secret "nowhere" not found' in message
    assert "Not tried again: retries_by_reason.invalid_config is 0." in message


def test_a_missing_secret_of_a_volume_is_named(work: Any) -> None:
    missing = [{"type": "volume", "target": "/token", "secret": "nowhere"}]
    message = failed(work(secrets=missing, startup_timeout_seconds=4))

    assert 'secret "nowhere" not found' in message


def test_a_pod_that_is_deleted_while_it_runs_is_lost(work: Any, cluster: Cluster) -> None:
    def delete() -> None:
        pod = cluster.wait_for("Running")
        cluster.api.delete_namespaced_pod(
            pod.metadata.name, cluster.namespace, grace_period_seconds=1
        )

    thread = in_background(delete)
    message = failed(work({"seconds": 120}))
    thread.join()

    assert "the pod was deleted before it left a result" in message


@pytest.fixture
def slot(cluster: Cluster) -> Iterator[str]:
    """A device of which the node has one, so that pods compete for it and for nothing else."""
    name = f"dbnd.test/{cluster.namespace}"
    node = cluster.api.list_node().items[0].metadata.name
    cluster.api.patch_node_status(node, {"status": {"capacity": {name: "1"}}})
    yield name
    cluster.api.patch_node_status(node, {"status": {"capacity": {name: None}}})


def test_a_pod_that_gives_way_to_another_is_evicted(work: Any, cluster: Cluster, slot: str) -> None:
    def compete() -> None:
        cluster.wait_for("Running")
        container = {
            "name": "base",
            "image": cluster.bare,
            "imagePullPolicy": "Never",
            "command": ["true"],
            "resources": {"limits": {slot: "1"}},
        }
        spec = {
            "containers": [container],
            "hostNetwork": True,
            "restartPolicy": "Never",
            "priorityClassName": "system-node-critical",
        }
        pod = {"metadata": {"name": "important"}, "spec": spec}
        cluster.api.create_namespaced_pod(cluster.namespace, pod)

    thread = in_background(compete)
    message = failed(work({"seconds": 120}, gpu={slot: 1}))
    thread.join()

    assert "the pod was evicted (Preempted: Preempted by " in message
    assert "Not tried again" not in message


def test_a_pod_that_runs_too_long_is_stopped_at_its_deadline(work: Any) -> None:
    message = failed(work({"seconds": 120}, active_deadline_seconds=6))

    assert "the pod ran longer than active_deadline_seconds=6" in message


def test_a_pod_that_the_api_refuses_tells_what_it_says(work: Any) -> None:
    message = failed(work(tolerations=[{"key": "x", "operator": "Perhaps"}], retries=2))

    assert (
        "job not started: the Kubernetes API refuses the pod (422 Unprocessable Entity)" in message
    )
    assert 'Unsupported value: "Perhaps"' in message
    assert "Not tried again" in message


def test_a_namespace_that_is_not_there_is_named(work: Any) -> None:
    message = failed(work(namespace="nowhere"))

    assert 'namespaces "nowhere" not found' in message


def test_a_connection_that_is_not_there_is_named(work: Any) -> None:
    message = failed(work(config_file=None, kubernetes_conn_id="nowhere"))

    assert "nowhere" in message
    assert "Set kubernetes_conn_id, config_file or in_cluster" in message


def test_a_store_on_this_disk_is_refused_with_what_to_do(work: Any, tmp_path: Path) -> None:
    message = failed(work(store=str(tmp_path / "store")))

    assert f"store file://{tmp_path}/store is on this machine's disk" in message
    assert f'volume_mounts with mount_path = "{tmp_path}/store"' in message


def test_a_store_on_a_mounted_disk_is_used(work: Any, tmp_path: Path) -> None:
    assert work(store=str(tmp_path / "store"), **mounted(tmp_path))[0] == "success"


def test_a_store_the_pod_may_not_write_is_named(work: Any, tmp_path: Path) -> None:
    message = failed(work(store=str(tmp_path / "store"), **mounted(tmp_path, readOnly=True)))

    assert "Read-only file system" in message
    assert str(tmp_path / "store") in message
