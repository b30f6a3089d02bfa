"""The program that starts tasks, as a file in the store: for services that run files, not commands."""

from __future__ import annotations

import hashlib
import inspect

from airflow_provider_dbnd.core.remote import bootstrap
from airflow_provider_dbnd.core.remote.bundle import CODE
from airflow_provider_dbnd.core.spark.session import hadoop_url
from airflow_provider_dbnd.core.storage.store import ArtifactStore, key


def driver_source() -> str:
    """Return the text of the program; it takes the arguments of a job."""
    return inspect.getsource(bootstrap)


def driver_file(store: ArtifactStore) -> str:
    """Put the program into the store and return its URI there."""
    data = driver_source().encode()
    where = key(CODE, f"bootstrap-{hashlib.sha256(data).hexdigest()[:32]}.py")
    # The key names the bytes, so what is there is right.
    return store.uri(where) if store.exists(where) else store.put_bytes(where, data)


def driver_url(store: ArtifactStore) -> str:
    """Put the program into the store and return its URL as Hadoop writes it."""
    uri = driver_file(store)
    return hadoop_url(uri, store.filesystem(uri))
