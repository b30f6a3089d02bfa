"""What the engines of cloud services have in common: the program is in a bucket, the service has the job."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.remote.driver_file import driver_url
from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.storage.filesystem import kind_of, redact, scheme_of
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines import spark_options as options
from airflow_provider_dbnd.engines.remote import RemoteTask
from airflow_provider_dbnd.exceptions import ConfigurationError, DbndError

#: Options that are settings of Spark under another name.
_SETTINGS = {
    "driver_memory": "spark.driver.memory",
    "executor_memory": "spark.executor.memory",
    "executor_cores": "spark.executor.cores",
    "num_executors": "spark.executor.instances",
}

Ending = Literal["running", "succeeded", "failed", "cancelled", "lost"]


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a service says of a job. ``detail`` is its reason, ``log`` where it says more."""

    ending: Ending
    detail: str = ""
    log: str = ""


class CloudTask(RemoteTask):
    """A task that a cloud's service runs, by its operator of Airflow that this class is put before.

    A subclass says how a job is submitted and followed, and what the service tells of it.
    """

    #: What the service is called in messages.
    service: ClassVar[str]
    #: The kinds of stores that the service reads, and how it writes their URLs.
    schemes: ClassVar[Mapping[str, str]]
    #: Options of the operator that every task sets by itself.
    ours: ClassVar[tuple[str, ...]]

    def __init__(self, **kwargs: Any) -> None:
        for name in self.ours:
            if name in kwargs:
                raise ConfigurationError(
                    f"{name}={kwargs[name]!r}: the engine sets {name} for each task by itself. Leave "
                    "it out."
                )
        super().__init__(**kwargs)

    @abstractmethod
    def submit(self, context: Any) -> None:
        """Submit the job and run it to its end, or defer."""

    @abstractmethod
    def follow(self, job: str, context: Any) -> None:
        """Wait for the end of a job that runs already, or defer."""

    @abstractmethod
    def state(self, job: str) -> State:
        """Ask the service for a job."""

    @abstractmethod
    def connection_id(self) -> str | None:
        """Return the connection that has to be there, if one has to."""

    def run_job(self, context: Mapping[str, Any], spec: TaskSpec) -> Manifest:
        """Send the job of *spec*, from a store that the service sees."""
        self._check_store(spec.store)
        return super().run_job(context, spec)

    def launch(self, context: Any) -> None:
        """Run the job, or follow the one that a worker before this submitted."""
        self._check_connection()
        earlier = self.running_job
        if earlier is not None and self.state(earlier).ending == "running":
            self.log.info("following job %s, which runs already", earlier)
            self.follow(earlier, context)
        else:
            self.submit(context)

    def external_id(self) -> str:
        """Return the service's id of the job."""
        return self.running_job or "not submitted"

    def explain(self, error: BaseException | None) -> str:
        """Tell what the service says of the job, and what to do."""
        if isinstance(error, DbndError):
            return str(error)
        said = super().explain(error)
        if self.running_job is None:
            return (
                f"{self.service} did not take the job. Check the options of the engine, the "
                f"connection, and that the service can be reached ({redact(said)})"
            )
        try:
            state = self.state(self.running_job)
        except Exception as exc:  # noqa: BLE001 - said in the message
            return (
                f"{redact(said)}. What became of the job is unknown, since {self.service} does not "
                f"tell: {type(exc).__name__}: {redact(str(exc))}"
            )
        told = [state.detail, said] if state.ending == "running" else [state.detail]
        detail = "; ".join(filter(None, map(redact, told)))
        more = f". More is in {state.log}" if state.log else ""
        ending = _ENDINGS[state.ending].format(self.service)
        return f"{ending} ({detail}){more}" if detail else f"{ending}{more}"

    def may_go_on(self) -> bool:
        """Tell whether the job may run still."""
        if self.running_job is None:
            return False
        try:
            return self.state(self.running_job).ending == "running"
        except Exception as exc:  # noqa: BLE001 - who does not answer may run it still
            self.log.warning("%s does not tell of the job: %s", self.service, redact(str(exc)))
            return True

    def follows(self, job: Job) -> bool:  # noqa: ARG002 - any
        """Tell that a job is taken up: its submission is known by its :meth:`token`, were its id lost."""
        return True

    def token(self, job: Job) -> str:
        """Return what names one submission: the same for one that is repeated after a crash."""
        return hashlib.sha256(f"{job.checksum}{self.running_job or ''}".encode()).hexdigest()

    def job_title(self) -> str:
        """Return a name of the job for people."""
        return f"{self.binding.dag.root}.{self.task_id}"

    def program_url(self, store: ArtifactStore) -> str:
        """Put the program into the store and return its URL as the service writes it."""
        _, _, rest = driver_url(store).partition("://")
        return f"{self.schemes[_kind(store)]}://{rest}"

    def _check_store(self, store: ArtifactStore) -> None:
        if _kind(store) not in self.schemes:
            engine = self.binding.engine
            wanted = " or ".join(f"{scheme}://..." for scheme in self.schemes)
            raise ConfigurationError(
                f"engine {engine.name!r} ({engine.type}): {self.service} does not see the store "
                f"{redact(store.url)}: expected {wanted}. Set the store of this environment to such "
                "a place."
            )

    def _check_connection(self) -> None:
        from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

        conn_id = self.connection_id()
        if conn_id is None:
            return
        try:
            BaseHook.get_connection(conn_id)
        except AirflowNotFoundException as exc:
            raise ConfigurationError(
                f"connection {conn_id!r} is not defined. Define it, or name another in the options of "
                "the engine"
            ) from exc


