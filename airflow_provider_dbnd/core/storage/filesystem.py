"""From a URL to a file system: schemes, their install hints, connections and ambient credentials.

A URL is ``scheme://[conn_id@]container/path``. What comes before ``@`` names a connection, as in
Airflow's ``ObjectStoragePath``, and is turned into options by the registered resolver; without it
fsspec's own ways apply (``FSSPEC_*``, ``AWS_*``, ``STORAGE_EMULATOR_HOST``, ``AZURE_STORAGE_*``).
Three schemes need a closer look:

- ``abfs://container@account.dfs.core.windows.net/path`` is Azure's own form: the part after ``@``
  has dots, which a container name cannot have, so nothing there is a connection. Both together:
  ``abfs://conn_id@container@account.dfs.core.windows.net/path``.
- ``webhdfs://user@host:port/path`` and ``hdfs://...`` name the HDFS user, as Hadoop does; a
  connection has no host: ``webhdfs://conn_id@/path``.
- other fsspec schemes (``sftp://user@host/path``) are passed on as they are.

Paths are taken literally, without percent decoding.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from airflow_provider_dbnd.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    ParameterError,
)

log = logging.getLogger(__name__)

ConnectionOptions = Callable[[str, str], Mapping[str, Any]]
"""Turns a connection id and a scheme into fsspec storage options."""

StorageOptions = Mapping[str, Mapping[str, Any]]
"""Explicit fsspec options by scheme: ``{"s3": {"endpoint_url": ...}}``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """How one scheme is reached: the module fsspec needs, and the extra that installs it."""

    protocol: str
    module: str = "fsspec"
    extra: str | None = None
    connection: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


# A listing cache would show a store as it was, not as it is.
_FRESH = {"use_listings_cache": False}
# botocore's default of 10 connections would be the limit of every parallel transfer.
_S3 = Scheme(
    protocol="s3",
    module="s3fs",
    extra="s3",
    options={**_FRESH, "config_kwargs": {"max_pool_connections": 32}},
)
_GCS = Scheme(protocol="gs", module="gcsfs", extra="gcs", options=_FRESH)
_AZURE = Scheme(protocol="abfs", module="adlfs", extra="azure", options=_FRESH)
_HTTP = Scheme(protocol="http", module="aiohttp", extra="http", connection=False)

SCHEMES: dict[str, Scheme] = {
    "file": Scheme(protocol="file", connection=False),
    "memory": Scheme(protocol="memory", connection=False),
    "s3": _S3,
    "s3a": _S3,
    "gs": _GCS,
    "gcs": _GCS,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "az": _AZURE,
    "webhdfs": Scheme(protocol="webhdfs", module="requests", extra="hdfs"),
    "hdfs": Scheme(protocol="hdfs", module="pyarrow", extra="hdfs"),
    "http": _HTTP,
    "https": _HTTP,
}

_HDFS = {"webhdfs", "hdfs"}
_connection_options: ConnectionOptions | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """A URL taken apart. ``host`` is the bucket, the container or ``host:port``."""

    scheme: str
    host: str
    path: str
    conn_id: str | None = None
    user: str | None = None
    account: str | None = None

    def __str__(self) -> str:
        before = "".join(f"{part}@" for part in (self.conn_id, self.user) if part is not None)
        after = "" if self.account is None else f"@{self.account}"
        return f"{self.scheme}://{before}{self.host}{after}{self.path}"

    def at(self, path: str) -> Location:
        """Return the location of another *path* (with a leading slash) beside this one."""
        return replace(self, path=path)


def register_connection_options(resolver: ConnectionOptions | None) -> None:
    """Set who turns ``conn_id@`` into storage options; ``None`` leaves ambient credentials."""
    global _connection_options  # noqa: PLW0603 - one resolver a process, set at start-up
    _connection_options = resolver


