"""Why a pod left no result, told from its last status, its events, or the operator's error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_dbnd.core.remote.bootstrap import NOT_STARTED
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ConfigurationError, DbndError

#: The reasons that ``retries_by_reason`` may name.
REASONS = (
    "deadline",
    "evicted",
    "exit_code",
    "failed",
    "image_pull",
    "invalid_config",
    "lost",
    "no_result",
    "not_started",
    "oom",
    "refused",
    "startup",
    "unreachable",
    "unschedulable",
)

#: Retries of reasons that another try would meet again. The others have the task's retries.
RETRIES: Mapping[str, int] = {"image_pull": 0, "invalid_config": 0, "oom": 0}

_IMAGE = {
    "ErrImagePull",
    "ErrImageNeverPull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_PROGRAM = {"ContainerCannotRun", "StartError"}
_EVICTED = {"Evicted", "NodeShutdown", "Preempting", "Shutdown", "Terminated"}
_EVICTIONS = {"Evicted", "NodeShutdown", "Preempted", "TaintManagerEviction"}
_SIGNALS = {
    134: "it aborted, SIGABRT",
    137: "somebody killed it, SIGKILL; the kernel does when memory is short",
    139: "it crashed, SIGSEGV",
    143: "somebody stopped it, SIGTERM",
}
_NOT_FOUND = re.compile(r"(secret|configmap|persistentvolumeclaim) \"[^\"]+\" not found", re.I)
_LINES = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One of :data:`REASONS`, and what to tell: what happened and the remedy."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LastLook:
    """A pod as it was last seen, with its events, the oldest first.

    :param pod: None where it was gone before anybody looked.
    :param gone: whether it is not there any more, or on its way out.
    """

    pod: Any
    gone: bool = False
    events: Sequence[Any] = ()


def checked_retries(given: Mapping[str, int] | None) -> dict[str, int]:
    """Return how many of the task's retries each reason may use, for the reasons that have a rule."""
    for name, count in (given or {}).items():
        if name not in REASONS:
            raise ConfigurationError(
                f"retries_by_reason: unknown reason {name!r}{did_you_mean(name, REASONS)}"
            )
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ConfigurationError(
                f"retries_by_reason.{name}: expected a number of retries, got {count!r}."
            )
    return {**RETRIES, **(given or {})}


def reason_of_pod(look: LastLook) -> Reason | None:
    """Return why the pod left no result, or None where the pod itself tells nothing."""
    if look.pod is None:
        return _lost(look) if look.gone else None
    return (
        _of_status(look.pod)
        or _of_containers(look.pod)
        or (_lost(look) if look.gone else None)
        or _of_start(look)
        or _of_exit(look.pod)
    )


def reason_of_error(error: BaseException | None) -> Reason:
    """Return what an error of the operator, or of the client it uses, says."""
    from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import KubernetesApiException
    from airflow.providers.common.compat.sdk import AirflowNotFoundException
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    if error is None:
        return Reason(name="failed", text="the pod left no result")
    if isinstance(error, DbndError):
        wrong = isinstance(error, ConfigurationError)
        return Reason(name="invalid_config" if wrong else "failed", text=str(error))
    if isinstance(error, ApiException):
        return _refused(error)
    if isinstance(error, (HTTPError, KubernetesApiException)):
        return Reason(
            name="unreachable",
            text=f"the Kubernetes API does not answer: {error}. Check kubernetes_conn_id or "
            "config_file, and the network between the worker and the cluster",
        )
    if isinstance(error, (AirflowNotFoundException, ConfigException)):
        return Reason(
            name="invalid_config",
            text=f"no way to the cluster: {error}. Set kubernetes_conn_id, config_file or in_cluster",
        )
    return Reason(name="failed", text=f"{type(error).__name__}: {error}")


def _refused(error: Any) -> Reason:
    try:
        message = json.loads(error.body)["message"]
    except (ValueError, KeyError, TypeError):
        message = error.body or error.reason
    wrong = error.status in (400, 413, 422)
    remedy = (
        "Correct the engine's options"
        if wrong
        else "Check namespace, quotas, and what the worker's service account may do there"
    )
    return Reason(
        name="invalid_config" if wrong else "refused",
        text=f"the Kubernetes API refuses the pod ({error.status} {error.reason}): {message}. "
        f"{remedy}",
    )


def _of_status(pod: Any) -> Reason | None:
    status = pod.status
    said = ": ".join(each for each in (status.reason, status.message) if each)
    if status.reason == "DeadlineExceeded":
        return Reason(
            name="deadline",
            text=f"the pod ran longer than active_deadline_seconds={pod.spec.active_deadline_seconds} "
            "and was stopped. Raise it",
        )
    disrupted = next((c for c in status.conditions or () if c.type == "DisruptionTarget"), None)
    if disrupted is not None and disrupted.status == "True":
        said = f"{disrupted.reason}: {disrupted.message}"
    if status.reason in _EVICTED or (disrupted is not None and disrupted.status == "True"):
        return _evicted(said)
    if status.reason == "NodeLost":
        return Reason(name="lost", text=f"the pod's node is lost ({said}). Run the task again")
    if status.phase == "Failed" and status.reason and not status.container_statuses:
        return Reason(
            name="unschedulable",
            text=f"the node refused the pod ({said}). Check container_resources and node_selector",
        )
    return None


