"""The operator: KubernetesPodOperator with a job of ours in the pod's first container."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from airflow.providers.cncf.kubernetes.k8s_model import K8SModel
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import create_unique_id
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator, make_safe_label_value
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.remote.job import JOB_VARIABLE, Job
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.kubernetes import pods
from airflow_provider_dbnd.engines.kubernetes.options import (
    operator_options,
    pod_overrides,
    with_gpu,
)
from airflow_provider_dbnd.engines.kubernetes.reasons import (
    LastLook,
    Reason,
    checked_retries,
    reason_of_error,
    reason_of_pod,
)
from airflow_provider_dbnd.engines.remote import RemoteTask, local_folder
from airflow_provider_dbnd.exceptions import ConfigurationError, EngineError

#: Labels of a pod: which task it belongs to, which spec it runs, on which engine.
TASK_LABEL, SPEC_LABEL, ENGINE_LABEL = "dbnd/task", "dbnd/spec", "dbnd/engine"

#: How long a pod that was deleted may take beyond its grace period, and Kubernetes' own, in seconds.
_DELETION = 30
_GRACE = 30


class NotRetriedError(EngineError, AirflowFailException):
    """An engine could not run a task, and is not to try again."""


class KubernetesTask(RemoteTask, KubernetesPodOperator):
    """A task in a pod of an image with Python and the data libraries.

    Options are KubernetesPodOperator's own; where it wants kubernetes models, tables will do.

    :param cmds: what to start the task's Python with, as an image's own entrypoint.
    :param gpu: devices to ask for: a number of ``nvidia.com/gpu``, or ``{"amd.com/gpu": 1}``.
    :param pod_override: pods, or tables of them, laid over the pod that the other options make, one
        after the other as KubernetesExecutor does with its ``pod_override``.
    :param retries_by_reason: how many of the task's retries a reason of failure may use, as
        ``{"oom": 1, "evicted": 5}``. A wrong configuration, an image that cannot be pulled and want
        of memory have none unless they are named; others have the task's retries.
    """

    # The program is long, and the same for every task: the UI need not show it.
    template_fields: Sequence[str] = (
        *(name for name in KubernetesPodOperator.template_fields if name != "arguments"),
        *RemoteTask.template_fields,
    )
    template_fields_renderers = {
        **KubernetesPodOperator.template_fields_renderers,
        **RemoteTask.template_fields_renderers,
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        # Of the result that execute() returns; there is no sidecar.
        "do_xcom_push": True,
        "log_pod_spec_on_failure": False,
        "startup_check_interval_seconds": 2,
        "termination_message_policy": "FallbackToLogsOnError",
    }

    _store: ArtifactStore | None = None
    _task_instance: Any = None
    _operates = False
    _look: LastLook | None = None
    _reason: Reason | None = None
    _name_of_pod: tuple[str, str] | None = None

    def __init__(
        self,
        *,
        arguments: Any = None,
        gpu: int | Mapping[str, Any] | None = None,
        pod_override: Any = None,
        retries_by_reason: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        if arguments is not None:
            raise ConfigurationError(
                "arguments: the engine gives the container its arguments. To start the task by a "
                "program of the image, set cmds."
            )
        options = operator_options(kwargs)
        options["container_resources"] = with_gpu(options.get("container_resources"), gpu)
        self.retries_by_reason = checked_retries(retries_by_reason)
        super().__init__(**options)
        self.gpu = gpu
        self.pod_override = pod_overrides(pod_override, self.base_container_name)

    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Mark the pod as the one that runs this job."""
        assert self._sent is not None
        self._store = store
        self.labels = {
            **self.labels,
            ENGINE_LABEL: make_safe_label_value(self.binding.engine.name),
            TASK_LABEL: _task_label(self._sent),
            SPEC_LABEL: _spec_label(job),
        }
        self.annotations = {**self.annotations, SPEC_LABEL: job.spec}

    def launch(self, context: Any) -> None:
        """Run the pod, or defer until it ended; a pod that runs this job already is followed."""
        ti = context["ti"]
        if self.name is None:
            self.name = create_unique_id(dag_id=ti.dag_id, task_id=ti.task_id, unique=False)
        self._locate_files()
        with self._operating(context):
            KubernetesPodOperator.execute(self, context)

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> Any:
        """Take up a deferred task: its pod ended, or its logs are due."""

        def resume() -> None:
            self._name_of_pod = event["namespace"], event["name"]
            self._locate_files()
            with self._operating(context):
                KubernetesPodOperator.trigger_reentry(self, context, event)

        # A pod that ended before the task could defer is looked after at once, within launch().
        return resume() if self._operates else self.resumed(context, resume)

    def external_id(self) -> str:
        """Return the pod's namespace and name."""
        found = self._pod_name()
        return "/".join(found) if found else "not started"

    def explain(self, error: BaseException | None) -> str:
        """Tell why the pod left no result."""
        look = self._last_look()
        found = reason_of_pod(look) if look is not None else None
        self._reason = found or reason_of_error(error)
        return self._reason.text

    def follows(self, job: Job) -> bool:  # noqa: ARG002 - any
        """Tell that a job is taken up: its pod is found by its labels."""
        return True

    def may_go_on(self) -> bool:
        """Tell whether the pod may run still: it was made, and now the cluster does not answer."""
        return self._pod_name() is not None and self._last_look() is None

    def tidy(self) -> None:
        """Delete the pod whose result was taken without it, unless pods are kept."""
        if self.running_job is None:
            return
        namespace, _, name = self.running_job.partition("/")
        try:
            self._locate_files()
            self._put_away(pods.find(self.client, namespace, name))
        except Exception as exc:  # noqa: BLE001 - the result is there, and counts more
            self.log.warning("pod %s is left over: %s", self.running_job, exc)

    def on_kill(self) -> None:
        """Delete the pod, also where it is only just being made."""
        if self.pod is None:
            self.pod = self.pod_request_obj
        super().on_kill()

    def build_pod_request_obj(self, context: Any = None, **kwargs: Any) -> Any:
        """Return the pod: the options, ``pod_override`` over them, the job, then Airflow's own."""
        given = self.secrets
        # Models are attached before Airflow's pod_mutation_hook, which has the last word.
        self.secrets = [*given, _Completion(self)]  # type: ignore[list-item]
        try:
            pod = super().build_pod_request_obj(context, **kwargs)
        finally:
            self.secrets = given
        self._check_store(pod)
        return pod

    def get_or_create_pod(self, pod_request_obj: Any, context: Any) -> Any:
        """Return the pod of this job, after those of the same task that run another have stopped."""
        labels = self.labels
        self._clear(
            pod_request_obj.metadata.namespace,
            f"{TASK_LABEL}={labels[TASK_LABEL]},{SPEC_LABEL}!={labels[SPEC_LABEL]}",
        )
        pod = super().get_or_create_pod(pod_request_obj, context)
        self.started(f"{pod.metadata.namespace}/{pod.metadata.name}")
        return pod

    def _get_pod_from_task_state_store(self, context: Any) -> Any:
        pod = super()._get_pod_from_task_state_store(context)
        if pod is None or (pod.metadata.labels or {}).get(SPEC_LABEL) != self.labels[SPEC_LABEL]:
            return None
        return pod

    def cleanup(
        self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None
    ) -> None:
        """Note how the pod ended, before it is deleted."""
        if remote_pod is not None and remote_pod.status.phase != "Succeeded":
            self._look_at(remote_pod.metadata.namespace, remote_pod.metadata.name, remote_pod)
        super().cleanup(pod, remote_pod, xcom_result, context)

    @functools.cached_property
    def pod_manager(self) -> PodManager:
        """What reads, follows and deletes pods."""
        return pods.ConsistentPodManager(kube_client=self.client, callbacks=self.callbacks)

    @contextlib.contextmanager
    def _operating(self, context: Any) -> Iterator[None]:
        """Let KubernetesPodOperator work: what it would push is its sidecar's."""
        self._task_instance = context["ti"]
        pushes, self.do_xcom_push = self.do_xcom_push, False
        self._operates = True
        try:
            yield
        finally:
            self.do_xcom_push, self._operates = pushes, False

    def _locate_files(self) -> None:
        """Find the files that options name; relative paths start where dbnd.toml is."""
        for option in ("config_file", "pod_template_file"):
            if not getattr(self, option):
                continue
            path = os.path.expanduser(getattr(self, option))
            path = os.path.join(self.binding.dag.settings.base, path)
            if not os.path.isfile(path):
                raise ConfigurationError(f"{option}: there is no file {path}.")
            setattr(self, option, path)

    def _check_store(self, pod: Any) -> None:
        """Raise where the store is on a disk that the pod does not have."""
        folder = local_folder(self._store) if self._store is not None else None
        mounts = pod.spec.containers[0].volume_mounts or ()
        if folder is None or any(_within(folder, mount.mount_path) for mount in mounts):
            return
        raise ConfigurationError(
            f"store file://{folder} is on this machine's disk, which a pod does not see. Use "
            'a store both reach ("s3://..."), or mount the disk at that path: volumes (a hostPath or '
            f'a claim) and volume_mounts with mount_path = "{folder}".'
        )

    def _clear(self, namespace: str, selector: str) -> None:
        """Delete the pods that *selector* finds, and wait until none of them runs."""
        found = self.client.list_namespaced_pod(namespace=namespace, label_selector=selector).items
        running = [pod for pod in found if pod.status.phase not in pods.ENDED]
        for pod in found:
            if pod.status.phase in pods.ENDED:
                self._put_away(pod)
        for pod in running:
            self.log.warning(
                "pod %s runs another spec of this task: deleting it", pod.metadata.name
            )
            self.pod_manager.delete_pod(pod)
        seconds = (self.termination_grace_period or _GRACE) + _DELETION
        for pod in running:
            pods.await_stopped(self.client, namespace, pod.metadata.name, seconds=seconds)

    def _put_away(self, pod: Any) -> None:
        """Delete a pod that ended, or where pods are kept mark it as done with."""
        if pod is not None and not self.process_pod_deletion(pod, reraise=False):
            self.patch_already_checked(pod, reraise=False)

    def _pod_name(self) -> tuple[str, str] | None:
        if self.pod is None:
            return self._name_of_pod
        return self.pod.metadata.namespace, self.pod.metadata.name

    def _last_look(self) -> LastLook | None:
        name = self._pod_name()
        if self._look is None and name is not None:
            self._look_at(*name)
        return self._look

    def _look_at(self, namespace: str, name: str, known: Any = None) -> None:
        """Note how the pod is now; *known* is how it was."""
        try:
            self._look = pods.look_at(self.client, namespace, name, known)
        except pods.api_errors() as exc:
            self.log.warning("pod %s/%s cannot be read: %s", namespace, name, exc)

    def _error(self, reason: str, remedy: str) -> EngineError:
        """Make the error; one that Airflow does not retry, if this reason used up its retries."""
        error = super()._error(reason, remedy)
        name = self._reason.name if self._reason is not None else "not_started"
        allowed = self.retries_by_reason.get(name)
        if allowed is None or self._retries_used() < allowed:
            return error
        return NotRetriedError(f"{error} Not tried again: retries_by_reason.{name} is {allowed}.")

    def _retries_used(self) -> int:
        """Return how many retries this task had since it was first run, or last cleared."""
        ti = self._task_instance
        number = int(getattr(ti, "try_number", 1))
        most = getattr(ti, "max_tries", None)
        if most is None:
            return number - 1
        return max(0, int(self.retries or 0) - (int(most) - number + 1))