def scheme_of(uri: str) -> str:
    """Return the scheme of *uri*; a plain path is ``file``.

    >>> scheme_of("s3://bucket/key"), scheme_of("data/raw.csv")
    ('s3', 'file')
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    return found[1].lower() if found else "file"


def kind_of(scheme: str) -> str:
    """Return the one name of a scheme and of its other names.

    >>> kind_of("s3a"), kind_of("sftp")
    ('s3', 'sftp')
    """
    return SCHEMES[scheme].protocol if scheme in SCHEMES else scheme


def absolute(uri: str, base: str) -> str:
    """Return *uri* as a full URL; a plain relative path is taken from folder or URL *base*.

    >>> absolute("data/raw.csv", "/project")
    'file:///project/data/raw.csv'
    >>> absolute("raw.csv", "s3://bucket/in")
    's3://bucket/in/raw.csv'
    """
    if "://" in uri:
        return uri
    if not uri.strip():
        raise ParameterError(
            "an empty path names nothing: expected the path or URL of a file, a folder or a pattern. "
            "'.' is the working folder."
        )
    path = os.path.expanduser(uri)
    if not os.path.isabs(path) and "://" in base:
        return base.rstrip("/") + "/" + os.path.normpath(path)
    return "file://" + os.path.normpath(os.path.join(os.path.abspath(base), path))


def parse(uri: str) -> Location:
    """Take *uri* apart and refuse one that carries a password."""
    scheme = scheme_of(uri)
    if "://" not in uri:
        return Location(scheme="file", host="", path=os.path.abspath(uri))
    netloc, slash, path = uri.partition("://")[2].partition("/")
    path = slash + path
    if scheme == "file":
        return _parse_file(uri, netloc, path)
    before, _, host = netloc.rpartition("@")
    if ":" in before or _has_password(uri):
        raise ConfigurationError(
            f"{scheme}://***@{uri.rpartition('@')[2]}: a URL must not carry a password; put the credentials in a connection "
            f"({scheme}://CONN_ID@...), in storage options or in the environment"
        )
    if kind_of(scheme) == "abfs" and before and "." in host:
        conn_id, _, container = before.rpartition("@")
        return Location(
            scheme=scheme, host=container, path=path, account=host, conn_id=conn_id or None
        )
    if scheme not in SCHEMES or (scheme in _HDFS and host):
        return Location(scheme=scheme, host=host, path=path, user=before or None)
    if before and not SCHEMES[scheme].connection:
        raise ConfigurationError(f"{redact(uri)}: a {scheme} URL takes no connection ('...@')")
    return Location(scheme=scheme, host=host, path=path, conn_id=before or None)


def filesystem(uri: str, storage_options: StorageOptions | None = None) -> tuple[Any, str]:
    """Return the fsspec file system of *uri* and the path of *uri* in it."""
    where = parse(uri)
    scheme = _scheme(where.scheme)
    options = {
        **_merge(scheme.options, _from_connection(where)),
        **_from_url(where),
    }
    for name in dict.fromkeys((scheme.protocol, where.scheme)):
        options = _merge(options, (storage_options or {}).get(name, {}))
    fs = _open(where, scheme, options)
    return fs, fs_path(where, fs)


def fs_path(where: Location, fs: Any) -> str:
    """Return how *fs* names *where*."""
    if where.scheme not in SCHEMES or where.scheme in ("http", "https"):
        return str(fs._strip_protocol(str(where)))
    if where.scheme == "memory":
        return f"/{where.host}{where.path}"
    return where.path if where.scheme in ("file", *_HDFS) else where.host + where.path


def check_storage_options(storage_options: Mapping[str, Any] | None) -> StorageOptions:
    """Return *storage_options* if it maps schemes to options, else tell how it must look."""
    for name, options in (storage_options or {}).items():
        if not isinstance(options, Mapping) or not (name in SCHEMES or _known_to_fsspec(name)):
            raise ConfigurationError(
                f"storage options: expected options by scheme, such as "
                f"{{'s3': {{'endpoint_url': ...}}}}, got key {name!r}"
            )
    return dict(storage_options or {})


_SECRETS = re.compile(
    r"((?:sig|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|"
    r"x-goog-credential|awsaccesskeyid|signature|accountkey|account_key|sharedaccesssignature|"
    r"sas_token|password|secret|client_secret|token|delegation|api_?key)(?:\\*['\"])?\s*[=:]\s*)"
    # To the end of the quotes, which may be escaped themselves, or of the word.
    r"(?:(\\*['\"])(?:(?!\2)(?:\\.|.))*(?:\2|$)|[^&;\s'\"<>\\]+)",
    re.IGNORECASE | re.MULTILINE,
)
# A password may hold "/", and then looks like a host with a path that has "@" in it. A host is what
# has a port, and a bucket has none; ARNs of S3 have colons, addresses of IPv6 are in brackets.
_USERINFO = re.compile(
    r"(\b(?:s3a?|gs|gcs|abfss?|az)://)(?!arn:)[^/@\s:]*:[^\s'\"<>]{0,500}@"
    r"|(://)(?!arn:|\[)[^/@\s:]*:(?:[^/\s]*|(?!:|\d+(?:[/?#]|$))[^\s'\"<>]{0,500})@",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return *text* without the passwords, keys and signatures that URLs and errors may carry.

    >>> redact("https://h/f.csv?sig=abc&x=1")
    'https://h/f.csv?sig=***&x=1'
    """
    return _SECRETS.sub(r"\1\2***\2", _USERINFO.sub(r"\1\2***@", text))


