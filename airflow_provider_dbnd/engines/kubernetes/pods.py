"""Reading and deleting pods: what KubernetesPodOperator leaves to whoever uses it."""

from __future__ import annotations

import time
from typing import Any

from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager

from airflow_provider_dbnd.engines.kubernetes.reasons import LastLook
from airflow_provider_dbnd.exceptions import EngineError

ENDED = ("Succeeded", "Failed")


class ConsistentPodManager(PodManager):
    """A pod manager to which no container of a pod that ended is running.

    A kubelet may leave it so in the status (1.20, at the pod's deadline), and the operator would wait
    for that container for ever.
    """

    def read_pod(self, pod: Any) -> Any:
        """Return the pod as it is now."""
        from kubernetes.client import models

        found = super().read_pod(pod)
        if found.status.phase in ENDED:
            for each in found.status.container_statuses or ():
                if each.state is not None and each.state.running is not None:
                    each.state.running = None
                    each.state.terminated = models.V1ContainerStateTerminated(
                        exit_code=137, reason=found.status.reason
                    )
        return found


def find(client: Any, namespace: str, name: str) -> Any:
    """Return a pod, or None where there is none."""
    from kubernetes.client.exceptions import ApiException

    try:
        return client.read_namespaced_pod(name, namespace)
    except ApiException as exc:
        if exc.status == 404:
            return None
        raise


def look_at(client: Any, namespace: str, name: str, known: Any = None) -> LastLook:
    """Return how a pod is now, with its events where they tell more; *known* is how it was."""
    pod = find(client, namespace, name)
    leaving = pod is None or pod.metadata.deletion_timestamp is not None
    events: list[Any] = []
    if leaving or pod.status.phase == "Pending":
        events = client.list_namespaced_event(
            namespace=namespace, field_selector=f"involvedObject.name={name}"
        ).items
    return LastLook(pod=pod or known, gone=leaving, events=events)


def await_stopped(client: Any, namespace: str, name: str, *, seconds: float) -> None:
    """Wait until nothing of a pod that was deleted runs any more."""
    until = time.monotonic() + seconds
    while not _stopped(find(client, namespace, name)):
        if time.monotonic() > until:
            raise EngineError(
                f"pod {namespace}/{name}, of another try of this task, runs {seconds:.0f} s after it "
                "was deleted. If its node is gone, delete it by force: kubectl delete pod --force"
            )
        time.sleep(1)


def _stopped(pod: Any) -> bool:
    # The pod itself may stay for another minute, until its volumes are unmounted.
    if pod is None or pod.status.phase in ENDED:
        return True
    statuses = pod.status.container_statuses or ()
    return bool(statuses) and all(each.state.terminated is not None for each in statuses)


def api_errors() -> tuple[type[Exception], ...]:
    """Return what the client raises where the cluster does not answer, or refuses."""
    from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import KubernetesApiException
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    return ApiException, HTTPError, KubernetesApiException
