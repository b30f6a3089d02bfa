"""What the Kubernetes engine makes of options, and of how pods ended; no cluster needed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("airflow.providers.cncf.kubernetes")

from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from airflow_provider_dbnd.core.settings import merged_options
from airflow_provider_dbnd.engines.kubernetes.options import (
    operator_options,
    pod_overrides,
    with_gpu,
)
from airflow_provider_dbnd.engines.kubernetes.reasons import (
    LastLook,
    checked_retries,
    reason_of_error,
    reason_of_pod,
)
from airflow_provider_dbnd.exceptions import ConfigurationError


def plain(model: Any) -> Any:
    return ApiClient().sanitize_for_serialization(model)


def test_tables_become_models_with_keys_of_yaml_or_of_python() -> None:
    made = operator_options(
        {
            "volumes": [
                {"name": "a", "hostPath": {"path": "/data", "type": "Directory"}},
                {"name": "b", "persistent_volume_claim": {"claim_name": "c"}},
            ],
            "volume_mounts": [{"name": "a", "mountPath": "/data", "read_only": True}],
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "container_resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}
                        ]
                    }
                }
            },
            "security_context": {"runAsUser": 1000},
            "image_pull_secrets": ["registry"],
            "init_containers": [{"name": "wait", "image": "busybox", "command": ["true"]}],
            "image": "untouched",
        }
    )

    assert made["volumes"][0] == k8s.V1Volume(
        name="a", host_path=k8s.V1HostPathVolumeSource(path="/data", type="Directory")
    )
    assert made["volumes"][1].persistent_volume_claim.claim_name == "c"
    assert made["volume_mounts"][0].read_only is True
    assert made["tolerations"][0].effect == "NoSchedule"
    assert made["container_resources"].limits == {"cpu": "1", "memory": "1Gi"}
    assert made["security_context"].run_as_user == 1000
    assert made["image_pull_secrets"] == [k8s.V1LocalObjectReference(name="registry")]
    assert made["init_containers"][0].command == ["true"]
    assert plain(made["affinity"])["nodeAffinity"]
    assert made["image"] == "untouched"


def test_models_pass_as_they_are() -> None:
    volume = k8s.V1Volume(name="a")

    assert operator_options({"volumes": [volume]})["volumes"][0] is volume


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(
            {"volumes": [{"name": "a", "hostPaht": {}}]},
            "volumes[0]: unknown key 'hostPaht'; did you mean 'host_path'?",
            id="key",
        ),
        pytest.param({"volumes": {"name": "a"}}, "volumes: expected a list, got", id="list"),
        pytest.param({"volumes": [{}]}, "volumes[0]: Invalid value for `name`", id="missing"),
        pytest.param(
            {"tolerations": ["x"]},
            "tolerations[0]: expected a table or a V1Toleration, got 'x'.",
            id="table",
        ),
        pytest.param(
            {"env_vars": {"A": ["x"]}}, "env_vars.A: expected text, got ['x'].", id="text"
        ),
        pytest.param(
            {"secrets": [{"type": "env", "target": "A", "secrte": "s"}]},
            "secrets[0]: unknown key 'secrte'; did you mean 'secret'?",
            id="secret",
        ),
        pytest.param(
            {"secrets": [{"type": "file", "secret": "s"}]},
            'secrets[0]: expected type = "env" or "volume"',
            id="secret-type",
        ),
        pytest.param(
            {"secrets": [{"type": "env", "secret": "s", "key": "k"}]},
            "secrets[0]: target is missing",
            id="secret-target",
        ),
    ],
)
def test_a_wrong_option_says_where_and_what(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        operator_options(options)

    assert says in str(raised.value)


def test_secrets_of_tables_and_objects() -> None:
    from airflow.providers.cncf.kubernetes.secret import Secret

    given = Secret("env", "B", "s", "b")
    made = operator_options(
        {
            "secrets": [
                {"type": "env", "target": "A", "secret": "s", "key": "a"},
                {"type": "env", "secret": "all"},
                {
                    "deploy_type": "volume",
                    "deploy_target": "/s",
                    "secret": "s",
                    "items": [{"key": "k", "path": "p"}],
                },
                given,
            ]
        }
    )["secrets"]

    assert made[0] == Secret("env", "A", "s", "a")
    assert made[1] == Secret("env", None, "all")
    assert made[2].to_volume_secret()[0].secret.items[0].path == "p"
    assert made[3] is given


def test_secrets_of_two_levels_are_appended_whatever_they_are() -> None:
    from airflow.providers.cncf.kubernetes.secret import Secret

    table, given = {"type": "env", "secret": "all"}, Secret("env", "B", "s", "b")

    assert merged_options({"secrets": [table]}, {"secrets": [given]})["secrets"] == [table, given]


def test_environment_variables_of_scalars_and_of_fields() -> None:
    assert operator_options({"env_vars": {"N": 1, "B": True, "S": "s"}})["env_vars"] == {
        "N": "1",
        "B": "true",
        "S": "s",
    }
    node = {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    made = operator_options({"env_vars": {"N": 1, "NODE": node}})["env_vars"]
    assert plain(made) == [{"name": "N", "value": "1"}, {"name": "NODE", **node}]


@pytest.mark.parametrize(
    ("gpu", "limits"),
    [
        pytest.param(1, {"cpu": "2", "nvidia.com/gpu": "1"}, id="number"),
        pytest.param({"amd.com/gpu": 2}, {"cpu": "2", "amd.com/gpu": "2"}, id="table"),
        pytest.param(0, {"cpu": "2"}, id="none"),
    ],
)
def test_gpus_join_the_limits(gpu: Any, limits: dict[str, str]) -> None:
    resources = k8s.V1ResourceRequirements(limits={"cpu": "2"}, requests={"cpu": "1"})

    made = with_gpu(resources, gpu)

    assert (made.limits, made.requests) == (limits, {"cpu": "1"})


def test_gpus_asked_for_twice_must_agree() -> None:
    resources = k8s.V1ResourceRequirements(limits={"nvidia.com/gpu": "2"})

    with pytest.raises(ConfigurationError, match="gpu asks for 1 of nvidia"):
        with_gpu(resources, 1)
    with pytest.raises(ConfigurationError, match="expected a number of devices"):
        with_gpu(None, "one")  # type: ignore[arg-type]


def test_pod_overrides_of_every_level_are_kept_in_order() -> None:
    real = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", image="b")]))
    merged = merged_options(
        {"pod_override": {"spec": {"containers": [{"image": "a"}], "nodeSelector": {"k": "v"}}}},
        {"pod_override": real},
        {"pod_override": {"metadata": {"labels": {"team": "ml"}}}},
    )

    first, second, third = pod_overrides(merged["pod_override"], "base")

    assert (first.spec.containers[0].name, first.spec.containers[0].image) == ("base", "a")
    assert first.spec.node_selector == {"k": "v"}
    assert second is real
    assert third.metadata.labels == {"team": "ml"}


def test_a_pod_template_of_tables_gets_the_keys_of_yaml() -> None:
    made = operator_options(
        {"pod_template_dict": {"spec": {"host_network": True, "containers": []}}}
    )

    assert made["pod_template_dict"]["spec"]["hostNetwork"] is True


def test_retries_by_reason_know_their_reasons() -> None:
    assert checked_retries({"oom": 2, "evicted": 5}) == {
        "image_pull": 0,
        "invalid_config": 0,
        "oom": 2,
        "evicted": 5,
    }
    with pytest.raises(ConfigurationError, match=r"unknown reason 'omm'; did you mean 'oom'\?"):
        checked_retries({"omm": 1})
    with pytest.raises(ConfigurationError, match="expected a number of retries"):
        checked_retries({"oom": -1})


def pod(phase: str = "Failed", **status: Any) -> k8s.V1Pod:
    limits = k8s.V1ResourceRequirements(limits={"memory": "64Mi"})
    return k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="p", namespace="n"),
        spec=k8s.V1PodSpec(
            containers=[k8s.V1Container(name="base", image="i", resources=limits)],
            active_deadline_seconds=5,
        ),
        status=k8s.V1PodStatus(phase=phase, **status),
    )


def container(name: str = "base", **state: Any) -> list[k8s.V1ContainerStatus]:
    kinds = {
        "waiting": k8s.V1ContainerStateWaiting,
        "terminated": k8s.V1ContainerStateTerminated,
        "running": k8s.V1ContainerStateRunning,
    }
    made = k8s.V1ContainerState(**{k: kinds[k](**v) for k, v in state.items()})
    return [
        k8s.V1ContainerStatus(
            name=name, image="i", image_id="", ready=False, restart_count=0, state=made
        )
    ]


def ended(code: int, **more: Any) -> list[k8s.V1ContainerStatus]:
    return container(terminated={"exit_code": code, **more})


def condition(type_: str, status: str, **more: Any) -> list[k8s.V1PodCondition]:
    return [k8s.V1PodCondition(type=type_, status=status, **more)]


def event(reason: str, message: str, type_: str = "Warning") -> Any:
    return SimpleNamespace(reason=reason, message=message, type=type_)


SCHEDULED = condition("PodScheduled", "True")

# The statuses of clusters newer, or with more nodes, than the one of the service tests.
LOOKS: list[Any] = [
    pytest.param(
        LastLook(
            pod=pod(
                container_statuses=ended(
                    128,
                    reason="StartError",
                    message='exec: "python3": executable file not found in $PATH',
                )
            )
        ),
        "invalid_config",
        "Use an image with Python 3.10",
        id="containerd-start-error",
    ),
    pytest.param(
        LastLook(
            pod=pod(
                "Running",
                conditions=condition(
                    "DisruptionTarget",
                    "True",
                    reason="PreemptionByScheduler",
                    message="higher priority",
                ),
                container_statuses=ended(143),
            ),
            gone=True,
        ),
        "evicted",
        "PreemptionByScheduler: higher priority",
        id="disruption-target",
    ),
    pytest.param(
        LastLook(pod=pod("Failed", reason="NodeLost", message="Node x unresponsive")),
        "lost",
        "the pod's node is lost",
        id="node-lost",
    ),
    pytest.param(
        LastLook(
            pod=None, gone=True, events=[event("TaintManagerEviction", "Marking for deletion")]
        ),
        "evicted",
        "TaintManagerEviction",
        id="gone-by-eviction",
    ),
    pytest.param(LastLook(pod=None, gone=True), "lost", "the pod was deleted", id="gone"),
    pytest.param(
        LastLook(
            pod=pod("Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu")
        ),
        "unschedulable",
        "the node refused the pod",
        id="admission",
    ),
    pytest.param(
        LastLook(pod=pod("Failed", reason="Shutdown", message="Node is shutting down")),
        "evicted",
        "Shutdown: Node is shutting down",
        id="node-shutdown",
    ),
    pytest.param(
        LastLook(pod=pod(container_statuses=ended(137, reason="Error"))),
        "exit_code",
        "exit code 137 (somebody killed it, SIGKILL",
        id="killed",
    ),
    pytest.param(
        LastLook(
            pod=pod(
                "Pending",
                conditions=SCHEDULED,
                container_statuses=container(waiting={"reason": "ContainerCreating"}),
            ),
            events=[
                event("Pulling", "Pulling image", "Normal"),
                event("FailedAttachVolume", "disk busy"),
            ],
        ),
        "startup",
        "did not start in time (FailedAttachVolume: disk busy)",
        id="startup",
    ),
    pytest.param(
        LastLook(
            pod=pod(
                init_container_statuses=container(
                    "init", terminated={"exit_code": 2, "message": "no\n"}
                )
            )
        ),
        "exit_code",
        "container init ended with exit code 2; its last lines:\nno",
        id="init-container",
    ),
    pytest.param(
        LastLook(pod=pod("Succeeded", container_statuses=ended(0))),
        "no_result",
        "left no manifest",
        id="no-result",
    ),
    pytest.param(
        LastLook(pod=pod(reason="DeadlineExceeded", container_statuses=ended(137, reason="Error"))),
        "deadline",
        "active_deadline_seconds=5",
        id="deadline",
    ),
]


@pytest.mark.parametrize(("look", "name", "says"), LOOKS)
def test_how_a_pod_ended_is_told_apart(look: LastLook, name: str, says: str) -> None:
    reason = reason_of_pod(look)

    assert reason is not None
    assert reason.name == name
    assert says in reason.text


def test_a_running_pod_tells_nothing() -> None:
    assert (
        reason_of_pod(LastLook(pod=pod("Running", container_statuses=container(running={}))))
        is None
    )


def test_a_quota_may_be_free_on_the_next_try() -> None:
    from kubernetes.client.exceptions import ApiException

    error = ApiException(status=403, reason="Forbidden")
    error.body = '{"message": "exceeded quota: compute"}'

    reason = reason_of_error(error)

    assert reason.name == "refused"
    assert "exceeded quota: compute" in reason.text


SOURCE = """
from airflow_provider_dbnd import pipeline, task
from kubernetes.client import models as k8s

