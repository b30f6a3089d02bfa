"""Start a task where nothing of this package is installed: ``python -c THIS_TEXT SPEC [OPTIONS]``.

It fetches the task's spec and the archives the spec names, puts them on the path and hands over to
``core.remote.run``. It runs before this package is there, so it imports nothing of it, and of other
libraries only fsspec, where the store is not a local folder.

:param SPEC: URI of the spec.
:param OPTIONS: fsspec options by scheme, as JSON.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import zipfile
from typing import Any, Dict  # noqa: UP035 - this line has to import where Python is too old

Options = Dict[str, Dict[str, Any]]  # noqa: UP006

#: Exit code of a job that left no result, neither the task's own nor its error.
NOT_STARTED = 64

#: Exit code of a job that was told to stop.
STOPPED = 128 + signal.SIGTERM

#: Seconds that a job has to end by itself; Docker kills it after 10, Kubernetes after 30.
_PATIENCE = 8

#: Schemes that are one and the same, and the names under which options are given.
_ALIASES = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "https": "http"}
_HDFS = ("hdfs", "webhdfs")


class StartError(Exception):
    """A job cannot start here; the message says why, and what to do."""


class JobStoppedError(BaseException):
    """SIGTERM: who runs the job wants it to end."""


def main(uri: str, options: Options = {}) -> int:  # noqa: B006 - only read
    """Run the task of the spec at *uri*; return the exit code."""
    into = None
    try:
        into = tempfile.mkdtemp(prefix="dbnd-job-")
        _stop_when_told(into)
        prepare(_archives(uri, options), into, options)
        from airflow_provider_dbnd.core.remote.run import run

        return run(uri, options)
    except JobStoppedError:
        # Why is the engine's to tell.
        return STOPPED
    except BaseException as exc:  # noqa: BLE001 - recorded where the worker reads it
        _record(exc, failure_uri(uri), options)
        return NOT_STARTED
    finally:
        if into is not None:
            shutil.rmtree(into, ignore_errors=True)


def prepare(archives: list[dict[str, Any]], into: str, options: Options) -> None:
    """Put code on the path, and the project's where ``DBND_PROJECT`` says."""
    if sys.version_info < (3, 10):  # noqa: UP036 - an image may have any
        found = sys.version.split()[0]
        raise StartError(f"Python {found} is too old: expected 3.10 or newer in the image")
    unfit = {}
    for archive in archives:
        module, python = archive["module"], archive["python"]
        # A library of the image's own is the one that its other libraries go with.
        if module is not None and importlib.util.find_spec(module) is not None:
            continue
        if python not in (None, python_tag()):
            unfit[module] = python
            continue
        folder = unpack(archive, into, options)
        if archive["kind"] == "project":
            os.environ["DBND_PROJECT"] = folder
        else:
            sys.path.insert(0, folder)
    if unfit:
        names, tags = ", ".join(unfit), ", ".join(sorted(set(unfit.values())))
        raise StartError(
            f"{names} of the worker ({tags}) cannot be loaded by the Python here ({python_tag()}). "
            f"Install {names} in the image, or take an image with the worker's version of Python"
        )


