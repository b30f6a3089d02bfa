"""The few things a store asks of a place that keeps objects, on local disk and elsewhere.

Paths are those of the file system. Errors are the library's own: the store explains them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from airflow_provider_dbnd.core.storage import transfer
from airflow_provider_dbnd.core.storage.object_info import modified, stamp_of

STAGING = ".staging"
"""Folder of a local store for what is being written; keys cannot start with a dot."""

_LARGEST_SYNCED = 32 * 2**20
"""Larger files reach the disk when the system writes them: waiting takes as long as writing twice.

What was written survives the death of the process, also by ``kill -9``, without any sync. Should the
power fail, the file's size or checksum tells the reader of the loss.
"""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_serial = itertools.count()


class Objects(Protocol):
    """A place that keeps objects."""

    def staging(self, suffix: str) -> contextlib.AbstractContextManager[str]:
        """Give a path for a new local file, removed at the end if it is still there."""

    def create(self, local: str, path: str) -> None:
        """Store file *local*; ``FileExistsError`` if *path* is taken. *local* may be gone then."""

    def create_bytes(self, data: bytes, path: str) -> None:
        """Store *data*; ``FileExistsError`` if *path* is taken."""

    def replace(self, local: str, path: str) -> None:
        """Store a copy of file *local*, over what is at *path*."""

    def replace_bytes(self, data: bytes, path: str) -> None:
        """Store *data* over what is at *path*."""

    def size(self, path: str) -> int | None:
        """Return the size of the object, ``None`` if there is none."""

    def found(self, path: str) -> tuple[int, float] | None:
        """Return size and modification time of the object, ``None`` if there is none."""

    def stamp(self, path: str) -> str | None:
        """Return what changes whenever the object is written, where the store keeps such a thing."""

    def read(self, path: str) -> bytes:
        """Return the bytes of a small object."""

    def delete(self, path: str) -> None:
        """Remove the object if it is there."""

    def walk(self, path: str) -> Iterator[tuple[str, int, float]]:
        """Yield path, size and modification time of what is below folder *path*."""

    def move(self, source: str, path: str) -> None:
        """Make object *source* the object *path*; ``FileExistsError`` if that is taken.

        Where objects cannot be renamed *source* stays there as well.
        """

    def files(self, folder: str) -> dict[str, int]:
        """Return name and size of each object right in *folder*."""

    def delete_folder(self, folder: str) -> None:
        """Remove all that is below *folder*, if there is anything."""


class LocalObjects:
    """Files below *root*; written aside, then linked to their name in one step."""

    def __init__(self, root: str) -> None:
        self.root = root

    @contextlib.contextmanager
    def staging(self, suffix: str) -> Iterator[str]:  # noqa: D102
        path = self._aside(suffix)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            yield path
        finally:
            _unlink(path)

    def create(self, local: str, path: str) -> None:  # noqa: D102
        _sync(local)
        try:
            _link(local, path)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            self._create_from_elsewhere(local, path)
        _unlink(local)

    def create_bytes(self, data: bytes, path: str) -> None:  # noqa: D102
        aside = self._write_aside(data)
        try:
            _link(aside, path)
        finally:
            _unlink(aside)

    def replace(self, local: str, path: str) -> None:
        """Copy *local* over *path*: readers see the old bytes or the new ones."""
        folder, name = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        aside = os.path.join(folder, f".{name[:100]}.{mark()}")
        try:
            shutil.copyfile(local, aside)
            _sync(aside)
            os.replace(aside, path)
        finally:
            _unlink(aside)

    def replace_bytes(self, data: bytes, path: str) -> None:  # noqa: D102
        aside = self._write_aside(data)
        try:
            _with_folder(os.replace, aside, path)
        finally:
            _unlink(aside)

    def size(self, path: str) -> int | None:  # noqa: D102
        found = self.found(path)
        return None if found is None else found[0]

    def found(self, path: str) -> tuple[int, float] | None:  # noqa: D102
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        return (found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else None

    def stamp(self, path: str) -> str | None:  # noqa: D102, ARG002
        return None  # a time of change can be set back

    def read(self, path: str) -> bytes:  # noqa: D102
        with open(path, "rb") as source:
            return source.read()

    def delete(self, path: str) -> None:  # noqa: D102
        _unlink(path)

    def walk(self, path: str) -> Iterator[tuple[str, int, float]]:  # noqa: D102
        try:
            entries = os.scandir(path)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self.walk(entry.path)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat()
                    yield entry.path, found.st_size, found.st_mtime

    def move(self, source: str, path: str) -> None:  # noqa: D102
        self.create(source, path)

    def files(self, folder: str) -> dict[str, int]:  # noqa: D102
        with os.scandir(folder) as entries:
            return {each.name: each.stat().st_size for each in entries if each.is_file()}

    def delete_folder(self, folder: str) -> None:  # noqa: D102
        # Two may delete it at once: what the other took is no error, and not the end.
        if sys.version_info >= (3, 12):
            shutil.rmtree(folder, onexc=lambda _do, _path, exc: _raise_unless_gone(exc))
        else:
            shutil.rmtree(folder, onerror=lambda _do, _path, error: _raise_unless_gone(error[1]))

    def _create_from_elsewhere(self, local: str, path: str) -> None:
        with self.staging("") as aside:
            shutil.copyfile(local, aside)
            _sync(aside)
            _link(aside, path)

    def _aside(self, suffix: str = "") -> str:
        return os.path.join(self.root, STAGING, mark() + suffix)

    def _write_aside(self, data: bytes) -> str:
        aside = self._aside()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        try:
            fd = os.open(aside, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(aside), exist_ok=True)
            fd = os.open(aside, flags, 0o666)
        try:
            with open(fd, "wb", buffering=0) as target:
                # Not synced to disk: kill -9 loses nothing that was written, and a record that a power
                # loss cut short is no JSON, which reading it says. A sync costs 2-10 ms on a busy disk.
                _write_all(target.fileno(), data)
        except BaseException:
            _unlink(aside)
            raise
        return aside


class RemoteObjects:
    """Objects of an fsspec file system."""

    def __init__(self, fs: Any) -> None:
        self.fs = fs

    @contextlib.contextmanager
    def staging(self, suffix: str) -> Iterator[str]:  # noqa: D102
        with tempfile.TemporaryDirectory(prefix=f"dbnd.{mark()}.") as folder:
            yield os.path.join(folder, "staged" + suffix)

    def create(self, local: str, path: str) -> None:  # noqa: D102
        transfer.upload(self.fs, local, path, create=True)

    def create_bytes(self, data: bytes, path: str) -> None:  # noqa: D102
        transfer.upload_bytes(self.fs, data, path, create=True)

    def replace(self, local: str, path: str) -> None:  # noqa: D102
        transfer.upload(self.fs, local, path, create=False)

    def replace_bytes(self, data: bytes, path: str) -> None:  # noqa: D102
        transfer.upload_bytes(self.fs, data, path, create=False)

    def size(self, path: str) -> int | None:  # noqa: D102
        found = self.found(path)
        return None if found is None else found[0]

    def found(self, path: str) -> tuple[int, float] | None:  # noqa: D102
        try:
            found = self.fs.info(path)
        except FileNotFoundError:
            return None
        return None if found["type"] == "directory" else (int(found["size"]), modified(found))

    def stamp(self, path: str) -> str | None:  # noqa: D102
        return stamp_of(self.fs.info(path))

    def read(self, path: str) -> bytes:  # noqa: D102
        return transfer.download_bytes(self.fs, path)

    def delete(self, path: str) -> None:  # noqa: D102
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(path)

    def walk(self, path: str) -> Iterator[tuple[str, int, float]]:  # noqa: D102
        root = path.rstrip("/") + "/"
        for found in self._below(root):
            # A zero-byte object that ends in a slash stands for a folder; names that start with a
            # dot are of what is being written.
            name = found["name"].lstrip("/")[len(root.lstrip("/")) :]
            parts = name.split("/")
            if parts[-1] and not any(part.startswith(".") for part in parts):
                yield found["name"], int(found["size"]), modified(found)

    def _below(self, root: str) -> Iterator[Mapping[str, Any]]:
        """Yield what is below *root* from a flat listing: one by folders is a request for each."""
        if transfer.protocol_of(self.fs) != "s3":
            yield from self.fs.find(root, detail=True).values()
            return
        # A page at a time, in the memory of one.
        bucket, _, prefix = root.partition("/")
        more: dict[str, str] = {}
        while True:
            page = self.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
            for each in page.get("Contents", ()):
                yield {**each, "name": f"{bucket}/{each['Key']}", "size": each["Size"]}
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def move(self, source: str, path: str) -> None:  # noqa: D102
        if self.size(path) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        transfer.move(self.fs, source, path)

    def files(self, folder: str) -> dict[str, int]:  # noqa: D102
        return {
            found["name"].rstrip("/").rpartition("/")[2]: int(found["size"])
            for found in self.fs.ls(folder, detail=True)
            if found["type"] != "directory" and not found["name"].endswith("/")
        }

    def delete_folder(self, folder: str) -> None:  # noqa: D102
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(folder, recursive=True)


def mark() -> str:
    """Return a new name that tells who writes: host, process, time. For a later clean-up."""
    host = socket.gethostname()[:60].replace("/", "_")
    return f"{host}.{os.getpid()}.{int(time.time())}.{next(_serial)}{secrets.token_hex(4)}"


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        if os.fstat(fd).st_size <= _LARGEST_SYNCED:
            os.fsync(fd)
    finally:
        os.close(fd)


def _link(source: str, path: str) -> None:
    """Give *source* the name *path* as well; ``FileExistsError`` if it is taken."""
    try:
        _with_folder(os.link, source, path)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        # No hard links here (FAT, some network mounts). Two writers of one name have the same
        # bytes, so the gap between look and rename does no harm.
        if os.path.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from exc
        _with_folder(os.replace, source, path)


def _with_folder(operation: Any, source: str, path: str) -> None:
    try:
        operation(source, path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        operation(source, path)


def _raise_unless_gone(exc: BaseException) -> None:
    if not isinstance(exc, FileNotFoundError):
        raise exc


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
