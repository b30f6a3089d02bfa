"""A hook on an artifact store named by an Airflow connection."""

from __future__ import annotations

import functools
from typing import Any

from airflow.sdk import BaseHook

from airflow_provider_dbnd.core.storage.filesystem import scheme_of
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ConfigurationError, DbndError
from airflow_provider_dbnd.hooks import connections
from airflow_provider_dbnd.hooks.settings import artifact_store, store_at


class DbndHook(BaseHook):
    """The artifact store of connection *conn_id*: its host is the store's URL.

    Without a connection it is the store of the ``[dbnd]`` section.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "dbnd_default"
    conn_type = "dbnd"
    hook_name = "DBND artifact store"

    def __init__(self, conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The connection form of Airflow 3.1, which does not read it from provider metadata."""
        from airflow_provider_dbnd.get_provider_info import get_provider_info

        behaviour = get_provider_info()["connection-types"][0]["ui-field-behaviour"]
        return {key.replace("-", "_"): value for key, value in behaviour.items()}

    def get_conn(self) -> ArtifactStore:
        """Return the store."""
        return self.store

    @functools.cached_property
    def store(self) -> ArtifactStore:
        """The store this hook stands for."""
        if self.conn_id is None:
            return artifact_store()
        connection = connections.find(self.conn_id)
        if not connection.host:
            raise ConfigurationError(
                f"connection {self.conn_id!r} has no store URL: put it in its host field."
            )
        options = connections.explicit_options(connection, self.conn_id)
        return store_at(connection.host, {scheme_of(connection.host): options})

    def test_connection(self) -> tuple[bool, str]:
        """Write, read and delete a small object, for the "Test" button."""
        key = ArtifactStore.key("_test", "connection")
        try:
            self.store.put_bytes(key, b"dbnd", overwrite=True)
            self.store.get_bytes(key)
            self.store.delete(key)
        except DbndError as exc:
            return False, str(exc)
        return True, f"{self.store.url} can be written and read."
