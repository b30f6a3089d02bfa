"""What went wrong at a store, told to who can fix it.

Each client library has its own exceptions; they are told apart by name, HTTP status and errno, so
that none has to be imported here.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from airflow_provider_dbnd.core.storage.filesystem import kind_of, redact, scheme_of
from airflow_provider_dbnd.exceptions import DbndError, StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_CREDENTIALS = (
    "NoCredentials",
    "PartialCredentials",
    "DefaultCredentialsError",
    "CredentialUnavailable",
    "Must provide either a connection_string or account_name",
    "Unable to locate credentials",
    "Anonymous caller",
)
_DENIED = (
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "AccessDenied",
    "Forbidden",
    "AuthenticationFailed",
    "ClientAuthenticationError",
    "RefreshError",
    "ExpiredToken",
    "InvalidToken",
)
_NO_CONTAINER = ("NoSuchBucket", "bucket does not exist", "ContainerNotFound", "No such container")
_UNREACHABLE = (
    "EndpointConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "ClientConnector",
    "ClientOSError",
    "ServerDisconnected",
    "ServiceRequestError",
    "ServiceResponseError",
    "ConnectionClosedError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "FSTimeoutError",
    "TimeoutError",
    "gaierror",
)
_AMBIENT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_CONNECTION_STRING",
}
_ENDPOINT = {
    "s3": "AWS_ENDPOINT_URL_S3",
    "gs": "STORAGE_EMULATOR_HOST",
    "abfs": "AZURE_STORAGE_CONNECTION_STRING",
}


@contextlib.contextmanager
def store_errors(uri: str, doing: str) -> Iterator[None]:
    """Turn whatever a client library raises inside into one :class:`StoreError`.

    :param doing: what was attempted, as in "cannot <doing> <uri>".
    """
    try:
        yield
    except DbndError:
        raise
    except Exception as exc:
        error = store_error(exc, uri, doing)
        # A chained error is printed as well, so one that quotes a secret must not be.
        if any(redact(str(each)) != str(each) for each in _chain(exc)):
            raise error from None
        raise error from exc


def store_error(exc: BaseException, uri: str, doing: str) -> StoreError:
    """Return the error that names *uri*, what was attempted, the cause and the remedy."""
    cause = redact(f"{type(exc).__name__}: {exc}".rstrip(": ").strip())
    return StoreError(f"cannot {doing} {redact(uri)}: {cause[:600]}. {_remedy(exc, uri)}")


def missing_container(exc: BaseException) -> bool:
    """Tell whether *exc* says that the bucket or container itself is not there."""
    return _says(exc, _NO_CONTAINER)


def is_full(exc: BaseException) -> bool:
    """Tell whether *exc* says that a disk or a quota is full."""
    return bool({each.errno for each in _chain(exc) if isinstance(each, OSError)} & _FULL)


def http_statuses(exc: BaseException) -> set[int]:
    """Return the HTTP statuses that *exc* and what it was raised from carry."""
    return {status for each in _chain(exc) if (status := _status(each)) is not None}


def _remedy(exc: BaseException, uri: str) -> str:
    scheme = scheme_of(uri)
    if is_full(exc):
        return "The disk or its quota is full: free space, or set [dbnd] store to another place"
    if scheme == "file":
        return "Check that the folder can be read and written, or set [dbnd] store to another one"
    return _remote_remedy(exc, scheme)


def _remote_remedy(exc: BaseException, scheme: str) -> str:
    kind = kind_of(scheme)
    statuses = http_statuses(exc)
    remedy = "Try again; if it stays, the cause above comes from the store itself"
    if _says(exc, _NO_CREDENTIALS):
        ambient = f" or set {_AMBIENT[kind]}" if kind in _AMBIENT else ""
        remedy = f"No credentials were found: name a connection ({scheme}://CONN_ID@...){ambient}"
    elif _says(exc, _NO_CONTAINER):
        remedy = "Create the bucket or container, or correct the name"
    elif isinstance(exc, PermissionError) or statuses & {401, 403} or _says(exc, _DENIED):
        remedy = "The credentials were refused: check them and what they are allowed to do there"
    elif _says(exc, _UNREACHABLE):
        endpoint = f" (connection or {_ENDPOINT[kind]})" if kind in _ENDPOINT else ""
        remedy = f"The server did not answer: check the network and the endpoint{endpoint}"
    elif isinstance(exc, FileNotFoundError) or 404 in statuses:
        remedy = "Create the bucket or folder, or correct the name"
    return remedy


def _chain(exc: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = exc
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _says(exc: BaseException, signs: tuple[str, ...]) -> bool:
    told = " ".join(f"{_family(each)} {each}" for each in _chain(exc))
    return any(sign in told for sign in signs)


def _family(exc: BaseException) -> str:
    return " ".join(kind.__name__ for kind in type(exc).__mro__)


def _status(exc: BaseException) -> int | None:
    """Return the HTTP status *exc* carries, in the places the client libraries put it."""
    for holder in (exc, getattr(exc, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    response = getattr(exc, "response", None)
    if isinstance(response, dict):
        value = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return value if isinstance(value, int) else None
    return None
