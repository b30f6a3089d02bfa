"""What engines over Spark are told in the same words: lists as lists or text, ``conf`` as a table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_dbnd.core.settings import merged_options
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ConfigurationError

#: Options of SparkSubmitOperator that are several files or coordinates.
LISTS = ("files", "py_files", "archives", "jars", "packages", "exclude_packages", "repositories")

#: Set for every task by itself.
OURS = ("application", "application_args", "java_class")

#: What Python programs are run by, on the driver and on executors.
PYTHON = "spark.pyspark.python"


def not_durable(operator: type) -> dict[str, Any]:
    """Return the option that turns off what *operator* itself does to take up a job, if it does that.

    Our own record of the job holds with any version of Airflow and in every mode, and it knows which
    spec the job runs.
    """
    takes = "durable" in inspect.signature(vars(operator)["__init__"]).parameters
    return {"durable": False} if takes else {}


Option = Callable[[Any], dict[str, Any]]


def conf(table: Mapping[str, Any] | None) -> dict[str, str]:
    """Return Spark's configuration with dotted names and values as Spark writes them.

    TOML reads ``spark.sql.shuffle.partitions = 8`` without quotes as tables in tables.

    >>> conf({"spark": {"sql": {"shuffle.partitions": 8}}, "spark.speculation": True})
    {'spark.sql.shuffle.partitions': '8', 'spark.speculation': 'true'}
    """
    return dict(_flat(table or {}))


def as_list(value: Any) -> list[str]:
    """Return several names given as a list, or as text with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value or ())


def as_text(value: Any) -> str | None:
    """Return several names as text with commas, and None for none."""
    return ",".join(as_list(value)) or None


def for_livy(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``[tasks.x.spark]`` says, as options of Livy: what describes the job, by its meaning.

    How spark-submit is called, and what it connects to, says nothing there.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name in _FOR_LIVY:
            found = merged_options(found, _FOR_LIVY[name](value))
        elif name not in _FOR_SUBMIT:
            known = (*_FOR_LIVY, *_FOR_SUBMIT)
            raise ConfigurationError(f"[spark]: unknown option {name!r}{did_you_mean(name, known)}")
    return found


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, bool):
            yield f"{above}{name}", str(value).lower()
        else:
            yield f"{above}{name}", str(value)


def _same(name: str) -> Option:
    return lambda value: {name: value}


def _list(name: str) -> Option:
    return lambda value: {name: as_list(value)}


def _conf(name: str) -> Option:
    return lambda value: {"conf": {name: as_text(value) if isinstance(value, list) else str(value)}}


def _environment(value: Mapping[str, Any]) -> dict[str, Any]:
    # Outside YARN and Kubernetes a driver has the environment of Livy's server.
    prefixes = ("spark.yarn.appMasterEnv", "spark.kubernetes.driverEnv")
    return {"conf": {f"{p}.{name}": str(v) for p in prefixes for name, v in value.items()}}


_FOR_LIVY: Mapping[str, Option] = {
    **{
        name: _same(name)
        for name in (
            "driver_memory",
            "executor_memory",
            "executor_cores",
            "num_executors",
            "proxy_user",
            "python",
            "code",
        )
    },
    **{name: _list(name) for name in ("files", "py_files", "archives", "jars")},
    "conf": lambda value: {"conf": conf(value)},
    "yarn_queue": _same("queue"),
    # Livy refuses a name that one of its sessions has, so a retry could not start.
    "name": _conf("spark.app.name"),
    "packages": _conf("spark.jars.packages"),
    "exclude_packages": _conf("spark.jars.excludes"),
    "repositories": _conf("spark.jars.repositories"),
    "driver_class_path": _conf("spark.driver.extraClassPath"),
    "total_executor_cores": _conf("spark.cores.max"),
    "env_vars": _environment,
}

_FOR_SUBMIT = (
    "conn_id",
    "master",
    "deploy_mode",
    "spark_binary",
    "properties_file",
    "keytab",
    "principal",
    "use_krb5ccache",
    "verbose",
    "status_poll_interval",
    "post_submit_commands",
    "track_driver_via_k8s_api",
    "yarn_track_via_rm_api",
    "yarn_rm_auth",
    "durable",
    "reconnect_on_retry",
    "openlineage_inject_parent_job_info",
    "openlineage_inject_transport_info",
)
