"""Tasks as job runs of an Amazon EMR Serverless application."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from airflow.providers.amazon.aws.operators.emr import EmrServerlessStartJobOperator
from airflow.providers.amazon.aws.triggers.emr import EmrServerlessStartJobTrigger
from airflow.providers.amazon.aws.utils.waiter_with_logging import wait

from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.aws import LONG, is_unknown, own_connection
from airflow_provider_dbnd.engines.cloud import CloudSparkTask, Ending, RecordsJobId, State
from airflow_provider_dbnd.engines.remote import RemoteTask

_ENDINGS: Mapping[str, Ending] = {
    "SUCCESS": "succeeded",
    "FAILED": "failed",
    "CANCELLING": "cancelled",
    "CANCELLED": "cancelled",
}


class EmrServerlessTask(RecordsJobId, CloudSparkTask, EmrServerlessStartJobOperator):
    """A task that an application of EMR Serverless runs."""

    service = "EMR Serverless"
    schemes: ClassVar[Mapping[str, str]] = {"s3": "s3"}
    ours = ("client_request_token", "wait_for_completion")
    required = (("application_id",), ("execution_role_arn",))
    defaults: ClassVar[Mapping[str, Any]] = {**LONG, "job_driver": {}}
    template_fields: Sequence[str] = (
        *EmrServerlessStartJobOperator.template_fields,
        *CloudSparkTask.template_fields,
    )
    template_fields_renderers = {
        **EmrServerlessStartJobOperator.template_fields_renderers,
        **RemoteTask.template_fields_renderers,
    }

    def execute(self, context: Any, event: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Run the function; *event* comes when the operator has waited for the application's start."""
        return super().execute(context)

    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Describe the job run."""
        given = self.job_driver.get("sparkSubmit", {})
        own = [given.get("sparkSubmitParameters", ""), shlex.join(self.spark_arguments())]
        driver = {
            **given,
            "entryPoint": self.program_url(store),
            "entryPointArguments": job.arguments(),
            "sparkSubmitParameters": " ".join(filter(None, own)),
        }
        self.job_driver = {"sparkSubmit": {n: value for n, value in driver.items() if value}}
        self.name = self.name or self.config.pop("name", self.job_title())
        self.client_request_token = self.token(job)

    def submit(self, context: Any) -> None:
        """Start the job run, and the application if it is stopped, and wait."""
        EmrServerlessStartJobOperator.execute(self, context)

    def follow(self, job: str, context: Any) -> None:
        """Wait for the end of a job run."""
        self.persist_links(context)
        if self.deferrable:
            self.defer(
                trigger=EmrServerlessStartJobTrigger(
                    application_id=self.application_id,
                    job_id=job,
                    waiter_delay=self.waiter_delay,
                    waiter_max_attempts=self.waiter_max_attempts,
                    aws_conn_id=self.aws_conn_id,
                    region_name=self.region_name,
                    verify=self.verify,
                    botocore_config=self.botocore_config,
                    cancel_on_kill=self.cancel_on_kill,
                ),
                method_name="execute_complete",
                timeout=timedelta(seconds=self.waiter_max_attempts * self.waiter_delay),
            )
        wait(
            waiter=self.hook.get_waiter("serverless_job_completed"),
            waiter_delay=self.waiter_delay,
            waiter_max_attempts=self.waiter_max_attempts,
            args={"applicationId": self.application_id, "jobRunId": job},
            failure_message="Serverless Job failed",
            status_message="Serverless Job status is",
            status_args=["jobRun.state", "jobRun.stateDetails"],
        )

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:
        """Take the result of a job run that has ended."""
        return self.resumed(context, lambda: _check(event))

    def state(self, job: str) -> State:
        """Ask EMR Serverless for a job run."""
        try:
            run = self.hook.conn.get_job_run(applicationId=self.application_id, jobRunId=job)[
                "jobRun"
            ]
        except Exception as exc:
            if is_unknown(exc):
                return State(ending="lost")
            raise
        details = (run["state"], run.get("stateDetails"))
        return State(
            ending=_ENDINGS.get(run["state"], "running"),
            detail=": ".join(filter(None, details)) + f" in application {self.application_id}",
        )

    def connection_id(self) -> str | None:
        """Return the connection that was named; without one, credentials are ambient."""
        return own_connection(self.aws_conn_id)


def _check(event: dict[str, Any] | None) -> None:
    """Raise what the trigger met. The operator would cancel a job run that has failed already."""
    from airflow.providers.common.compat.sdk import AirflowException

    if event is None or event["status"] != "success":
        raise AirflowException((event or {}).get("message", "the trigger ended without an event"))
