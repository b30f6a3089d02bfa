"""What Airflow asks of a provider package."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata (schema: Airflow's ``provider_info.schema.json``)."""
    return {
        # Must be the distribution's name with hyphens: anything else stops discovery of all providers.
        "package-name": "airflow-provider-dbnd",
        "name": "DBND",
        "description": "Typed Python functions become Airflow tasks, with parameters, artifacts and tracking.",
        "versions": ["0.1.0"],
        "task-decorators": [
            {"name": "dbnd", "class-name": "airflow_provider_dbnd.decorators.task.task"},
            {"name": "dbnd_sensor", "class-name": "airflow_provider_dbnd.decorators.sensor.sensor"},
        ],
        "connection-types": [
            {
                "connection-type": "dbnd",
                "hook-class-name": "airflow_provider_dbnd.hooks.dbnd.DbndHook",
                "hook-name": "DBND artifact store",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port", "login", "password"],
                    "relabeling": {"host": "Store URL"},
                    "placeholders": {
                        "host": "s3://bucket/prefix",
                        "extra": '{"storage_options": {"endpoint_url": "https://..."}}',
                    },
                },
                "conn-fields": {},
            }
        ],
        "config": {
            "dbnd": {
                "description": "Settings of airflow-provider-dbnd.",
                "options": {
                    "store": {
                        "description": "URL of the artifact store: a path, file://, s3://conn_id@bucket/prefix, gs://, "
                        "abfs://, webhdfs://. Empty means AIRFLOW_HOME/dbnd/store, which only serves one machine.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/dbnd",
                        "default": "",
                    },
                    "environment": {
                        "description": "The [environments.NAME] table of dbnd.toml that holds for this deployment.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "prod",
                        "default": "",
                    },
                    "config_file": {
                        "description": "Path of dbnd.toml. Empty means the nearest one in or above the DAG file's folder.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": None,
                        "default": "",
                    },
                },
            }
        },
        "cli": ["airflow_provider_dbnd.cli.airflow.get_commands"],
    }
