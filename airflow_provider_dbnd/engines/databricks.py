"""Tasks as one-time runs of Databricks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow.providers.databricks.exceptions import DatabricksApiError
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger

from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.cloud import CloudTask, Ending, State, slug
from airflow_provider_dbnd.engines.remote import RemoteTask
from airflow_provider_dbnd.exceptions import ConfigurationError

_COMPUTE = ("new_cluster", "existing_cluster_id")
_ENDED = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")
_ENDINGS: Mapping[str, Ending] = {"SUCCESS": "succeeded", "CANCELED": "cancelled"}


class DatabricksTask(CloudTask, DatabricksSubmitRunOperator):
    """A task that Databricks runs as a Python file, on a cluster or serverless.

    :param new_cluster: the cluster to make for the task; or ``existing_cluster_id``; or
        ``environments``, the first of which is what serverless compute has installed.
    """

    service = "Databricks"
    schemes: ClassVar[Mapping[str, str]] = {"s3": "s3", "abfs": "abfss", "gs": "gs"}
    ours = (
        "tasks",
        "spark_python_task",
        "spark_jar_task",
        "notebook_task",
        "spark_submit_task",
        "pipeline_task",
        "dbt_task",
        "git_source",
        "idempotency_token",
        "wait_for_termination",
    )
    # Our own record of the job is what a retry goes by; the operator's outlives the run it is of.
    defaults: ClassVar[Mapping[str, Any]] = {"durable": False}
    template_fields: Sequence[str] = (
        *DatabricksSubmitRunOperator.template_fields,
        *RemoteTask.template_fields,
    )
    template_fields_renderers = RemoteTask.template_fields_renderers

    @property
    def run_id(self) -> int | None:
        """What the operator keeps the id of its run in."""
        return None if self.running_job is None else int(self.running_job)

    @run_id.setter
    def run_id(self, value: int | None) -> None:
        if value is not None and str(value) != self.running_job:
            self.started(str(value))

    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Describe the run: one task with a Python file."""
        compute = {name: getattr(self, name) for name in (*_COMPUTE, "libraries")}
        if self.environments:
            compute["environment_key"] = self.environments[0]["environment_key"]
        if not any(compute.get(name) for name in (*_COMPUTE, "environment_key")):
            raise ConfigurationError(
                f"engine {self.binding.engine.name!r} (databricks): expected new_cluster, "
                "existing_cluster_id or environments, which say what runs the tasks, got none of "
                "them. Set one in the options of the engine."
            )
        program = {"python_file": self.program_url(store), "parameters": job.arguments()}
        task = {"task_key": slug(self.task_id, 100), "spark_python_task": program, **compute}
        self.tasks = [{name: value for name, value in task.items() if value}]
        self.new_cluster = self.existing_cluster_id = self.libraries = None
        name: str | None = getattr(self, "run_name", None)
        self.run_name = name or self.job_title()
        self.idempotency_token = self.token(job)

    def submit(self, context: Any) -> None:
        """Submit the run, and wait for its end."""
        DatabricksSubmitRunOperator.execute(self, context)

    def follow(self, job: str, context: Any) -> None:
        """Wait for the end of a run."""
        if self.deferrable:
            trigger = DatabricksExecutionTrigger(
                run_id=int(job),
                databricks_conn_id=self.databricks_conn_id,
                polling_period_seconds=self.polling_period_seconds,
                retry_limit=self.databricks_retry_limit,
                retry_delay=self.databricks_retry_delay,
                retry_args=self.databricks_retry_args,
                run_page_url=self._hook.get_run_page_url(int(job)),
            )
            self.defer(trigger=trigger, method_name="execute_complete")
        self.poll_until_complete(int(job), context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Take the result of a run that has ended."""
        return self.resumed(
            context, lambda: DatabricksSubmitRunOperator.execute_complete(self, context, event)
        )

    def state(self, job: str) -> State:
        """Ask Databricks for a run."""
        try:
            run = self._hook.get_run(int(job))
        except DatabricksApiError as exc:
            if _is_unknown(exc):
                return State(ending="lost")
            raise
        state = run["state"]
        result = state.get("result_state", "")
        ended = state["life_cycle_state"] in _ENDED
        ending = _ENDINGS.get(result, "failed") if ended else "running"
        told = (result or state["life_cycle_state"], state.get("state_message"))
        error = self._error_of(run) if ending == "failed" else None
        return State(
            ending=ending,
            detail=": ".join(filter(None, (*told, error))),
            log=run.get("run_page_url", ""),
        )

    def connection_id(self) -> str | None:
        """Return the connection of Databricks."""
        conn_id: str | None = self.databricks_conn_id
        return conn_id

    def _error_of(self, run: Mapping[str, Any]) -> str | None:
        """Return what the program printed last where it failed."""
        for task in run.get("tasks", []):
            output = self._hook.get_run_output(task["run_id"])
            if output.get("error"):
                return str(output["error"])
        return None


def _is_unknown(error: DatabricksApiError) -> bool:
    return error.http_status_code == 404 or "does not exist" in str(error)