@task(engine="pods", kubernetes=OPTIONS)
def work(n: int = 1) -> int:
    return n

@task
def numbers() -> list[int]:
    return [1, 2]

@pipeline
def in_pods():
    work()
    work.override(task_id="each").expand(n=numbers())

dag = in_pods.as_dag()
"""

ENGINE = """
[engines.pods]
type = "kubernetes"
image = "i"
env_vars = { A = "1" }
gpu = 1
volumes = [{ name = "d", hostPath = { path = "/d" } }]
secrets = [{ type = "env", secret = "all" }]
pod_override = { spec = { containers = [{ imagePullPolicy = "Never" }] } }
"""


@pytest.fixture
def parsed(parse_dag: Any, configure: Any) -> Callable[..., Any]:
    def parse(options: str = "{}", engine: str = ENGINE) -> Any:
        configure(engine)
        return parse_dag(SOURCE.replace("OPTIONS", options))

    return parse


def test_options_of_file_and_code_are_merged_in_the_operator(parsed: Any) -> None:
    task = parsed(
        "dict(env_vars={'B': '2'}, volumes=[k8s.V1Volume(name='e')],"
        " pod_override=k8s.V1Pod(spec=k8s.V1PodSpec(containers=[], node_selector={'k': 'v'})))"
    ).get_task("work")

    # The provider of Airflow 3.1 makes objects of them at once.
    variables = task.env_vars
    if isinstance(variables, list):
        variables = {each.name: each.value for each in variables}
    assert variables == {"A": "1", "B": "2"}
    assert [volume.name for volume in task.volumes] == ["d", "e"]
    assert task.container_resources.limits == {"nvidia.com/gpu": "1"}
    assert len(task.pod_override) == 2
    assert task.do_xcom_push is True


def test_the_serialized_dag_is_the_same_at_every_parse(parsed: Any) -> None:
    from airflow.serialization import serialized_objects

    # Airflow 3.1 calls it SerializedDAG.
    serialization = getattr(serialized_objects, "DagSerialization", None)
    serialization = serialization or serialized_objects.SerializedDAG

    first, second = (
        repr(serialization.to_dict(parsed("dict(volumes=[k8s.V1Volume(name='e')])"))).replace(
            "\\\\", ""
        )
        for _ in range(2)
    )
    # Only the file's own name differs, which parse_dag makes up.
    import re

    assert re.sub(r"dag_\d+_\d+", "", first) == re.sub(r"dag_\d+_\d+", "", second)
    assert "bootstrap" not in first


def test_an_unknown_option_names_the_closest(parsed: Any) -> None:
    with pytest.raises(AssertionError, match=r"unknown option 'imagee'; did you mean 'image'\?"):
        parsed("dict(imagee='x')")


def test_arguments_of_the_container_are_the_engines(parsed: Any) -> None:
    with pytest.raises(AssertionError, match="the engine gives the container its arguments"):
        parsed("dict(arguments=['x'])")


@pytest.mark.parametrize(
    ("retries", "most", "number", "used"),
    [
        pytest.param(3, 3, 1, 0, id="first-try"),
        pytest.param(3, 3, 3, 2, id="third-try"),
        pytest.param(3, 7, 5, 0, id="cleared-after-four-tries"),
        pytest.param(3, 7, 6, 1, id="second-try-since-it-was-cleared"),
        pytest.param(0, None, 2, 1, id="without-airflow"),
    ],
)
def test_retries_count_from_the_last_time_the_task_was_cleared(
    parsed: Any, retries: int, most: int | None, number: int, used: int
) -> None:
    from airflow.providers.common.compat.sdk import AirflowFailException

    from airflow_provider_dbnd.engines.kubernetes.reasons import Reason

    task = parsed("dict(retries_by_reason={'evicted': 1})").get_task("work")
    task.retries = retries
    known = {} if most is None else {"max_tries": most}
    task._task_instance = SimpleNamespace(try_number=number, **known)
    task._reason = Reason(name="evicted", text="it was evicted")

    error = task._error("it was evicted", "Run it again.")

    assert isinstance(error, AirflowFailException) is (used >= 1)
    assert ("retries_by_reason.evicted is 1" in str(error)) is (used >= 1)


def test_a_reason_without_a_rule_has_the_tasks_retries(parsed: Any) -> None:
    from airflow.providers.common.compat.sdk import AirflowFailException

    from airflow_provider_dbnd.engines.kubernetes.reasons import Reason

    task = parsed().get_task("work")
    task._task_instance = SimpleNamespace(try_number=9, max_tries=9)
    task._reason = Reason(name="lost", text="")

    assert not isinstance(task._error("", ""), AirflowFailException)


def test_the_program_is_in_neither_the_rendered_fields_nor_the_mapped_task(parsed: Any) -> None:
    dag = parsed()

    for task_id in ("work", "each"):
        assert "arguments" not in dag.get_task(task_id).template_fields


def test_the_program_stays_as_it_is_and_the_job_is_told_the_name_of_its_pod() -> None:
    from airflow_provider_dbnd.engines.kubernetes.operator import _Completion

    task: Any = SimpleNamespace(
        pod_override=[],
        _job="a job",
        program=lambda job: ["python3", "-c", "$(HOME) $x", "s3://b/k"],
    )
    made = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base")]))
    entry = k8s.V1Container(name="base", command=["tini", "--"])

    (container,) = _Completion(task).attach_to_pod(made).spec.containers
    (started,) = (
        _Completion(task)
        .attach_to_pod(k8s.V1Pod(spec=k8s.V1PodSpec(containers=[entry])))
        .spec.containers
    )

    assert (container.command, container.args) == (
        ["python3"],
        ["-c", "$$(HOME) $$x", "s3://b/k"],
    )
    assert (started.command, started.args[0]) == (["tini", "--"], "python3")
    (variable,) = container.env
    assert (variable.name, variable.value_from.field_ref.field_path) == (
        "DBND_JOB",
        "metadata.name",
    )
