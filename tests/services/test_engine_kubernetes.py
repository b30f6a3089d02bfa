"""Tasks in real pods."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.exceptions import EngineError, TaskFailedError
from tests.engines import attempt as attempts
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
                if pod.status.phase == phase and pod.metadata.deletion_timestamp is None:
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
def work(cluster: Cluster, configure: Any, run_source: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``work(conf, store=..., **options)`` runs one task in a pod; returns its state and log."""

    def go(
        conf: dict[str, Any] | None = None,
        *,
        store: str | None = None,
        retries: int = 0,
        **options: Any,
    ) -> tuple[str, str]:
        configure(cluster.table())
        monkeypatch.setenv("DBND_STORE", store or f"s3://{cluster.bucket}/{uuid.uuid4().hex[:8]}")
        source = SOURCE.replace("{OPTIONS}", repr(options)).replace("{RETRIES}", str(retries))
        left, log = run_source(source, **(conf or {}))
        return left.states()["work"], log

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


# --- workers that die, and tasks that are killed ---------------------------------------------------


@pytest.fixture
def project(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """``project(**options)`` is a folder with a task whose pods mount it, store included."""
    monkeypatch.delenv("DBND_STORE", raising=False)

    def make(**options: str) -> str:
        disk = {
            "volumes": f'[{{ name = "disk", hostPath = {{ path = "{tmp_path}" }} }}]',
            "volume_mounts": f'[{{ name = "disk", mountPath = "{tmp_path}" }}]',
        }
        folder = tmp_path / "project"  # what travels with the task, and is the same at each try
        folder.mkdir(exist_ok=True)
        (folder / "work.py").write_text(attempts.WORK)
        (folder / "dbnd.toml").write_text(
            f'engine = "here"\nstore = "{tmp_path}/store"\n' + cluster.table(**{**disk, **options})
        )
        return str(folder)

    return make


def ran(flag: Path) -> int:
    """Return how often the task's function was called."""
    return len(flag.read_text().splitlines()) if flag.exists() else 0


def until(true: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.2)
    raise AssertionError("waited in vain")


def die(project: str, when: Callable[[], Any], **arguments: Any) -> None:
    """Kill the worker of a first try, with no chance to clean up."""
    worker = attempts.start(project, arguments=arguments)
    try:
        until(when)
    finally:
        worker.kill()
        worker.communicate()


def mine(cluster: Cluster, tmp_path: Path) -> list[Any]:
    """Return the pods with this test's store that nobody has deleted.

    This cluster keeps a pod for a minute after its container died.
    """
    return [
        pod
        for pod in cluster.pods()
        if pod.metadata.annotations["dbnd/spec"].startswith(f"file://{tmp_path}/")
        and pod.metadata.deletion_timestamp is None
    ]


def test_a_retry_follows_the_pod_of_a_worker_that_died(
    project: Any, cluster: Cluster, tmp_path: Path
) -> None:
    folder, flag = project(), tmp_path / "flag"
    given = {"seconds": 20, "flag": str(flag)}
    die(folder, lambda: ran(flag), **given)
    # The cluster tells it later than the pod's own file does.
    until(lambda: [pod.status.phase for pod in mine(cluster, tmp_path)] == ["Running"])

    manifest = attempts.attempt(folder, arguments=given, try_number=2)

    assert manifest.outputs["result"] == 42
    assert ran(flag) == 1
    until(lambda: not mine(cluster, tmp_path))
    assert not list(tmp_path.glob("store/_jobs/**/*.json"))


@pytest.mark.parametrize("keep", [False, True], ids=["deleted", "kept"])
def test_the_result_of_a_pod_that_ended_meanwhile_is_taken(
    project: Any, cluster: Cluster, tmp_path: Path, keep: bool
) -> None:
    folder = project(on_finish_action='"keep_pod"' if keep else '"delete_pod"')
    flag = tmp_path / "flag"
    given = {"seconds": 6, "flag": str(flag)}
    die(folder, lambda: ran(flag), **given)
    until(lambda: [pod for pod in mine(cluster, tmp_path) if pod.status.phase == "Succeeded"])

    manifest = attempts.attempt(folder, arguments=given, try_number=2)

    assert manifest.outputs["result"] == 42
    assert ran(flag) == 1
    if keep:
        (pod,) = mine(cluster, tmp_path)
        assert pod.metadata.labels["already_checked"] == "True"
    else:
        until(lambda: not mine(cluster, tmp_path))


def test_a_pod_with_other_parameters_is_deleted_before_the_retrys_own_starts(
    project: Any, cluster: Cluster, tmp_path: Path
) -> None:
    folder, flag = project(), tmp_path / "flag"
    die(folder, lambda: ran(flag), seconds=120, flag=str(flag))
    (first,) = mine(cluster, tmp_path)

    manifest = attempts.attempt(folder, arguments={"flag": str(flag)}, try_number=2)

    assert manifest.outputs["result"] == 42
    assert ran(flag) == 2
    until(lambda: not mine(cluster, tmp_path))
    events = cluster.api.list_namespaced_event(
        cluster.namespace, field_selector=f"involvedObject.name={first.metadata.name}"
    )
    assert "Killing" in {event.reason for event in events.items}


def test_a_pod_that_failed_meanwhile_does_not_spoil_the_retry(
    project: Any, cluster: Cluster, tmp_path: Path
) -> None:
    folder, flag = project(), tmp_path / "flag"
    given = {"seconds": 6, "flag": str(flag), "fail": "not today"}
    die(folder, lambda: ran(flag), **given)
    until(lambda: [pod for pod in mine(cluster, tmp_path) if pod.status.phase == "Failed"])

    with pytest.raises(TaskFailedError, match="not today"):
        attempts.attempt(folder, arguments={**given, "seconds": 6}, try_number=2)

    assert ran(flag) == 2
    until(lambda: not mine(cluster, tmp_path))


def test_killing_the_task_deletes_its_pod(work: Any, cluster: Cluster) -> None:
    def kill() -> None:
        cluster.wait_for("Running")
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = in_background(kill)
    try:
        state, _ = work({"seconds": 120})
    finally:
        signal.signal(signal.SIGTERM, before)
        thread.join()

    assert state == "failed"
    assert all(pod.metadata.deletion_timestamp for pod in cluster.pods(dag_id="in_pods"))


def test_a_deferred_task_that_dies_is_taken_up_by_the_retry(
    airflow_run: Any, cluster: Cluster, tmp_path: Path
) -> None:
    command, flag = airflow_run(), tmp_path / "flag"
    worker = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until(lambda: ran(flag))
        # It is deferred by now: what waits is the trigger.
        time.sleep(2)
    finally:
        worker.kill()
        worker.communicate()

    again = subprocess.run(**command, capture_output=True, text=True, timeout=300)

    assert "state: success" in again.stdout, again.stdout + again.stderr
    assert ran(flag) == 1
    until(lambda: not mine(cluster, tmp_path))


#: A run of the DAG in a process of its own, the same run whenever it is started.
RUN = """
import datetime as dt
import sys
from airflow_provider_dbnd.cli.dags import parse
dag = next(iter(parse(sys.argv[1]).dags.values()))
day = dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)
run = dag.test(logical_date=day, run_after=day, run_conf={"flag": sys.argv[2], "seconds": 15})
print("state:", run.state)
"""

FLOW = """
from airflow_provider_dbnd import pipeline

@pipeline
def flow(seconds: float = 0, flag: str = ""):
    work(seconds=seconds, flag=flag)

dag = flow.as_dag()
"""


@pytest.fixture
def airflow_run(project: Any, airflow_db: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``airflow_run(**options)`` is the command and environment of a deferred run in Airflow."""
    file = Path(airflow_db) / "pods_of_its_own.py"

    def command(**options: str) -> dict[str, Any]:
        folder = project(deferrable="true", **options)
        file.write_text(attempts.WORK + FLOW)
        env = {**os.environ, "DBND_CONFIG": f"{folder}/dbnd.toml"}
        return {"args": [sys.executable, "-c", RUN, str(file), str(tmp_path / "flag")], "env": env}

    yield command
    file.unlink()


def test_a_deferred_pod_that_is_collected_after_its_end_leaves_its_result(
    airflow_run: Any, cluster: Cluster, tmp_path: Path
) -> None:
    command = airflow_run(poll_interval="10", on_finish_action='"keep_pod"')

    def collect() -> None:
        def ended() -> list[Any]:
            return [pod for pod in mine(cluster, tmp_path) if pod.status.phase == "Succeeded"]

        (pod,) = until(ended)
        cluster.api.delete_namespaced_pod(
            pod.metadata.name, cluster.namespace, grace_period_seconds=0
        )

    thread = in_background(collect)
    done = subprocess.run(**command, capture_output=True, text=True, timeout=300)
    thread.join()

    assert "state: success" in done.stdout, done.stdout + done.stderr
    assert ran(tmp_path / "flag") == 1


class Cut:
    """A way to the API server that closes its connections when told."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Close what is open; return how many connections that were."""
        cut, self._open = self._open, []
        for each in cut:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        return len(cut) // 2

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # else one more connection would be let in
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours = self._server.accept()[0]
                theirs = socket.create_connection(self._to)
                self._open += [ours, theirs]
                for a, b in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cut(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[Cut, str]]:
    """A proxy before the API server, and the kubeconfig that goes through it."""
    text = Path(cluster.config).read_text()
    address = re.search(r"https://([\d.]+):(\d+)", text)
    assert address is not None
    proxy = Cut(address[1], int(address[2]))
    config = tmp_path / "kubeconfig"
    config.write_text(text.replace(address[0], f"https://127.0.0.1:{proxy.port}"))
    yield proxy, str(config)
    proxy.close()


def test_a_log_stream_that_is_cut_does_not_lose_the_result(
    work: Any, cluster: Cluster, cut: tuple[Cut, str]
) -> None:
    proxy, config = cut

    def interrupt() -> None:
        cluster.wait_for("Running")
        time.sleep(4)
        assert proxy.cut() > 0

    thread = in_background(interrupt)
    state, log = work({"seconds": 12}, config_file=config)
    thread.join()

    assert state == "success", log


def test_a_cluster_that_does_not_answer_is_named(work: Any, cut: tuple[Cut, str]) -> None:
    proxy, config = cut
    proxy.close()

    message = failed(work(config_file=config))

    assert "the Kubernetes API does not answer" in message
    assert "Check kubernetes_conn_id or config_file" in message


def test_a_pod_that_outlives_the_way_to_the_cluster_is_taken_up_by_the_retry(
    project: Any, cluster: Cluster, cut: tuple[Cut, str], tmp_path: Path
) -> None:
    proxy, config = cut
    folder, flag = project(), tmp_path / "flag"
    given = {"seconds": 90, "flag": str(flag)}

    def interrupt() -> None:
        until(lambda: ran(flag))
        proxy.close()

    thread = in_background(interrupt)
    with pytest.raises(EngineError, match="the Kubernetes API does not answer"):
        attempts.attempt(folder, options={"config_file": config}, arguments=given)
    thread.join()
    manifest = attempts.attempt(folder, arguments=given, try_number=2)

    assert manifest.outputs["result"] == 42
    assert ran(flag) == 1


# --- what the pod is made of ----------------------------------------------------------------------


def test_overrides_of_every_level_reach_the_pod_in_order(
    project: Any, cluster: Cluster, tmp_path: Path
) -> None:
    from kubernetes.client import models as k8s

    base = '{ metadata = { labels = { level = "engine", below = "yes" } }, spec = { containers = [{ env = [{ name = "COST", value = "$(HOME) is $5" }] }] } }'
    folder, flag = project(pod_override=base, on_finish_action='"keep_pod"'), tmp_path / "flag"
    over = k8s.V1Pod(metadata=k8s.V1ObjectMeta(labels={"level": "task"}))

    manifest = attempts.attempt(
        folder, options={"pod_override": over}, arguments={"flag": str(flag)}
    )

    assert manifest.outputs["result"] == 42
    (pod,) = mine(cluster, tmp_path)
    assert (pod.metadata.labels["level"], pod.metadata.labels["below"]) == ("task", "yes")
    assert pod.metadata.labels["dbnd/engine"] == "here"
    assert [container.name for container in pod.spec.containers] == ["base"]
    (container,) = pod.spec.containers
    assert "COST" in {variable.name for variable in container.env}
    assert container.command == ["python3"]
    assert sum(map(len, container.args)) < 64 * 1024


CLI = "from airflow_provider_dbnd.cli.main import entry; entry()"


def test_the_engine_runs_for_dbnd_run_without_airflow(
    project: Any, cluster: Cluster, tmp_path: Path
) -> None:
    folder, flag = project(), tmp_path / "flag"
    Path(folder, "flow.py").write_text(attempts.WORK + FLOW)
    command = [sys.executable, "-c", CLI, "run", "flow.py"]

    done = subprocess.run(
        [*command, "--set", f"flag={flag}"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert ran(flag) == 1
    until(lambda: not mine(cluster, tmp_path))


def environment() -> dict[str, str]:
    """Return the variables of a process that is to find this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


BIG = """
from pandas import DataFrame
import numpy as np
from airflow_provider_dbnd import pipeline, task

@task(engine="here")
def make(mb: int = 1024) -> DataFrame:
    return DataFrame({"x": np.random.default_rng(1).integers(0, 2**62, mb * 2**17)})

@task(engine="here")
def total(rows: DataFrame) -> int:
    return len(rows)

@pipeline
def big(mb: int = 1024):
    total(make(mb))

dag = big.as_dag()
"""


def test_a_gigabyte_passes_without_the_workers_memory(
    cluster: Cluster,
    parse_dag: Any,
    run_dag: Any,
    records: Any,
    configure: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(cluster.table())
    monkeypatch.setenv("DBND_STORE", f"s3://{cluster.bucket}/{uuid.uuid4().hex[:8]}")
    dag = parse_dag(BIG)
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest memory so far
    before = memory("VmRSS")

    left = records(run_dag(dag))

    assert left.xcom("total") == 2**27
    assert left.xcom("make")["size"] > 2**30 * 0.9
    assert memory("VmHWM") - before < 256 * 1024
    assert len(left.all_text()) < 20_000


def memory(name: str) -> int:
    """Return a figure of this process' memory, in KiB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])
