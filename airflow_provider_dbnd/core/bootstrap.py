"""Start a task where nothing of this package is installed: ``python -c THIS_TEXT SPEC [OPTIONS]``.

It fetches the task's spec and the archives the spec names, puts them on the path and hands over to
``core.job``. It runs before this package is there, so it imports nothing of it, and of other
libraries only fsspec, where the store is not a local folder.

:param SPEC: URI of the spec.
:param OPTIONS: fsspec options by scheme, as JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import traceback
import zipfile
from typing import Any, Dict  # noqa: UP035 - this line has to import where Python is too old

Options = Dict[str, Dict[str, Any]]  # noqa: UP006

#: Exit code of a job that ended before the task's own code could start.
NOT_STARTED = 64


def filesystem(uri: str, options: Options) -> tuple[Any, str]:
    """Return the fsspec file system and path of *uri*."""
    scheme, _, rest = uri.partition("://")
    try:
        import fsspec
    except ImportError:
        raise ImportError(
            f"the image has no fsspec, which is needed to read {scheme}:// stores. Install fsspec "
            "and the library of the store (s3fs, gcsfs, adlfs, ...) in the image"
        ) from None
    _, at, after = rest.partition("@")
    # scheme://conn_id@bucket: connections of Airflow are not known here, credentials are ambient.
    plain = f"{scheme}://{after}" if at and "." not in after.partition("/")[0] else uri
    given = options.get(scheme) or {}
    fs, path = fsspec.core.url_to_fs(plain, **given)
    return fs, path


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


def unpack(archive: dict[str, Any], into: str, options: Options) -> str:
    """Fetch and verify one archive of the spec; return the folder it is in."""
    data = read(archive["uri"], options)
    found = hashlib.sha256(data).hexdigest()
    if found != archive["sha256"]:
        raise ValueError(
            f"{archive['uri']} is damaged: expected sha256 {archive['sha256']}, found {found}. "
            "Delete it and run the task again"
        )
    folder = os.path.join(into, archive["kind"])
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        zipped.extractall(folder)
    return folder


def prepare(spec: dict[str, Any], into: str, options: Options) -> None:
    """Put the spec's code on the path: ours first, borrowed libraries after the image's own."""
    if sys.version_info < (3, 10):  # noqa: UP036 - an image may have any
        raise RuntimeError(
            f"Python {sys.version.split()[0]} is too old: expected 3.10 or newer in the image"
        )
    folders = {}
    for archive in spec["code"]["archives"]:
        if archive["kind"] == "libraries" and archive["python"] != python_tag():
            os.environ["DBND_LIBRARIES_LEFT_OUT"] = archive["python"]
            continue
        folders[archive["kind"]] = unpack(archive, into, options)
    if "runner" in folders:
        sys.path.insert(0, folders["runner"])
    if "libraries" in folders:
        sys.path.append(folders["libraries"])
    if "project" in folders:
        os.environ["DBND_PROJECT"] = folders["project"]


def python_tag() -> str:
    """Return which compiled libraries this Python can load."""
    import sysconfig

    return f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"


def main(uri: str, options: Options = {}) -> int:  # noqa: B006 - only read
    """Run the task of the spec at *uri*; return the exit code."""
    into = tempfile.mkdtemp(prefix="dbnd-job-")
    spec = None
    try:
        spec = json.loads(read(uri, options))
        prepare(spec, into, options)
        from airflow_provider_dbnd.core.job import run

        return run(uri, options)
    except BaseException as exc:  # noqa: BLE001 - recorded where the worker reads it
        reason = f"{type(exc).__name__}: {exc}"
        print(f"dbnd: the task could not start: {reason}", file=sys.stderr, flush=True)
        failure = {"reason": reason, "traceback": traceback.format_exc()}
        if spec is not None:
            write(spec["failure"], json.dumps(failure).encode(), options)
        return NOT_STARTED
    finally:
        shutil.rmtree(into, ignore_errors=True)


if __name__ == "__main__":
    exit_code = main(sys.argv[1], *map(json.loads, sys.argv[2:3]))
    # Any exit, even with 0, is an exception to an interpreter that runs files and stays (Databricks).
    if exit_code:
        sys.exit(exit_code)
