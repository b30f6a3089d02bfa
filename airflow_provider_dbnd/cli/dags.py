"""Parsing DAG files the way Airflow does, for the commands that need to see what Airflow sees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.exceptions import ConfigurationError


def parse(path: str) -> Any:
    """Return Airflow's DagBag of a file or folder: its ``dags`` and ``import_errors``."""
    try:
        import airflow  # noqa: F401 - says early and clearly whether Airflow is here
    except ImportError as exc:
        raise ConfigurationError("This command needs Airflow: pip install apache-airflow.") from exc
    path = os.path.abspath(path)
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    # A bundle's folder is on the import path, so a DAG can import the files beside it.
    return _dag_bag_class()(dag_folder=path, bundle_path=Path(folder))


def _dag_bag_class() -> Any:
    try:
        from airflow.dag_processing.dagbag import BundleDagBag
    except ImportError:  # Airflow 3.1
        from airflow.models.dagbag import BundleDagBag  # type: ignore[no-redef, unused-ignore]
    return BundleDagBag


def dags_folder() -> str:
    """Return Airflow's dags folder."""
    from airflow_provider_dbnd.hooks.settings import dags_folder as configured

    return configured()
