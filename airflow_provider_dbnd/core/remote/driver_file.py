"""The program that starts tasks, as a file in the store: for services that run files, not commands."""

from __future__ import annotations

import functools
import inspect

from airflow_provider_dbnd.core.remote import bootstrap
from airflow_provider_dbnd.core.remote.bundle import CODE
from airflow_provider_dbnd.core.spark.session import hadoop_url
from airflow_provider_dbnd.core.storage.claims import claim_keys
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore


@functools.cache
def driver_source() -> str:
    """Return the text of the program; it takes the arguments of a job."""
    return inspect.getsource(bootstrap)


def driver_key() -> str:
    """Return the key of the program, which names its bytes."""
    return key(CODE, f"bootstrap-{bootstrap.sha256(driver_source().encode())[:32]}.py")


def driver_file(store: ArtifactStore) -> str:
    """Put the program into the store, or keep what is there, and return its URI."""
    where = driver_key()
    if not store.exists(where):
        return store.put_bytes(where, driver_source().encode())
    claim_keys(store, [where])
    return store.uri(where)


def driver_url(store: ArtifactStore) -> str:
    """Put the program into the store and return its URL as Hadoop writes it."""
    uri = driver_file(store)
    return hadoop_url(uri, store.filesystem(uri))
