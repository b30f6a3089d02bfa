"""Tasks as jobs of a Google Cloud Dataproc cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow.providers.google.cloud.hooks.dataproc import DataprocHook
from airflow.providers.google.cloud.operators.dataproc import DataprocSubmitJobOperator
from airflow.providers.google.cloud.triggers.dataproc import DataprocSubmitTrigger

from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.settings import merged_options
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.cloud import (
    CloudSparkTask,
    Ending,
    RecordsJobId,
    State,
    slug,
)
from airflow_provider_dbnd.engines.remote import RemoteTask
from airflow_provider_dbnd.exceptions import ConfigurationError

_ENDINGS: Mapping[str, Ending] = {
    "DONE": "succeeded",
    "ERROR": "failed",
    "CANCEL_PENDING": "cancelled",
    "CANCEL_STARTED": "cancelled",
    "CANCELLED": "cancelled",
}

#: The longest id of a request that Dataproc takes.
_REQUEST_ID = 40


class DataprocTask(RecordsJobId, CloudSparkTask, DataprocSubmitJobOperator):
    """A task that a Dataproc cluster runs as a PySpark job.

    :param cluster_name: the cluster; or ``job`` says where, by ``placement``.
    :param job: further fields of the job: labels, scheduling, placement.
    """

    service = "Dataproc"
    schemes: ClassVar[Mapping[str, str]] = {"gs": "gs"}
    ours = ("request_id", "asynchronous", "start_from_trigger")
    required = (("region",),)
    defaults: ClassVar[Mapping[str, Any]] = {"job": {}}
    template_fields: Sequence[str] = (
        *DataprocSubmitJobOperator.template_fields,
        *CloudSparkTask.template_fields,
        "cluster_name",
    )
    template_fields_renderers = {
        **DataprocSubmitJobOperator.template_fields_renderers,
        **RemoteTask.template_fields_renderers,
    }

    # Types that hold where the provider, which is large, is not installed.
    job: Any
    project_id: Any
    gcp_conn_id: str
    hook: Any

    def __init__(self, *, cluster_name: str | None = None, **kwargs: Any) -> None:
        self.cluster_name = cluster_name
        super().__init__(**kwargs)

    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Describe the job."""
        placement = {"cluster_name": self.cluster_name} if self.cluster_name else {}
        if not placement and not self.job.get("placement"):
            raise ConfigurationError(
                f"engine {self.binding.engine.name!r} (dataproc): expected cluster_name, the cluster "
                "that runs the tasks, got none. Set it in the options of the engine."
            )
        token = self.token(job)
        program = {"main_python_file_uri": self.program_url(store), "args": job.arguments()}
        self.job = merged_options(
            self.job,
            {
                "reference": {"job_id": f"{slug(self.job_title(), 80)}-{token[:12]}"},
                "placement": placement,
                "pyspark_job": {**program, **self.spark_fields()},
            },
        )
        self.request_id = token[:_REQUEST_ID]

    def submit(self, context: Any) -> None:
        """Submit the job, and wait for its end."""
        self._find_project()
        DataprocSubmitJobOperator.execute(self, context)

    def follow(self, job: str, context: Any) -> None:  # noqa: ARG002 - as any engine
        """Wait for the end of a job."""
        self._find_project()
        if self.deferrable:
            trigger = DataprocSubmitTrigger(
                job_id=job,
                project_id=self.project_id,
                region=self.region,
                gcp_conn_id=self.gcp_conn_id,
                impersonation_chain=self.impersonation_chain,
                polling_interval_seconds=self.polling_interval_seconds,
                cancel_on_kill=self.cancel_on_kill,
            )
            self.defer(trigger=trigger, method_name="execute_complete")
        self._client().wait_for_job(
            job_id=job, region=self.region, project_id=self.project_id, timeout=self.wait_timeout
        )

    def execute_complete(self, context: Any, event: Any = None) -> Any:
        """Take the result of a job that has ended."""
        return self.resumed(
            context, lambda: DataprocSubmitJobOperator.execute_complete(self, context, event)
        )

    def state(self, job: str) -> State:
        """Ask Dataproc for a job."""
        from google.api_core.exceptions import NotFound

        try:
            found = self._client().get_job(
                job_id=job, region=self.region, project_id=self.project_id
            )
        except NotFound:
            return State(ending="lost")
        status = found.status
        details = (status.state.name, status.details)
        return State(
            ending=_ENDINGS.get(status.state.name, "running"),
            detail=": ".join(filter(None, details)) + f" on {found.placement.cluster_name}",
            log=found.driver_output_resource_uri,
        )

    def connection_id(self) -> str | None:
        """Return the connection of Google Cloud."""
        return self.gcp_conn_id

    def on_kill(self) -> None:
        """Cancel the job."""
        self._client()
        super().on_kill()

    def _find_project(self) -> None:
        # The trigger's hook does not look for it in the connection (provider 22.8).
        self.project_id = self.project_id or self._client().project_id

    def _client(self) -> Any:
        # The operator makes its own only where it submits.
        if self.hook is None:
            self.hook = DataprocHook(
                gcp_conn_id=self.gcp_conn_id, impersonation_chain=self.impersonation_chain
            )
        return self.hook
