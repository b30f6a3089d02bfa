"""Tasks in Spark applications that Apache Livy starts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from airflow.providers.apache.livy.hooks.livy import BatchState, LivyHook
from airflow.providers.apache.livy.operators.livy import LivyOperator
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_dbnd.core.remote.driver_file import driver_url
from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines import spark_options as options
from airflow_provider_dbnd.engines.livy_trigger import BatchTrigger
from airflow_provider_dbnd.engines.remote import RemoteTask, local_folder
from airflow_provider_dbnd.engines.spark_program import SparkEngine
from airflow_provider_dbnd.exceptions import ConfigurationError

_OURS = ("file", "args", "class_name")
_LINES = 20


class LivyTask(SparkEngine, LivyOperator):
    """A task in a batch of Livy.

    Livy reads the program from the store, through Hadoop's file systems; a local folder it reads if
    ``livy.file.local-dir-whitelist`` of the server has it.

    :param durable: a retry takes up the batch of a worker that died, whether deferred or not.
    """

    template_fields: Sequence[str] = (*LivyOperator.template_fields, *RemoteTask.template_fields)
    template_fields_renderers = {
        **LivyOperator.template_fields_renderers,
        **RemoteTask.template_fields_renderers,
    }
    defaults: ClassVar[Mapping[str, Any]] = {"polling_interval": 5}

    def __init__(
        self,
        *,
        conf: Mapping[str, Any] | None = None,
        polling_interval: int = 5,
        durable: bool = True,
        **kwargs: Any,
    ) -> None:
        if polling_interval <= 0:
            raise ConfigurationError(
                f"polling_interval={polling_interval}: expected more than 0 seconds, since Livy's "
                "operator does not wait for the batch otherwise."
            )
        for name in _OURS:
            if name in kwargs:
                raise ConfigurationError(
                    f"{name}={kwargs[name]!r}: a task runs its function. For a jar or a script, use "
                    "@spark_job."
                )
        kwargs.update({n: options.as_list(kwargs[n]) for n in options.LISTS if n in kwargs})
        settings = options.conf(conf)
        if kwargs.get("python"):
            settings.setdefault(options.PYTHON, str(kwargs["python"]))
        self._takes_up = durable
        super().__init__(
            file="",
            conf=settings,
            polling_interval=polling_interval,
            **options.not_durable(LivyOperator),
            **kwargs,
        )

    @functools.cached_property
    def hook(self) -> LivyHook:
        """The hook, which takes up the batch of an earlier try instead of posting another."""
        return _BatchHook(
            self,
            livy_conn_id=self._livy_conn_id,
            extra_headers=self._extra_headers,
            extra_options=self._extra_options,
            auth_type=self._livy_conn_auth_type,
            endpoint_prefix=self._livy_endpoint_prefix,
        )

    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Give the batch its program and arguments."""
        local_folder(store)
        self.use(driver_url(store), None, job.arguments())

    def use(self, program: str, java_class: str | None, arguments: list[str]) -> None:
        """Give the batch a program."""
        params: dict[str, Any] = self.spark_params
        params["file"], params["class_name"], params["args"] = program, java_class, arguments
        params["conf"] = {
            "spark.app.name": f"{self.binding.dag.root}.{self.task_id}",
            **params["conf"],
        }

    def launch(self, context: Any) -> None:
        """Post the batch, and wait for it or defer."""
        LivyOperator.execute(self, context)

    def defer(self, *, trigger: Any, **kwargs: Any) -> NoReturn:
        """Defer with a trigger that knows all of the connection, and kills the batch."""
        super().defer(
            trigger=BatchTrigger(
                **{
                    **trigger.serialize()[1],
                    "endpoint_prefix": self._livy_endpoint_prefix,
                    # The batch has them; they would only grow the trigger's row.
                    "spark_params": {},
                }
            ),
            **kwargs,
        )

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Take the result of a batch that ended while this task was deferred."""
        return self.resumed(context, lambda: self._complete(context, event))

    def _complete(self, context: Any, event: dict[str, Any]) -> None:
        self._batch_id = event["batch_id"]
        if event["status"] == "error" and self._is_active():
            # The triggerer could not ask Livy for a while.
            self.log.warning("batch %s runs still: %s", self._batch_id, event["response"])
            self.poll_for_termination(event["batch_id"])
            return
        if event["status"] != "timeout":
            # The trigger brings the first lines only.
            self.hook.dump_batch_logs(event["batch_id"])
        LivyOperator.execute_complete(self, context, {**event, "log_lines": None})

    def external_id(self) -> str:
        """Return the number of the batch."""
        batch = self._batch_id if self._batch_id is not None else self.running_job
        return "not started" if batch is None else f"batch {batch}"

    def explain(self, error: BaseException | None) -> str:
        """Tell how the batch ended: its state, application and last lines."""
        text = super().explain(error)
        if self._batch_id is None:
            return f"{self._livy()} took no batch: {text}. Check the connection, and that the server is up"
        try:
            batch = self.hook.get_batch(self._batch_id)
        except AirflowException as exc:
            return (
                f"{self._livy()} does not know the batch any more: it was deleted, or the server was "
                f"restarted ({exc})"
            )
        except Exception as exc:  # noqa: BLE001 - why it cannot be asked is what there is to tell
            return f"{self._livy()} does not answer ({type(exc).__name__}: {exc})"
        lines = "\n".join(str(line).rstrip() for line in batch.get("log", [])[-_LINES:])
        return f"{text}; state {batch['state']}, application {batch.get('appId')}, last lines:\n{lines}"

    def may_go_on(self) -> bool:
        """Tell whether the batch may run still although this task has ended."""
        try:
            return self._batch_id is not None and self._is_active()
        except AirflowException:
            return False
        except Exception:  # noqa: BLE001 - the server does not answer, the batch may run
            return True

    def taken_up(self) -> int | None:
        """Return the batch that an earlier try posted, if it runs or has succeeded meanwhile."""
        if self.running_job is None or not self._takes_up:
            return None
        batch = int(self.running_job)
        try:
            state = self.hook.get_batch_state(batch, retry_args=self.retry_args)
        except AirflowException as exc:
            self.log.warning("batch %s of an earlier try is gone: %s", batch, exc)
            return None
        self.log.info("batch %s of an earlier try: %s", batch, state.value)
        gone_on = state is BatchState.SUCCESS or state not in self.hook.TERMINAL_STATES
        return batch if gone_on else None

    def _is_active(self) -> bool:
        assert self._batch_id is not None
        state = self.hook.get_batch_state(self._batch_id, retry_args=self.retry_args)
        return state not in self.hook.TERMINAL_STATES

    def _livy(self) -> str:
        return f"Livy at {self.hook.base_url or 'an unknown address'} (connection {self._livy_conn_id!r})"


class _BatchHook(LivyHook):
    """Livy's hook; *task* knows of earlier tries, and is told of each batch."""

    def __init__(self, task: LivyTask, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._task = task

    def post_batch(self, *args: Any, **kwargs: Any) -> int:
        """Return the batch that goes on from an earlier try, or post one."""
        batch = self._task.taken_up()
        if batch is None:
            batch = super().post_batch(*args, **kwargs)
            self._task.started(str(batch))
        return batch
