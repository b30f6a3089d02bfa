"""What the commands on past runs share: the store they read, times, and JSON."""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_dbnd.core.settings import Settings, load_settings
from airflow_provider_dbnd.core.storage.store import ArtifactStore

if TYPE_CHECKING:
    from airflow_provider_dbnd.core.gc import Policy


def open_store(url: str | None, environment: str | None, *, airflow: bool) -> ArtifactStore:
    """Return the store of --store, else of the settings.

    :param airflow: whether Airflow's configuration and connections apply, as in `airflow dbnd`.
    """
    settings = settings_of(environment, airflow=airflow)
    settings = replace(settings, store=url) if url else settings
    if not airflow:
        return ArtifactStore(settings.store, storage_options=settings.storage_options)
    from airflow_provider_dbnd.hooks.settings import artifact_store

    return artifact_store(settings)


def settings_of(environment: str | None, *, airflow: bool) -> Settings:
    """Return the settings of this folder, or with *airflow* those of the dags folder."""
    if not airflow:
        return load_settings(os.getcwd(), environment=environment)
    from airflow_provider_dbnd.hooks.settings import airflow_settings, dags_folder

    settings = airflow_settings(dags_folder())
    if environment is None:
        return settings
    default = (settings.store, settings.store_source)
    return load_settings(settings.base, environment=environment, store=default, file=settings.file)


def policy_of_settings(environment: str | None, *, airflow: bool, **given: Any) -> Policy:
    """Return the policy of [gc] in the settings, with what is *given* on the command line first."""
    from airflow_provider_dbnd.core.gc import Policy

    return Policy.of(settings_of(environment, airflow=airflow).gc, **given)


def time_text(time: dt.datetime) -> str:
    """Return a time for a table, in UTC."""
    return f"{time.astimezone(dt.timezone.utc):%Y-%m-%d %H:%M:%S}Z"


def print_json(value: Any) -> None:
    """Print *value*, which is plain JSON, for another program."""
    print(json.dumps(value, indent=2, allow_nan=False))
