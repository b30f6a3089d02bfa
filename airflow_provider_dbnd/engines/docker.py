"""Tasks in Docker containers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow.providers.docker.operators.docker import DockerOperator

from airflow_provider_dbnd.core.remote.job import Job
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.remote import RemoteTask, local_folder

#: Label of a container: the URI of the spec it runs.
SPEC_LABEL = "dbnd.spec"

_LINES = 10

#: Docker's answers about a container that does not exist, or that is being removed.
_GONE = (404, 409)


class DockerTask(RemoteTask, DockerOperator):
    """A task in a container of an image with Python and the data libraries.

    A store on the local disk is mounted at its own path, and the task then runs as the worker's
    user. The container is removed when it ended, unless ``auto_remove`` is set.
    """

    template_fields: Sequence[str] = (*DockerOperator.template_fields, *RemoteTask.template_fields)
    template_fields_renderers = {
        **DockerOperator.template_fields_renderers,
        **RemoteTask.template_fields_renderers,
    }
    required = (("image",),)
    defaults: ClassVar[Mapping[str, Any]] = {"mount_tmp_dir": False}

    def __init__(self, *, auto_remove: str | None = None, **kwargs: Any) -> None:
        self._removes = auto_remove is None
        self._state: Mapping[str, Any] = {}
        super().__init__(auto_remove=auto_remove or "never", **kwargs)

    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Give the container its command, and the store if that is a local folder."""
        self.command = self.program(job)
        self.labels = {**_as_dict(self.labels), SPEC_LABEL: job.spec}
        folder = local_folder(store)
        if folder is not None:
            mount = {"type": "bind", "source": folder, "target": folder}
            self.mounts = [*self.mounts, mount]
            self.user = self.user or f"{os.getuid()}:{os.getgid()}"

    def launch(self, context: Any) -> None:
        """Run the container, or follow the one that a worker before this started."""
        try:
            running = self._running()
            if running is None:
                DockerOperator.execute(self, context)
            else:
                self._follow(running)
        finally:
            self._look_back()

    def external_id(self) -> str:
        """Return the container's id."""
        return str(self.container["Id"])[:12] if self.container else "not started"

    def follows(self, job: Job) -> bool:  # noqa: ARG002 - any
        """Tell that a job is taken up: its container is found by its label."""
        return True

    def explain(self, error: BaseException | None) -> str:
        """Tell how the container ended, with its last lines."""
        if self._state.get("OOMKilled"):
            return (
                f"the container was killed for want of memory (mem_limit={self.mem_limit}). Raise "
                "mem_limit of the engine"
            )
        if self.container and not self._state:
            return "the container is gone: somebody removed it while it ran"
        text = super().explain(error)
        if "executable file not found" in text or "no such file or directory" in text:
            return (
                f"image {self.image} has no {self.python}. Use an image with Python, or name it by "
                f"the engine's option python ({text})"
            )
        lines = [str(line) for line in getattr(error, "logs", None) or ()]
        return "\n".join((text, *lines[-_LINES:]))

    def _running(self) -> dict[str, Any] | None:
        labels = self.labels
        assert isinstance(labels, dict)
        found = self.cli.containers(filters={"label": f"{SPEC_LABEL}={labels[SPEC_LABEL]}"})
        return dict(found[0]) if found else None

    def _follow(self, container: dict[str, Any]) -> None:
        self.container = container
        self.log.info("following container %s, which runs already", self.external_id())
        for chunk in self.cli.logs(container["Id"], stream=True, follow=True):
            self.log.info(chunk.decode(errors="replace").rstrip())
        self.cli.wait(container["Id"])

    def _look_back(self) -> None:
        """Note how the container ended, and remove it."""
        from docker.errors import APIError

        if not self.container:
            return
        try:
            self._state = self.cli.inspect_container(self.container["Id"])["State"]
            if self._removes:
                self.cli.remove_container(self.container["Id"], force=True)
        except APIError as exc:
            if exc.status_code not in _GONE:
                raise
            self._state = {}
            self.log.warning("container %s was removed by somebody else", self.external_id())


def _as_dict(labels: Any) -> dict[str, str]:
    return dict(labels) if isinstance(labels, Mapping) else dict.fromkeys(labels or (), "")
