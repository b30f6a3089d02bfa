"""Tasks as steps of an Amazon EMR cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.amazon.aws.triggers.emr import EmrAddStepsTrigger
from airflow.providers.amazon.aws.utils.waiter_with_logging import wait

from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.aws import LONG, is_unknown, own_connection
from airflow_provider_dbnd.engines.cloud import CloudSparkTask, Ending, State
from airflow_provider_dbnd.engines.remote import RemoteTask
from airflow_provider_dbnd.exceptions import ConfigurationError

_ENDINGS: Mapping[str, Ending] = {
    "PENDING": "running",
    "CANCEL_PENDING": "cancelled",
    "RUNNING": "running",
    "COMPLETED": "succeeded",
    "CANCELLED": "cancelled",
    "FAILED": "failed",
    "INTERRUPTED": "failed",
}


class EmrStepTrigger(EmrAddStepsTrigger):
    """Waits for a step, and cancels it when somebody kills the deferred task."""

    async def on_kill(self) -> None:
        """Cancel the step."""
        from asgiref.sync import sync_to_async

        # Making a client reads the connection and botocore's data, which the event loop must not wait for.
        await sync_to_async(self._cancel_step)()

    def _cancel_step(self) -> None:
        given = self.serialized_fields
        _cancel(self.hook().conn, given["job_flow_id"], *given["step_ids"])


class EmrTask(CloudSparkTask, EmrAddStepsOperator):
    """A task that an EMR cluster runs by spark-submit, as a step.

    :param deploy_mode: ``client`` runs the function on the primary node, ``cluster`` on another;
        the cluster's own setting by default. With ``cluster`` the function has to use Spark.
    :param action_on_failure: what becomes of the cluster and of the steps that wait.
    """

    service = "EMR"
    schemes: ClassVar[Mapping[str, str]] = {"s3": "s3"}
    ours = ("steps", "wait_for_completion")
    required = (("job_flow_id", "job_flow_name"),)
    defaults: ClassVar[Mapping[str, Any]] = LONG
    template_fields: Sequence[str] = (
        *EmrAddStepsOperator.template_fields,
        *CloudSparkTask.template_fields,
    )
    template_fields_renderers = {
        **EmrAddStepsOperator.template_fields_renderers,
        **RemoteTask.template_fields_renderers,
    }

    def __init__(
        self,
        *,
        deploy_mode: str | None = None,
        action_on_failure: str = "CONTINUE",
        **kwargs: Any,
    ) -> None:
        self.deploy_mode = deploy_mode
        self.action_on_failure = action_on_failure
        super().__init__(**kwargs)

    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Describe the step."""
        mode = ["--deploy-mode", self.deploy_mode] if self.deploy_mode else []
        program = [self.program_url(store), *job.arguments()]
        self.steps = [
            {
                "Name": self._step_name(job),
                "ActionOnFailure": self.action_on_failure,
                "HadoopJarStep": {
                    "Jar": "command-runner.jar",
                    "Args": ["spark-submit", *mode, *self.spark_arguments(), *program],
                },
            }
        ]

    def submit(self, context: Any) -> None:
        """Add the step, unless an earlier try did before it died, and wait for its end."""
        self.job_flow_id = self._cluster()
        step = self._added_before() or self._add(context)
        self.started(step)
        self.follow(step, context)

    def _add(self, context: Any) -> str:
        deferrable, self.deferrable = self.deferrable, False
        (step,) = EmrAddStepsOperator.execute(self, context)
        self.deferrable = deferrable
        return str(step)

    def _added_before(self) -> str | None:
        """Return the step of this submission that a worker added, and could not record."""
        if not self._sent_before or self._job is None:
            return None
        # EMR takes no token that would make a repeated submission the same one.
        pages = self.hook.conn.get_paginator("list_steps").paginate(ClusterId=self._cluster())
        for step in (step for page in pages for step in page["Steps"]):
            if step["Name"] == self._step_name(self._job):
                self.log.info("step %s was added by an earlier try", step["Id"])
                return str(step["Id"])
        return None

    def _step_name(self, job: Job) -> str:
        return f"{self.job_title()} {self.token(job)[:12]}"

    def follow(self, job: str, context: Any) -> None:  # noqa: ARG002 - as any engine
        """Wait for the end of a step."""
        cluster = self._cluster()
        if self.deferrable:
            trigger = EmrStepTrigger(
                job_flow_id=cluster,
                step_ids=[job],
                waiter_delay=self.waiter_delay,
                waiter_max_attempts=self.waiter_max_attempts,
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
                verify=self.verify,
                botocore_config=self.botocore_config,
            )
            self.defer(trigger=trigger, method_name="execute_complete")
        wait(
            waiter=self.hook.conn.get_waiter("step_complete"),
            waiter_delay=self.waiter_delay,
            waiter_max_attempts=self.waiter_max_attempts,
            args={"ClusterId": cluster, "StepId": job},
            failure_message=f"EMR step {job} failed",
            status_message=f"EMR step {job} is",
            status_args=["Step.Status.State", "Step.Status.StateChangeReason"],
        )

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:
        """Take the result of a step that has ended."""
        return self.resumed(
            context, lambda: EmrAddStepsOperator.execute_complete(self, context, event)
        )

    def state(self, job: str) -> State:
        """Ask EMR for a step."""
        cluster = self._cluster()
        try:
            step = self.hook.conn.describe_step(ClusterId=cluster, StepId=job)["Step"]
        except Exception as exc:
            if is_unknown(exc):
                return State(ending="lost")
            raise
        status = step["Status"]
        failure, change = status.get("FailureDetails", {}), status.get("StateChangeReason", {})
        told = (failure.get("Reason"), failure.get("Message"), change.get("Message"))
        return State(
            ending=_ENDINGS.get(status["State"], "running"),
            detail=": ".join(filter(None, (status["State"], *told))) + f" on cluster {cluster}",
            log=failure.get("LogFile", ""),
        )

    def connection_id(self) -> str | None:
        """Return the connection that was named; without one, credentials are ambient."""
        return own_connection(self.aws_conn_id)

    def on_kill(self) -> None:
        """Cancel the step."""
        if self.running_job is not None:
            _cancel(self.hook.conn, self._cluster(), self.running_job)
        super().on_kill()

    def _cluster(self) -> str:
        if self.job_flow_id is None:
            self.job_flow_id = self.hook.get_cluster_id_by_name(
                str(self.job_flow_name), self.cluster_states
            )
        if self.job_flow_id is None:
            states = f" in one of the states {self.cluster_states}" if self.cluster_states else ""
            raise ConfigurationError(
                f"there is no cluster {self.job_flow_name!r}{states}. Start one, or name another by "
                "job_flow_name or job_flow_id"
            )
        return str(self.job_flow_id)


def _cancel(client: Any, cluster: str, step: str) -> None:
    client.cancel_steps(
        ClusterId=cluster, StepIds=[step], StepCancellationOption="TERMINATE_PROCESS"
    )
