"""The Airflow plugin: macros for references in native operators' templates."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin


def uri(reference: Any) -> str:
    """Return the URI of a reference, for a template that needs a path and not the data.

    ``{{ macros.dbnd.uri(ti.xcom_pull(task_ids="train")) }}``
    """
    from airflow_provider_dbnd.core.artifacts import Artifact, is_reference
    from airflow_provider_dbnd.exceptions import ParameterError

    if not is_reference(reference):
        raise ParameterError(
            f"macros.dbnd.uri() takes a reference to an artifact, got {type(reference).__name__}."
        )
    return Artifact.from_json(reference).uri


class DbndPlugin(AirflowPlugin):
    """Found by the ``airflow.plugins`` entry point."""

    name = "dbnd"
    macros = [uri]
