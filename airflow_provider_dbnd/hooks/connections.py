"""Airflow connections as fsspec storage options, without the providers of the clouds.

Each connection type keeps the fields its own provider gives it; ``storage_options`` in the extra
of any type go to fsspec as they are, over the rest. Types ``generic`` and ``dbnd`` have only them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_dbnd.core.storage.filesystem import SCHEMES, register_connection_options
from airflow_provider_dbnd.exceptions import ConfigurationError

Extra = Mapping[str, Any]
_ANY_CLOUD = {"generic", "dbnd"}


def register() -> None:
    """Let ``scheme://conn_id@...`` URLs use Airflow connections in this process."""
    register_connection_options(connection_options)


def connection_options(conn_id: str, scheme: str) -> Mapping[str, Any]:
    """Return the fsspec options that Airflow connection *conn_id* means for *scheme*."""
    connection = find(
        conn_id,
        f"or leave '{conn_id}@' out of the URL to use the credentials of the environment",
    )
    protocol = SCHEMES[scheme].protocol
    types, read = _READERS[protocol]
    kind = (connection.conn_type or "generic").lower()
    if kind not in types | _ANY_CLOUD:
        raise ConfigurationError(
            f"connection {conn_id!r} is of type {kind!r}, but {scheme}:// expected one of "
            f"{', '.join(sorted(types | _ANY_CLOUD))}"
        )
    options = {} if kind in _ANY_CLOUD else read(connection, _extra(connection, conn_id))
    options = {**options, **explicit_options(connection, conn_id)}
    return {name: value for name, value in options.items() if value is not None}


def explicit_options(connection: Any, conn_id: str) -> Mapping[str, Any]:
    """Return the fsspec options that the extra of a connection gives as they are."""
    options = _extra(connection, conn_id).get("storage_options", {})
    if not isinstance(options, Mapping):
        raise ConfigurationError(
            f"connection {conn_id!r}: 'storage_options' in the extra must be an object"
        )
    return options


def find(conn_id: str, otherwise: str = "or name another one") -> Any:
    """Return an Airflow connection; where there is none the error says what to do, or *otherwise*."""
    from airflow.providers.common.compat.sdk import AirflowException
    from airflow.sdk import BaseHook

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowException as exc:
        raise ConfigurationError(
            f"connection {conn_id!r} is not defined: add it in Airflow (Admin > Connections, "
            f"'airflow connections add {conn_id}' or AIRFLOW_CONN_{conn_id.upper()}), {otherwise}"
        ) from exc


def _extra(connection: Any, conn_id: str) -> Extra:
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        # The text may hold secrets, so neither it nor the parser's error is shown.
        extra = None
    if not isinstance(extra, dict):
        raise ConfigurationError(f"connection {conn_id!r}: the extra must be a JSON object")
    # Connections made by older forms prefix their fields: extra__wasb__tenant_id.
    prefix = f"extra__{connection.conn_type}__"
    return {name.removeprefix(prefix): value for name, value in extra.items() if value != ""}


def _s3(connection: Any, extra: Extra) -> dict[str, Any]:
    service = extra.get("service_config", {}).get("s3", {})
    client = {"region_name": extra.get("region_name"), "verify": extra.get("verify")}
    options: dict[str, Any] = {
        "key": connection.login or extra.get("aws_access_key_id"),
        "secret": connection.password or extra.get("aws_secret_access_key"),
        "token": extra.get("aws_session_token"),
        "profile": extra.get("profile_name"),
        "endpoint_url": service.get("endpoint_url") or extra.get("endpoint_url"),
        "client_kwargs": {name: value for name, value in client.items() if value is not None},
        "config_kwargs": extra.get("config_kwargs"),
    }
    if (extra.get("config_kwargs") or {}).get("signature_version") == "unsigned":
        options |= {"anon": True, "config_kwargs": None}
    if role := extra.get("role_arn"):
        options |= _assume_role(role, options, extra)
    return options


def _assume_role(role: str, options: Mapping[str, Any], extra: Extra) -> dict[str, Any]:
    from botocore.session import Session  # type: ignore[import-untyped,unused-ignore]

    service = extra.get("service_config", {}).get("sts", {})
    sts = Session(profile=options["profile"]).create_client(
        "sts",
        aws_access_key_id=options["key"],
        aws_secret_access_key=options["secret"],
        aws_session_token=options["token"],
        endpoint_url=service.get("endpoint_url") or extra.get("endpoint_url"),
        **{"region_name": "us-east-1", **options["client_kwargs"]},
    )
    arguments = dict(extra.get("assume_role_kwargs", {}))
    if external_id := extra.get("external_id"):
        arguments["ExternalId"] = external_id
    answer = sts.assume_role(RoleArn=role, RoleSessionName="dbnd", **arguments)["Credentials"]
    return {
        "profile": None,
        "key": answer["AccessKeyId"],
        "secret": answer["SecretAccessKey"],
        "token": answer["SessionToken"],
        # They differ each time, and fsspec would keep the file system of each for ever.
        "skip_instance_cache": True,
    }


def _gcs(_: Any, extra: Extra) -> dict[str, Any]:
    keyfile = extra.get("keyfile_dict")
    token = json.loads(keyfile) if isinstance(keyfile, str) else keyfile
    if extra.get("is_anonymous"):
        token = "anon"  # noqa: S105 - gcsfs's word for none
    return {
        "token": token or extra.get("key_path"),
        "project": extra.get("project"),
        "endpoint_url": extra.get("endpoint_url"),
    }


def _azure(connection: Any, extra: Extra) -> dict[str, Any]:
    if connection_string := extra.get("connection_string"):
        return {"connection_string": connection_string}
    host = (connection.host or "").partition("://")[2] or connection.host or ""
    account = extra.get("account_name") or host.partition(".")[0]
    if tenant_id := extra.get("tenant_id"):
        return {
            "account_name": account,
            "tenant_id": tenant_id,
            "client_id": connection.login or extra.get("client_id"),
            "client_secret": connection.password or extra.get("client_secret"),
        }
    return {
        "account_name": connection.login or account,
        "account_key": connection.password or extra.get("account_key"),
        "sas_token": extra.get("sas_token"),
        "account_host": host if "." in host else None,
    }


def _webhdfs(connection: Any, extra: Extra) -> dict[str, Any]:
    if "," in (connection.host or ""):
        raise ConfigurationError(
            f"connection {connection.conn_id!r}: expected one WebHDFS host, got a list; name the "
            f"active name node or an HttpFS gateway"
        )
    return {
        **_hdfs(connection, extra),
        "password": connection.password,
        "use_https": extra.get("use_ssl"),
        "session_verify": extra.get("verify"),
        "session_cert": extra.get("cert"),
        "kerberos": extra.get("kerberos"),
    }


def _hdfs(connection: Any, _: Extra) -> dict[str, Any]:
    return {"host": connection.host, "port": connection.port, "user": connection.login}


_READERS: dict[str, tuple[set[str], Callable[[Any, Extra], dict[str, Any]]]] = {
    "s3": ({"aws"}, _s3),
    "gs": ({"google_cloud_platform"}, _gcs),
    "abfs": ({"wasb", "adls", "azure_data_lake"}, _azure),
    "webhdfs": ({"webhdfs", "hdfs"}, _webhdfs),
    "hdfs": ({"hdfs", "webhdfs"}, _hdfs),
}
