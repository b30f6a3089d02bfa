"""Tasks in the driver of a Spark application that spark-submit starts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

from airflow_provider_dbnd.core.remote.driver_file import driver_source, driver_url
from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines import spark_options as options
from airflow_provider_dbnd.engines.remote import RemoteTask, local_folder
from airflow_provider_dbnd.engines.spark_program import SparkEngine
from airflow_provider_dbnd.exceptions import ConfigurationError, EngineError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: What spark-submit says, and what to do about it.
_REASONS = (
    (
        r"JAVA_HOME is not set|java: (command )?not found|java: No such file",
        "Spark needs Java, and the worker has none. Install a JRE there, or set JAVA_HOME",
    ),
    (
        r"All masters are unresponsive|Failed to connect to master|Invalid master URL",
        "the Spark master does not answer. Check its address and that it is up",
    ),
    (
        r"Master must either be yarn or start with",
        "the address of the master is none. Expected local[*], spark://HOST:PORT, yarn or k8s://...",
    ),
    (
        r'Cannot run program "(?P<program>[^"]+)"',
        "the Python of the driver, {program}, is not on this machine. Set the engine's option python, "
        "or PYSPARK_PYTHON",
    ),
)


class SparkTask(SparkEngine, SparkSubmitOperator):
    """A task in the driver of a Spark application.

    :param master: address of the cluster, where no connection says it: ``local[*]``,
        ``spark://host:7077``, ``yarn``, ``k8s://https://host:port``.

    The driver runs on the worker (client mode) or on the cluster (``deploy_mode="cluster"`` of YARN
    and Kubernetes, which fetch the program from the store through Hadoop's file systems).
    """

    template_fields: Sequence[str] = (
        *SparkSubmitOperator.template_fields,
        *RemoteTask.template_fields,
    )
    template_fields_renderers = {
        **getattr(SparkSubmitOperator, "template_fields_renderers", {}),
        **RemoteTask.template_fields_renderers,
    }
    defaults: ClassVar[Mapping[str, Any]] = options.not_durable(SparkSubmitOperator)

    def __init__(
        self,
        *,
        master: str | None = None,
        conf: Mapping[str, Any] | None = None,
        env_vars: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.master = master
        for name in options.OURS:
            if name in kwargs:
                raise ConfigurationError(
                    f"{name}={kwargs[name]!r}: a task runs its function. For a jar or a script, use "
                    "@spark_job."
                )
        kwargs.update({n: options.as_text(kwargs[n]) for n in options.LISTS if n in kwargs})
        settings = options.conf(conf)
        if kwargs.get("python"):
            settings.setdefault(options.PYTHON, str(kwargs["python"]))
            # The spark-submit of a pyspark from PyPI finds Spark by its Python.
            env_vars = {"PYSPARK_PYTHON": str(kwargs["python"]), **(env_vars or {})}
        if master is not None:
            kwargs["conn_id"] = _connection_id(master)
        super().__init__(conf=settings, env_vars=env_vars, **kwargs)

    def sees_disk(self, store: ArtifactStore) -> bool:
        """Tell whether driver and executors see the worker's files: they are on this machine."""
        master, mode = self._where()
        if mode == "cluster":
            return False
        return master.startswith("local") or (
            store.medium == "local" and _host(master) in (*_LOOPBACK, socket.gethostname())
        )

    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Give the application its arguments, and the program where the cluster fetches it."""
        local_folder(store)
        self.use("" if self.reads_worker() else driver_url(store), None, job.arguments())

    def use(self, program: str, java_class: str | None, arguments: list[str]) -> None:
        """Give spark-submit a program; no name stands for the one that starts our functions."""
        self.application, self._java_class = program, java_class
        self.application_args = arguments
        if self.name == "arrow-spark":
            self.name = f"{self.binding.dag.root}.{self.task_id}"

    def launch(self, context: Any) -> None:
        """Run spark-submit."""
        self._check()
        with tempfile.TemporaryDirectory(prefix="dbnd-spark-") as folder:
            if not self.application:
                program = Path(folder, "dbnd_task.py")
                program.write_text(driver_source())
                self.application = str(program)
            SparkSubmitOperator.execute(self, context)

    def submit_job(self, context: Any) -> Any:
        """Submit to the cluster, unless the job that an earlier try submitted is there still."""
        earlier = self.taken_up()
        if earlier is not None:
            self.log.info("taking up %s", earlier)
            return earlier
        name = super().submit_job(context)
        self.started(str(name))
        return name

    def taken_up(self) -> str | None:
        """Return the job that an earlier try submitted, if it runs or has succeeded meanwhile."""
        if self.running_job is None:
            return None
        status = self.get_job_status(self.running_job, {})
        gone_on = self.is_job_active(status) or self.is_job_succeeded(status)
        return self.running_job if gone_on else None

    def reads_worker(self) -> bool:
        """Tell whether the driver is on the worker."""
        return self._where()[1] != "cluster"

    def external_id(self) -> str:
        """Return the name of application, driver or pod; on the worker, the process."""
        hook = self._hook
        if hook is None or (hook._submit_sp is None and self.running_job is None):
            return "not started"
        on_cluster = hook._yarn_application_id or hook._kubernetes_driver_pod or hook._driver_id
        if on_cluster or hook._submit_sp is None:
            return str(on_cluster or self.running_job)
        return f"process {hook._submit_sp.pid}"

    def explain(self, error: BaseException | None) -> str:
        """Tell what kept spark-submit or the application from starting."""
        if isinstance(error, EngineError | ConfigurationError):
            return str(error)
        text = super().explain(error)
        for pattern, reason in _REASONS:
            if found := re.search(pattern, text):
                return f"{reason.format(**found.groupdict())} ({self._where()[0]})\n{text}"
        return text

    def may_go_on(self) -> bool:
        """Tell whether an application on the cluster may run still."""
        if self.running_job is None:
            return False
        try:
            return bool(self.is_job_active(self.get_job_status(self.running_job, {})))
        except Exception:  # noqa: BLE001 - the cluster does not answer, the application may run
            return True

    def on_kill(self) -> None:
        """Kill spark-submit and the application."""
        if self._hook is not None or self._stand_in is not None:
            super().on_kill()

    def _check(self) -> None:
        from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

        hook = self._get_hook()
        try:
            BaseHook.get_connection(self._conn_id)
        except AirflowNotFoundException as exc:
            raise ConfigurationError(
                f"connection {self._conn_id!r} is not defined, and the engine names no master. Define "
                'the connection, or set master = "local[*]", "spark://HOST:PORT", "yarn", ...'
            ) from exc
        (binary,) = hook._get_spark_binary_path()
        if shutil.which(binary, path=(self.env_vars or {}).get("PATH")) is None:
            raise EngineError(
                f"{binary!r} is not on the worker's PATH. Install Spark there (pip install pyspark has "
                "it), or give its path by the engine's option spark_binary"
            )
        master, mode = self._where()
        python = self._java_class is None
        if mode == "cluster" and python and master.startswith(("spark://", "local")):
            raise ConfigurationError(
                f"Spark runs Python programs on {master} only with the driver on the worker: leave "
                'deploy_mode out, or set it to "client".'
            )

    def _get_hook(self) -> Any:
        if self.master is not None:
            # Spark's hook knows connections only; a master needs none to be kept anywhere.
            value = {"conn_type": "spark", "host": self.master}
            os.environ[f"AIRFLOW_CONN_{self._conn_id.upper()}"] = json.dumps(value)
        return super()._get_hook()

    def _where(self) -> tuple[str, str]:
        """Return master and deploy mode, from options and connection."""
        connection = self._get_hook()._connection
        return str(connection["master"]), str(connection["deploy_mode"] or "client")


def _connection_id(master: str) -> str:
    return f"dbnd_spark_{hashlib.sha256(master.encode()).hexdigest()[:12]}"


def _host(master: str) -> str:
    return master.partition("://")[2].rpartition(":")[0].strip("[]")