class RecordsJobId:
    """Before an operator that keeps the id of its job in ``job_id``: it goes to the record of the job."""

    running_job: str | None
    started: Callable[[str], None]

    @property
    def job_id(self) -> Any:
        """What the operator keeps the id of its job in."""
        return self.running_job

    @job_id.setter
    def job_id(self, value: str | None) -> None:
        if value is not None:
            self.started(value)


class CloudSparkTask(CloudTask):
    """A task that a cloud's service runs in the driver of a Spark application.

    :param conf: settings of Spark.
    :param packages: Maven coordinates.
    """

    template_fields: Sequence[str] = (
        *RemoteTask.template_fields,
        "conf",
        "jars",
        "py_files",
        "files",
        "archives",
        "packages",
    )

    def __init__(
        self,
        *,
        conf: Mapping[str, Any] | None = None,
        jars: Any = None,
        py_files: Any = None,
        files: Any = None,
        archives: Any = None,
        packages: Any = None,
        driver_memory: str | None = None,
        executor_memory: str | None = None,
        executor_cores: int | None = None,
        num_executors: int | None = None,
        **kwargs: Any,
    ) -> None:
        given = (driver_memory, executor_memory, executor_cores, num_executors)
        settings = dict(zip(_SETTINGS.values(), given, strict=True))
        if kwargs.get("python"):
            settings[options.PYTHON] = kwargs["python"]
        self.conf = {
            **{name: str(value) for name, value in settings.items() if value is not None},
            **options.conf(conf),
        }
        self.jars, self.py_files = options.as_list(jars), options.as_list(py_files)
        self.files, self.archives = options.as_list(files), options.as_list(archives)
        self.packages = options.as_list(packages)
        super().__init__(**kwargs)

    def spark_arguments(self) -> list[str]:
        """Return the options as spark-submit takes them."""
        lists = {
            "--jars": self.jars,
            "--py-files": self.py_files,
            "--files": self.files,
            "--archives": self.archives,
            "--packages": self.packages,
        }
        settings = [word for each in self.conf.items() for word in ("--conf", "=".join(each))]
        given = [word for name, value in lists.items() if value for word in (name, ",".join(value))]
        return [*settings, *given]

    def spark_fields(self) -> dict[str, Any]:
        """Return the options as fields of a job of Dataproc."""
        properties = {**self.conf}
        if self.packages:
            properties["spark.jars.packages"] = ",".join(self.packages)
        fields = {
            "properties": properties,
            "jar_file_uris": self.jars,
            "python_file_uris": self.py_files,
            "file_uris": self.files,
            "archive_uris": self.archives,
        }
        return {name: value for name, value in fields.items() if value}


_ENDINGS: Mapping[Ending, str] = {
    "running": "{} says that the job runs still, but its operator gave up. The next try takes it up",
    "succeeded": (
        "{} says that the job succeeded, but it left no result in the store. Check that the store is "
        "the same place seen from there"
    ),
    "failed": "{} says that the job failed",
    "cancelled": "somebody cancelled the job. Run the task again",
    "lost": "{} does not know the job any more, so it is lost. Run the task again",
}


def slug(text: str, longest: int) -> str:
    """Return *text* as a name that services take: small letters, digits and dashes.

    >>> slug("Flights mart.clean_up", 12)
    'flights-mart'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:longest].strip("-")


def _kind(store: ArtifactStore) -> str:
    return kind_of(scheme_of(store.url))
