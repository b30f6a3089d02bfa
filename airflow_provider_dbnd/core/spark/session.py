"""Spark, where the user's code brings it: the session, and the store's URLs as Hadoop writes them.

The executors read and write the store themselves, through Hadoop's file systems. What is known here
of an S3 store goes along as options of the one read or write; any other store is configured in Spark,
as for any job.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_dbnd.core.conversion import is_class, without_none
from airflow_provider_dbnd.core.storage.filesystem import kind_of, parse, redact
from airflow_provider_dbnd.exceptions import ConfigurationError, MissingDependencyError

#: How the executors write, whatever the session says: dates and times as other engines read them.
WRITING = {
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.writeLegacyFormat": "false",
}

#: Set on functions that declare a Spark program which is none of ours.
PROGRAM = "dbnd_spark_program"

#: How the client without Spark says that it knows no server.
_NO_REMOTE = "CONNECT_URL_NOT_SET"

_GLOB = re.compile(r"([\\*?\[\]{}])")
_AZURE_DOMAIN = "dfs.core.windows.net"


def is_session(annotation: Any) -> bool:
    """Tell whether an annotation is ``pyspark.sql.SparkSession``, without importing it."""
    wanted = without_none(annotation)
    return is_class(wanted) and any(
        kind.__qualname__ == "SparkSession" and kind.__module__.startswith("pyspark.sql.")
        for kind in wanted.__mro__
    )


def session() -> Any:
    """Return the active Spark session, or a new one as the environment configures it."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as exc:
        raise MissingDependencyError(
            "Spark frames need pyspark: pip install 'airflow-provider-dbnd[spark]'"
        ) from exc
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    try:
        made = SparkSession.builder.getOrCreate()
    except Exception as exc:
        if _NO_REMOTE not in str(exc):
            raise
        raise MissingDependencyError(
            "the pyspark installed here is only the client of Spark Connect: set SPARK_REMOTE to a "
            "server, run the task with an engine of type spark, or pip install pyspark"
        ) from exc
    context = getattr(made, "_sc", None)
    if context is not None and context.master.startswith("local"):
        # Spark would take the first python3 on the path, which may not have what is imported here.
        context.pythonExec = os.environ.get("PYSPARK_PYTHON", sys.executable)
    return made


def hadoop_url(uri: str, fs: Any) -> str:
    """Return *uri* as Hadoop writes it.

    :param fs: the fsspec file system of *uri*, which knows what a connection leaves out of it
    """
    where = parse(uri)
    kind = kind_of(where.scheme)
    if kind == "file":
        return f"file://{where.path}"
    if kind == "s3":
        return f"s3a://{where.host}{where.path}"
    if kind == "gs":
        return f"gs://{where.host}{where.path}"
    if kind == "abfs":
        account = where.account or f"{fs.account_name}.{_AZURE_DOMAIN}"
        return f"abfss://{where.host}@{account}{where.path}"
    if kind in ("hdfs", "webhdfs"):
        return f"{where.scheme}://{where.host or _authority(fs)}{where.path}"
    raise ConfigurationError(
        f"Spark's executors do not reach {redact(uri)}: expected s3, gs, abfs, hdfs, webhdfs or a "
        "shared folder. Name such a place, in [dbnd] store for what tasks write"
    )


def literal(url: str) -> str:
    """Return a URL that Spark takes for one path and not for a pattern."""
    return _GLOB.sub(r"\\\1", url)


def hadoop_options(uri: str, fs: Any) -> dict[str, str]:
    """Return what Hadoop has to know to reach an S3 store as we do: endpoint and credentials."""
    where = parse(uri)
    if kind_of(where.scheme) != "s3":
        return {}
    given = _s3_settings(fs)
    return {f"fs.s3a.bucket.{where.host}.{name}": text for name, text in given.items() if text}


@contextlib.contextmanager
def writing(spark: Any) -> Iterator[None]:
    """Let *spark* write as :data:`WRITING` says, meanwhile."""
    with _settings_lock:
        _writers[id(spark)] = _writers.get(id(spark), 0) + 1
        if _writers[id(spark)] == 1:
            _before[id(spark)] = {name: spark.conf.get(name, None) for name in WRITING}
            _set(spark, WRITING)
    try:
        yield
    finally:
        with _settings_lock:
            _writers[id(spark)] -= 1
            if not _writers[id(spark)]:
                del _writers[id(spark)]
                _set(spark, _before.pop(id(spark)))


# Tasks of several threads may share a session.
_settings_lock = threading.Lock()
_writers: dict[int, int] = {}
_before: dict[int, dict[str, str | None]] = {}


def _set(spark: Any, settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            spark.conf.unset(name)
        else:
            spark.conf.set(name, value)


def _authority(fs: Any) -> str:
    host, port = fs.storage_options.get("host", ""), fs.storage_options.get("port")
    return f"{host}:{port}" if port else str(host)


def _s3_settings(fs: Any) -> dict[str, str]:
    client = fs.client_kwargs or {}
    endpoint = (
        getattr(fs, "endpoint_url", None)
        or client.get("endpoint_url")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    token = fs.token or ""
    provider = "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider" if token else ""
    return {
        "endpoint": endpoint or "",
        "endpoint.region": client.get("region_name") or "",
        # Buckets as host names are Amazon's own.
        "path.style.access": "true" if endpoint else "",
        "access.key": fs.key or "",
        "secret.key": fs.secret or "",
        "session.token": token,
        "aws.credentials.provider": provider,
    }