class _Completion(K8SModel):
    """What :class:`KubernetesTask` puts into a pod that its options have made."""

    def __init__(self, task: KubernetesTask) -> None:
        self._task = task

    def attach_to_pod(self, pod: Any) -> Any:
        from kubernetes.client import models

        for layer in self._task.pod_override:
            pod = PodGenerator.reconcile_pods(pod, layer)
        if self._task._job is None:
            return pod
        # Kubernetes expands $(NAME) in commands and arguments, and takes $$ for a dollar.
        program = [part.replace("$", "$$") for part in self._task.program(self._task._job)]
        container = pod.spec.containers[0]
        if container.command:
            container.args = program
        else:
            container.command, container.args = program[:1], program[1:]
        # The host's name is the node's where the pod shares its network.
        field = models.V1ObjectFieldSelector(field_path="metadata.name")
        source = models.V1EnvVarSource(field_ref=field)
        variable = models.V1EnvVar(name=JOB_VARIABLE, value_from=source)
        container.env = [*(container.env or []), variable]
        return pod


def _task_label(spec: TaskSpec) -> str:
    """Name a task of one run, whatever Airflow runs it: two may share a namespace, not a store."""
    one = spec.identity
    named = (spec.store.url, one.pipeline, one.run_id, one.task_id, str(one.map_index))
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:32]


def _spec_label(job: Job) -> str:
    return job.checksum[:32]


def _within(folder: str, mount: str) -> bool:
    return os.path.commonpath([folder, mount]) == mount.rstrip("/") or mount == "/"