def unpack(archive: dict[str, Any], into: str, options: Options) -> str:
    """Fetch and verify one archive of the spec; return the folder it is in, below *into*."""
    data = read(archive["uri"], options)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            files = {name: zipped.read(name) for name in zipped.namelist()}
        found = digest_of({name: sha256(content) for name, content in files.items()})
    except Exception as exc:  # noqa: BLE001 - zipfile has many for what is no zip
        found = f"{type(exc).__name__}: {exc}"
    if found != archive["digest"]:
        raise StartError(
            f"{archive['uri']} is damaged: expected content {archive['digest']}, found {found}. "
            "Delete it and run the task again"
        )
    folder = os.path.join(into, archive["module"] or archive["kind"])
    for name, content in files.items():
        path = os.path.join(folder, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    return folder


def digest_of(hashes: dict[str, str]) -> str:
    """Return the digest of an archive's content, from the hash of each file."""
    return sha256("".join(f"{name}\0{hashes[name]}\n" for name in sorted(hashes)).encode())


def sha256(data: bytes) -> str:
    """Return the hex digest of *data*."""
    return hashlib.sha256(data).hexdigest()


def python_tag() -> str:
    """Return which compiled libraries this Python can load."""
    return importlib.machinery.EXTENSION_SUFFIXES[0].strip(".").rpartition(".")[0]


def failure_uri(uri: str) -> str:
    """Return where a job records why it left no result; *uri* is its spec."""
    return uri[: -len(".json")] + ".failure.json"


def read(uri: str, options: Options) -> bytes:
    """Return the bytes at *uri*."""
    if uri.startswith("file://"):
        with open(uri[7:], "rb") as file:
            return file.read()
    fs, path = filesystem(uri, options)
    data: bytes = fs.cat_file(path)
    return data


def write(uri: str, data: bytes, options: Options) -> None:
    """Write *data* to *uri*."""
    if uri.startswith("file://"):
        os.makedirs(os.path.dirname(uri[7:]), exist_ok=True)
        with open(uri[7:], "wb") as file:
            file.write(data)
        return
    fs, path = filesystem(uri, options)
    fs.pipe_file(path, data)


def filesystem(uri: str, options: Options) -> tuple[Any, str]:
    """Return the fsspec file system and path of *uri*."""
    scheme = uri.partition("://")[0]
    try:
        import fsspec
    except ImportError:
        raise StartError(
            f"the image has no fsspec, which is needed to read {scheme}:// stores. Install fsspec "
            "and the library of the store (s3fs, gcsfs, adlfs, ...) in the image"
        ) from None
    protocol = _ALIASES.get(scheme, scheme)
    given = {**(options.get(protocol) or {}), **(options.get(scheme) or {})}
    if protocol == "gs" and (given.get("endpoint_url") or "STORAGE_EMULATOR_HOST" in os.environ):
        # Asking another endpoint for the type of a bucket takes a minute.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    fs, path = fsspec.core.url_to_fs(without_connection(uri), **given)
    return fs, path


def without_connection(uri: str) -> str:
    """Return *uri* without a connection of Airflow: here, credentials are ambient."""
    scheme, _, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    parts = place.split("@")
    if scheme in _HDFS and parts[-1]:
        kept = place  # USER@HOST
    elif _ALIASES.get(scheme, scheme) == "abfs" and "." in parts[-1]:
        kept = "@".join(parts[-2:])  # CONTAINER@ACCOUNT
    else:
        kept = parts[-1]
    return f"{scheme}://{kept}{slash}{path}"


def _archives(uri: str, options: Options) -> list[dict[str, Any]]:
    data = read(uri, options)
    try:
        return list(json.loads(data)["code"]["archives"])
    except (ValueError, KeyError, TypeError) as exc:
        raise StartError(
            f"{uri} is not the spec of a task: {type(exc).__name__}: {exc}. Run the task again"
        ) from exc


def _record(error: BaseException, uri: str, options: Options) -> None:
    """Tell why there is no result: the log, and the store, where the worker looks for it."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if "StartError" in kinds or "DbndError" in kinds:
        reason, trace = str(error), ""
    else:
        reason = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    print(f"dbnd: the task left no result: {reason}\n{trace}", file=sys.stderr, flush=True)
    try:
        write(uri, json.dumps({"reason": reason}).encode(), options)
    except Exception as exc:  # noqa: BLE001 - the reason is in the log
        print(
            f"dbnd: {uri} cannot be written: {type(exc).__name__}: {exc}",
            file=sys.stderr,
            flush=True,
        )


def _stop_when_told(into: str) -> None:
    """Let SIGTERM end the task as an exception would: the kernel ends it otherwise, or ignores it.

    It ignores it for the first process of a container. Where somebody else deals with it nothing changes.
    """
    job = os.getpid()
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def end() -> None:
        shutil.rmtree(into, ignore_errors=True)
        os._exit(STOPPED)

    def stop(*_: Any) -> None:
        if os.getpid() != job:  # a child that the task forked
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        signal.signal(signal.SIGTERM, lambda *_: end())
        # A task may catch everything, or have threads that do not end.
        timer = threading.Timer(_PATIENCE, end)
        timer.daemon = True
        timer.start()
        raise JobStoppedError("the job was told to stop (SIGTERM)")

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    code = main(sys.argv[1], *map(json.loads, sys.argv[2:3]))
    # Not for 0: Databricks takes any exit of a program for a failure.
    if code:
        sys.exit(code)