def _evicted(said: str) -> Reason:
    return Reason(
        name="evicted",
        text=f"the pod was evicted ({said}). Request what the task needs in container_resources "
        "(memory, ephemeral-storage), or give it a priority_class_name",
    )


def _lost(look: LastLook) -> Reason:
    for event in look.events:
        if event.reason in _EVICTIONS:
            return _evicted(f"{event.reason}: {event.message}")
    return Reason(
        name="lost",
        text="the pod was deleted before it left a result, by somebody or with its node. "
        "Run the task again",
    )


def _of_containers(pod: Any) -> Reason | None:
    """Return what a container says that could not start, or that was out of memory."""
    for status in _statuses(pod):
        waiting, ended = status.state.waiting, status.state.terminated
        if waiting is not None and waiting.reason in _IMAGE:
            return Reason(
                name="image_pull",
                text=f"image {status.image!r} cannot be pulled: {waiting.reason}: {waiting.message}. "
                "Check its name and tag, image_pull_policy, and image_pull_secrets",
            )
        if waiting is not None and waiting.reason in _CONFIG:
            return _invalid(f"container {status.name} cannot be made: {waiting.message}")
        if ended is not None and ended.reason == "OOMKilled":
            return Reason(
                name="oom",
                text=f"container {status.name} was killed for want of memory "
                f"({_memory(pod, status.name)}). Raise the memory limit in container_resources",
            )
        if ended is not None and ended.reason in _PROGRAM:
            return _invalid(f"container {status.name} cannot run its program: {ended.message}")
    return None


def _invalid(what: str) -> Reason:
    remedy = "Correct the engine's options, or create what is missing"
    if "executable file not found" in what or "no such file or directory" in what:
        remedy = "Use an image with Python 3.10 or newer, or name its Python by the engine's option python"
    return Reason(name="invalid_config", text=f"{what.rstrip('.')}. {remedy}")


def _of_start(look: LastLook) -> Reason | None:
    """Return why a pod is pending."""
    pod = look.pod
    if pod.status.phase != "Pending":
        return None
    scheduled = next((c for c in pod.status.conditions or () if c.type == "PodScheduled"), None)
    if scheduled is None or scheduled.status != "True":
        said = f": {scheduled.message}" if scheduled is not None and scheduled.message else ""
        return Reason(
            name="unschedulable",
            text=f"no node took the pod in time{said}. Check node_selector, tolerations, affinity "
            "and container_resources, or raise schedule_timeout_seconds",
        )
    warnings = [f"{e.reason}: {e.message}" for e in look.events if e.type == "Warning"]
    for warning in warnings:
        if _NOT_FOUND.search(warning):
            return _invalid(f"the pod cannot start: {warning}")
    said = f" ({warnings[-1]})" if warnings else ""
    return Reason(
        name="startup",
        text=f"the pod did not start in time{said}. Raise startup_timeout_seconds if its image is large",
    )


def _of_exit(pod: Any) -> Reason | None:
    for status in _statuses(pod):
        ended = status.state.terminated
        if ended is None or ended.exit_code == 0:
            continue
        code = ended.exit_code
        last = "\n".join((ended.message or "").strip().splitlines()[-_LINES:])
        said = f"; its last lines:\n{last}" if last else "; see its log above"
        if code == NOT_STARTED:
            text = f"the task could not start in container {status.name} (exit code {code}){said}"
            return Reason(name="not_started", text=text)
        meaning = f" ({_SIGNALS[code]})" if code in _SIGNALS else ""
        return Reason(
            name="exit_code",
            text=f"container {status.name} ended with exit code {code}{meaning}{said}",
        )
    if pod.status.phase == "Succeeded":
        return Reason(
            name="no_result",
            text="the container ended well and left no manifest in the store. Check that the pod "
            "reaches the same store as the worker, and that nothing else runs instead of the task",
        )
    return None


def _statuses(pod: Any) -> Iterator[Any]:
    """Yield the statuses of the containers, those of init containers first."""
    for status in (
        *(pod.status.init_container_statuses or ()),
        *(pod.status.container_statuses or ()),
    ):
        if status.state is not None:
            yield status


def _memory(pod: Any, container: str) -> str:
    specs = (*(pod.spec.init_containers or ()), *pod.spec.containers)
    found = next((spec for spec in specs if spec.name == container), None)
    limits = found.resources.limits if found is not None and found.resources else None
    limit = (limits or {}).get("memory")
    return f"its limit is {limit}" if limit else "it has no memory limit of its own"
