"""Settings as Airflow gives them: the ``[dbnd]`` section, connections, AIRFLOW_HOME."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from airflow_provider_dbnd.core.settings import Settings, load_settings
from airflow_provider_dbnd.core.storage.store import ArtifactStore

SECTION = "dbnd"


def configuration() -> Any:
    """Return Airflow's configuration."""
    from airflow.providers.common.compat.sdk import conf

    return conf


def airflow_settings(folder: str) -> Settings:
    """Return the settings for code in *folder* of a dags folder."""
    conf = configuration()
    store = conf.get(SECTION, "store", fallback=None)
    source = "[dbnd] store of airflow.cfg"
    if not store:
        home = os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow"))
        store, source = os.path.join(home, "dbnd", "store"), "default"
    return load_settings(
        folder,
        environment=conf.get(SECTION, "environment", fallback=None) or None,
        store=(store, source),
        file=conf.get(SECTION, "config_file", fallback=None) or None,
    )


def artifact_store(settings: Settings | None = None) -> ArtifactStore:
    """Return the store of *settings*, or the one Airflow's configuration names."""
    settings = settings or airflow_settings(dags_folder())
    return store_at(settings.store, settings.storage_options)


def store_at(url: str, storage_options: Mapping[str, Any]) -> ArtifactStore:
    """Return the store at *url*, which may name an Airflow connection."""
    return _store(url, _Options(storage_options))


def dags_folder() -> str:
    """Return `[core] dags_folder`."""
    return str(configuration().get("core", "dags_folder", fallback=os.getcwd()))


class _Options(dict[str, Any]):
    """Storage options as a cache key, by content."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(sorted(self.items())))


@functools.cache
def _store(url: str, options: _Options) -> ArtifactStore:
    from airflow_provider_dbnd.hooks.connections import register

    register()
    return ArtifactStore(url, storage_options=options)
