"""Tasks in real pods."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
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
        if any(each.metadata.name == "default" for each in api.list_namespaced_service_account(name).items):
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