def _has_password(uri: str) -> bool:
    # In a text blanks and quotes end a URL, here they do not.
    found = _USERINFO.search(re.sub(r"[\s'\"<>]", "_", uri))
    return found is not None and found.start() <= uri.index("://")


def _parse_file(uri: str, netloc: str, path: str) -> Location:
    if netloc not in ("", "localhost"):
        raise ConfigurationError(
            f"{uri}: {netloc!r} stands where a host would; write file:///{netloc}{path} for an "
            f"absolute path or {netloc}{path} for a relative one"
        )
    return Location(scheme="file", host="", path=os.path.normpath(path or "/"))


def _scheme(name: str) -> Scheme:
    if name in SCHEMES:
        return SCHEMES[name]
    if _known_to_fsspec(name):
        return Scheme(protocol=name, connection=False)
    near = get_close_matches(name, SCHEMES, n=1, cutoff=0.5)
    raise ConfigurationError(
        f"unknown scheme {name!r}; "
        + (f"did you mean {near[0]!r}? " if near else "")
        + f"expected one of {', '.join(SCHEMES)} or another one that fsspec knows"
    )


def _known_to_fsspec(name: str) -> bool:
    import fsspec

    return name in fsspec.available_protocols()


def _from_connection(where: Location) -> Mapping[str, Any]:
    if where.conn_id is None:
        return {}
    if _connection_options is not None:
        return _connection_options(where.conn_id, where.scheme)
    _tell_ambient(where.conn_id, where.scheme)
    return {}


_told: set[tuple[str, str]] = set()


def _tell_ambient(conn_id: str, scheme: str) -> None:
    if (conn_id, scheme) not in _told:
        _told.add((conn_id, scheme))
        log.info(
            "connection %r of %s:// is not resolved outside Airflow; using ambient credentials",
            conn_id,
            scheme,
        )


def _from_url(where: Location) -> dict[str, Any]:
    if where.account is not None:
        account, _, domain = where.account.partition(".")
        options = {"account_name": account}
        if domain not in ("dfs.core.windows.net", "blob.core.windows.net"):
            options["account_host"] = where.account.replace(".dfs.", ".blob.", 1)
        return options
    if where.scheme in _HDFS and where.host:
        return _of_hdfs(where)
    return {}


#: A name, or an IPv6 address in brackets as HDFS' clients write it into URLs; and a port.
_HOST = re.compile(r"(\[[0-9a-f:.%\w]+\]|[^\[\]:]+)(?::(\d{1,5}))?", re.IGNORECASE)


def _of_hdfs(where: Location) -> dict[str, Any]:
    found = _HOST.fullmatch(where.host)
    if found is None:
        raise ConfigurationError(
            f"{redact(str(where))}: expected {where.scheme}://[USER@]HOST[:PORT]/PATH, with a number for "
            f"the port and an IPv6 address in brackets, got {where.host!r} for HOST[:PORT]"
        )
    options = {"host": found[1], "port": found[2] and int(found[2]), "user": where.user}
    return {name: value for name, value in options.items() if value}


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge option dicts; nested ones (``client_kwargs``, ``config_kwargs``) key by key."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[name] = {**below, **value}
        else:
            merged[name] = value
    return merged


def _open(where: Location, scheme: Scheme, options: Mapping[str, Any]) -> Any:
    import fsspec

    try:
        if scheme.protocol == "gs" and _custom_gcs_endpoint(options):
            return _gcs_without_probe(options)
        importlib.import_module(scheme.module)
        if where.scheme not in SCHEMES:
            return fsspec.core.url_to_fs(str(where), **options)[0]
        return fsspec.filesystem(scheme.protocol, **options)
    except ImportError as exc:
        install = (
            f"pip install 'airflow-provider-dbnd[{scheme.extra}]'" if scheme.extra else str(exc)
        )
        raise MissingDependencyError(f"{where.scheme}:// needs: {install}") from exc


def _gcs_without_probe(options: Mapping[str, Any]) -> Any:
    """Open GCS behind another endpoint, where asking for the bucket's type takes 60 s a bucket."""
    wanted = os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    gcsfs = importlib.import_module("gcsfs")
    # The variable is read when gcsfs is imported, which may have been before.
    probes = wanted.lower() in ("true", "1")
    return (gcsfs if probes else gcsfs.core).GCSFileSystem(**options)


def _custom_gcs_endpoint(options: Mapping[str, Any]) -> bool:
    return bool(options.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST"))
