"""An XCom backend for native tasks: data goes to the artifact store, XCom keeps the reference.

Our own tasks pass references by themselves and work with any backend.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.sdk.bases.xcom import BaseXCom

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact, is_reference
from airflow_provider_dbnd.core.graph import with_leaves
from airflow_provider_dbnd.core.parameters import Output, Parameter
from airflow_provider_dbnd.core.references import references, replaced
from airflow_provider_dbnd.core.scratch import process_folder
from airflow_provider_dbnd.core.values import Decoder, Encoder, is_inline
from airflow_provider_dbnd.hooks.settings import artifact_store


class ArtifactXComBackend(BaseXCom):
    """Stores data, and what is large, as artifacts; all else is as with Airflow's own backend.

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
    encoder = Encoder(store=artifact_store(), pipeline=dag_id or "xcom", task_id=task_id or "xcom")
    name = key or "return_value"

    def stored(leaf: Any) -> Any:
        if isinstance(leaf, tuple) and hasattr(leaf, "_fields"):
            # Airflow's serializer makes a tuple of a NamedTuple as well.
            return tuple(with_leaves(each, stored) for each in leaf)
        return encoder.encode(leaf, name, Output(), type(leaf)) if _is_data(leaf) else leaf

    # What is no data keeps its type as with Airflow's own backend, which marks dates, tuples, ...
    plain = BaseXCom.serialize_value(with_leaves(value, stored))
    if any(references(plain)) or is_inline(plain):
        return plain
    return encoder.save(plain, name, Output(), type(plain)).to_json()


def _decode(stored: Any) -> Any:
    decoder = Decoder(store=artifact_store(), scratch=process_folder())

    def loaded(reference: Any) -> Any:
        return decoder.load(reference, "xcom", Any, Parameter(), "")

    value = loaded(stored) if is_reference(stored) else stored
    if type(value) not in (list, dict):
        return value
    plain = BaseXCom.deserialize_value(SimpleNamespace(value=value))
    return replaced(plain, loaded)


def _is_data(value: Any) -> bool:
    return isinstance(value, Artifact | Path) or formats.has_own_format(type(value))
