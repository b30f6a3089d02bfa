"""An XCom backend for native tasks: data goes to the artifact store, XCom keeps the reference.

Our own tasks pass references by themselves and work with any backend.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk.bases.xcom import BaseXCom

from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.parameters import Output, Parameter
from airflow_provider_dbnd.core.scratch import process_folder
from airflow_provider_dbnd.core.values import Decoder, Encoder
from airflow_provider_dbnd.hooks.settings import artifact_store


class ArtifactXComBackend(BaseXCom):
    """Stores what is not small plain JSON as artifacts.

    ``AIRFLOW__CORE__XCOM_BACKEND=airflow_provider_dbnd.xcom.ArtifactXComBackend``
    """

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,  # noqa: ARG004 - content-addressed: equal data of two runs is one object
        map_index: int | None = None,  # noqa: ARG004
    ) -> Any:
        """Store *value* and return the JSON for the metadata DB."""
        return _encode(value, dag_id, task_id, key)

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Load what :meth:`serialize_value` stored."""
        return _decode(result.value)

    @classmethod
    def store_value(cls, coordinate: Any, key: str, value: Any) -> Any:
        """Airflow 3.4's name of :meth:`serialize_value`."""
        return _encode(value, coordinate.dag_id, coordinate.task_id, key)

    @classmethod
    def load_value(cls, stored: Any) -> Any:
        """Airflow 3.4's name of :meth:`deserialize_value`."""
        return _decode(stored)

    @staticmethod
    def purge(xcom: Any, *args: Any) -> None:
        """Delete nothing: other runs and tasks may hold the same content."""


def _encode(value: Any, dag_id: str | None, task_id: str | None, key: str | None) -> Any:
    if is_reference(value) or _is_references(value):
        return value
    encoder = Encoder(store=artifact_store(), pipeline=dag_id or "xcom", task_id=task_id or "xcom")
    return encoder.encode(value, key or "return_value", Output())


def _decode(stored: Any) -> Any:
    decoder = Decoder(store=artifact_store(), scratch=process_folder())
    return decoder.load(stored, "xcom", Any, Parameter(), "")


def _is_references(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_reference, value))
