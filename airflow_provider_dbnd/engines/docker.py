"""Tasks in Docker containers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow.providers.docker.operators.docker import DockerOperator

from airflow_provider_dbnd.core.job import Job
from airflow_provider_dbnd.core.store import ArtifactStore
from airflow_provider_dbnd.engines.remote import RemoteTask, local_folder


class DockerTask(RemoteTask, DockerOperator):
    """A task in a container of an image with Python and the data libraries.

    A store on the local disk is mounted at its own path, and the task then runs as the worker's user.
    """

    template_fields: Sequence[str] = (*DockerOperator.template_fields, *RemoteTask.template_fields)
    template_fields_renderers = {
        **DockerOperator.template_fields_renderers,
        **RemoteTask.template_fields_renderers,
    }
    defaults: ClassVar[Mapping[str, Any]] = {"auto_remove": "force", "mount_tmp_dir": False}

    def configure(self, job: Job, store: ArtifactStore) -> None:
        """Give the container its command, and the store if that is a local folder."""
        self.command = self.program(job)
        folder = local_folder(store)
        if folder is not None:
            mount = {"type": "bind", "source": folder, "target": folder}
            self.mounts = [*self.mounts, mount]
            self.user = self.user or f"{os.getuid()}:{os.getgid()}"

    def launch(self, context: Any) -> None:
        """Run the container."""
        DockerOperator.execute(self, context)

    def job_id(self) -> str:
        """Return the container's id."""
        return str(self.container["Id"])[:12] if self.container else "not started"
