"""The artifact store: immutable objects under readable keys, on any fsspec URL.

An object's key names its bytes, so a key always means the same bytes and two writers of one key
agree. That makes one rule enough for every store and every failure: after a conflict or an error,
look at what is there; the same size, and where in doubt the same bytes, is success. Nothing
half-written is ever found under a key: local files are written aside and linked, remote objects
appear when their last part is there. A folder of many files is one object too, once the list of its
files is there (see :mod:`~airflow_provider_dbnd.core.storage.parts`).
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import hashlib
import logging
import math
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_dbnd.core.storage import transfer
from airflow_provider_dbnd.core.storage.errors import (
    is_full,
    missing_container,
    store_error,
    store_errors,
)
from airflow_provider_dbnd.core.storage.filesystem import (
    absolute,
    check_storage_options,
    filesystem,
    fs_path,
    kind_of,
    parse,
    redact,
)
from airflow_provider_dbnd.core.storage.folders import Folders
from airflow_provider_dbnd.core.storage.inputs import Fetched, Survey, files_of, surveyed
from airflow_provider_dbnd.core.storage.keys import is_key, key
from airflow_provider_dbnd.core.storage.objects import LocalObjects, Objects, RemoteObjects
from airflow_provider_dbnd.core.storage.parts import LISTING, PARTS_SCHEME
from airflow_provider_dbnd.core.storage.sending import Sending
from airflow_provider_dbnd.core.storage.verification import (
    expect_size,
    remedy_for_missing,
    verify_checksum,
)
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ConfigurationError,
)

log = logging.getLogger(__name__)

_ASK_FIRST = 2**20
_CONNECTION_LASTS = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """One object of a listing. ``mtime`` is in seconds since the epoch."""

    key: str
    size: int
    mtime: float


class ArtifactStore:
    """Objects below one URL. Cheap to make, picklable; connects at the first use.

    :param url: ``file:///...`` or a path, ``s3://[conn_id@]bucket/...``, ``gs://``, ``abfs://``,
        ``webhdfs://``, ``hdfs://``, ``memory://name``.
    :param storage_options: fsspec options by scheme, over those of connection and environment.
    :param trusts: URLs of other stores whose objects were written by this package as well.
    """

    key = staticmethod(key)

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
        trusts: Sequence[str] = (),
    ) -> None:
        where = parse(absolute(url, os.getcwd()))
        if where.scheme != "file" and not (where.host or where.path.strip("/")):
            raise ConfigurationError(
                f"store {redact(url)!r} names no bucket, container or folder; "
                f"write {where.scheme}://NAME/..."
            )
        self.url = str(where).rstrip("/")
        self.medium: Literal["local", "remote"] = "local" if where.scheme == "file" else "remote"
        self.takes_parts = kind_of(where.scheme) in transfer.IN_PARTS
        self._trusted = tuple(f"{each.rstrip('/')}/" for each in (self.url, *trusts))
        self._options = check_storage_options(storage_options)
        self._root = where.path.rstrip("/")
        self._filesystems: dict[tuple[object, ...], tuple[Any, float]] = {}

    def __repr__(self) -> str:
        return f"ArtifactStore({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_filesystems": {}}

    @property
    def folders(self) -> Folders:
        """Artifacts that are folders of many files."""
        return Folders(self)

    def uri(self, key: str) -> str:
        """Return the URI of *key*."""
        if not is_key(key):
            raise ValueError(f"{key!r} is not a key; make one of names with ArtifactStore.key()")
        return f"{self.url}/{key}"

    def wrote(self, uri: str) -> bool:
        """Tell whether the object at *uri* is of this store, or of one that it trusts."""
        return uri.startswith(self._trusted)

    @contextlib.contextmanager
    def staging(self, suffix: str = "") -> Iterator[str]:
        """Give a path for one new file that :meth:`commit` can take over; removed at the end."""
        with contextlib.ExitStack() as stack:
            with store_errors(self.url, "write below"):
                path = stack.enter_context(self._objects(self.url).staging(suffix))
            try:
                yield path
            except OSError as exc:
                if is_full(exc):
                    raise store_error(exc, self.url, "write below") from exc
                raise

    @contextlib.contextmanager
    def sending(self, local_path: str, key: str) -> Iterator[Sending]:
        """Send *local_path* to the new object *key*, on S3, while it is written.

        What was not sent in the end is to be stored by :meth:`commit`.
        """
        uri = self.uri(key)
        with store_errors(uri, "write"):
            fs, path = self._filesystem(uri)
            sending = Sending(fs, local_path, path)
        try:
            yield sending
            sending.finish()
        finally:
            sending.stop()
        if sending.done:
            log.info("wrote %s (%d bytes)", uri, os.path.getsize(local_path))

    def has_end(self, key: str, local_path: str, tail: int) -> bool:
        """Tell whether the object *key* has the size of a local file, and its last *tail* bytes."""
        uri = self.uri(key)
        size = os.path.getsize(local_path)
        with open(local_path, "rb") as file:
            file.seek(-tail, os.SEEK_END)
            expected = file.read()
        with store_errors(uri, "look at"):
            objects, path = self.locate(uri)
            if objects.size(path) != size:
                return False
            if self.filesystem(uri).cat_file(path, start=size - tail, end=size) != expected:
                return False
        log.info("%s is already there (%d bytes)", uri, size)
        return True

    def commit(self, local_path: str, key: str, *, checksum: str, heals: bool = False) -> str:
        """Make file *local_path* the object *key* and return its URI; the file may be gone then.

        An object already there with the same content is success.

        :param heals: *key* names these very bytes, so what is there and differs is damaged, and is
            replaced.
        """
        uri = self.uri(key)
        size = os.path.getsize(local_path)
        with store_errors(uri, "write"):
            objects, path = self.locate(uri)
            # A round trip that saves an upload is worth it only if the upload is longer.
            ask = self.medium == "remote" and size >= _ASK_FIRST
            found = objects.size(path) if ask else None
            if found is None:
                try:
                    objects.create(local_path, path)
                    log.info("wrote %s (%d bytes)", uri, size)
                    return uri
                except FileExistsError:
                    found = objects.size(path)
                except Exception as exc:
                    if not self._arrived(uri, local_path, exc):
                        raise
                    return uri
            if heals and self._is_damaged(path, found, local_path):
                log.warning("%s was damaged; writing it anew", uri)
                objects.replace(local_path, path)
                return uri
            expect_size(uri, found, size)
            if self.medium == "local":
                verify_checksum(uri, path, checksum)
        log.info("%s is already there (%d bytes)", uri, size)
        return uri

    def _is_damaged(self, path: str, size: int | None, local_path: str) -> bool:
        from airflow_provider_dbnd.core.digest import file_checksum

        if size != os.path.getsize(local_path):
            return True
        return self.medium == "local" and file_checksum(path) != file_checksum(local_path)

    def put_bytes(self, key: str, data: bytes, *, overwrite: bool = False) -> str:
        """Store small *data* as *key* and return its URI.

        Without *overwrite*, other bytes under the key are an error and stay as they are.
        """
        uri = self.uri(key)
        with store_errors(uri, "write"):
            objects, path = self.locate(uri)
            try:
                if overwrite:
                    objects.replace_bytes(data, path)
                else:
                    objects.create_bytes(data, path)
            except Exception as exc:
                # The answer may be lost and the write done, or done by a retry before it.
                found = _read_if_there(objects, path)
                if found is None or (found != data and not isinstance(exc, FileExistsError)):
                    raise
                if found != data:
                    raise ArtifactCorruptedError(
                        f"{uri} exists with other content: expected {len(data)} bytes "
                        f"({_short(data)}), found {len(found)} bytes ({_short(found)}); "
                        f"it was left as it is"
                    ) from exc
        return uri

    def get_bytes(self, key_or_uri: str) -> bytes:
        """Return the bytes of a small object."""
        uri = self._uri_of(key_or_uri)
        with self.reading(uri):
            objects, path = self.locate(uri)
            return objects.read(path)

    def exists(self, key_or_uri: str) -> bool:
        """Tell whether the object is there, be it a file or a folder with its list."""
        return self.written(key_or_uri) is not None

    def written(self, key_or_uri: str) -> float | None:
        """Return when the object was written, or the list of a folder; None where there is none."""
        uri = self._uri_of(key_or_uri)
        with store_errors(uri, "look at"):
            objects, path = self.locate(uri)
            found = objects.found(path)
            # A record is no folder, and is asked for again and again while a job runs.
            if found is None and not path.endswith(".json"):
                found = objects.found(f"{path}/{LISTING}")
        return None if found is None else found[1]

    def stamp(self, uri: str) -> str | None:
        """Return what changes whenever the object at *uri* is written; None where nothing tells."""
        with self.reading(uri):
            objects, path = self.locate(uri)
            return None if objects.size(path) is None else objects.stamp(path)

    def list(self, prefix: str = "") -> Iterator[Info]:
        """Yield the objects below folder *prefix*, in no order, a folder at a time."""
        uri = self.uri(prefix) if prefix else self.url
        with store_errors(uri, "list"):
            objects, path = self.locate(uri)
            _, root = self.locate(self.url)
            for found, size, mtime in objects.walk(path):
                # fsspec drops or adds a leading slash as it likes.
                name = found.lstrip("/")[len(root.strip("/")) :].lstrip("/")
                yield Info(key=name, size=size, mtime=mtime)

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens if it is not there."""
        uri = self.uri(key)
        with store_errors(uri, "delete"):
            objects, path = self.locate(uri)
            objects.delete(path)

    def fetch(
        self, uri: str, *, size: int | None = None, checksum: str | None = None, into: str
    ) -> str:
        """Return a local path of the object at *uri*, verified: its own one, or a copy in *into*.

        :param size: expected bytes. :param checksum: verified here if it starts with ``blake3:``, or
            with ``parts:``, which is that of a folder.
        """
        where = parse(uri)
        if checksum is not None and checksum.startswith(PARTS_SCHEME):
            return self.folders.fetch(uri, checksum=checksum, size=size, into=into)
        with self.reading(uri, size, checksum):
            if where.scheme == "file":
                local, got = where.path, _regular_size(where.path)
            else:
                local, got = self.download(uri, into, size)
        expect_size(uri, got, got if size is None else size)
        verify_checksum(uri, local, checksum)
        log.info("read %s (%d bytes)", redact(uri), got)
        return local

    def open(self, uri: str, *, size: int | None = None) -> Any:
        """Return the object at *uri* as a file to read ranges of.

        :param size: expected bytes.
        """
        with self.reading(uri, size):
            fs, path = self._filesystem(uri)
            file = fs.open(path, "rb")
            found = file.seek(0, os.SEEK_END)
            file.seek(0)
        if size is not None and found != size:
            file.close()
            expect_size(uri, found, size)
        return file

    def fetch_input(self, uri: str, into: str) -> Fetched:
        """Return a user's input, from any URL, as a local file with checksum and size."""
        from airflow_provider_dbnd.core.digest import file_checksum

        path = self.fetch(uri, into=into)
        return Fetched(path=path, checksum=file_checksum(path), size=os.path.getsize(path))

    def expand(self, uris: str | Sequence[str], base: str) -> builtins.list[str]:
        """Return the URIs of all files that a path, a URL, a folder, a glob or a list means.

        Sorted within each item. Hidden files and markers such as ``_SUCCESS`` are left out.

        :param base: folder or URL that relative paths start from.
        """
        each = [uris] if isinstance(uris, str) else uris
        return [found for uri in each for found in self._files(uri, base)]

    def survey(self, uri: str, base: str) -> Survey:
        """Look at a user's input that something else than this process will read.

        :param base: folder or URL that a relative *uri* starts from.
        """
        return surveyed(absolute(uri, base), self._files(uri, base))

    def publish(self, local_path: str, uri: str, *, base: str = "") -> str:
        """Copy *local_path* over whatever is at *uri*, in one step, and return the full URI."""
        uri = absolute(uri, base or os.getcwd())
        with store_errors(uri, "publish"):
            objects, path = self.locate(uri)
            objects.replace(local_path, path)
        log.info("published %s", redact(uri))
        return uri

    def filesystem(self, uri: str) -> Any:
        """Return the fsspec file system of *uri*."""
        return self._filesystem(uri)[0]

    def locate(self, uri: str) -> tuple[Objects, str]:
        """Return what keeps the object at *uri*, and its path there."""
        where = parse(uri)
        if where.scheme == "file":
            return self._objects(uri), where.path
        fs, path = self._filesystem(uri)
        return RemoteObjects(fs), path

    def download(
        self, uri: str, into: str, size: int | None, local: str | None = None
    ) -> tuple[str, int]:
        """Copy the remote object at *uri* to *local*, or a name of its own in folder *into*.

        Returns path and size; nothing is there if the size is not the expected *size*.
        """
        fs, path = self._filesystem(uri)
        os.makedirs(into, exist_ok=True)
        local = local or _local_name(uri, into)
        # An earlier copy may be memory-mapped: it is replaced, never written over.
        with tempfile.TemporaryDirectory(prefix=".fetching.", dir=into) as folder:
            arriving = os.path.join(folder, "object")
            try:
                got = transfer.download(fs, path, arriving, size=size)
            except Exception:
                # Each store has its own way to refuse a range beyond the end of a shorter object.
                found = None if size is None else RemoteObjects(fs).size(path)
                if found is None or found == size:
                    raise
                return local, found
            if size is not None and got > size:
                return local, RemoteObjects(fs).size(path) or got
            os.replace(arriving, local)
        return local, got

    @contextlib.contextmanager
    def reading(
        self, uri: str, size: int | None = None, checksum: str | None = None
    ) -> Iterator[None]:
        """Turn what a client library raises inside into an error that names *uri* and the remedy."""
        with store_errors(uri, "read"):
            try:
                yield
            except FileNotFoundError as exc:
                if missing_container(exc):
                    raise store_error(exc, uri, "read") from exc
                promised = ", ".join(
                    str(each) for each in (size and f"{size} bytes", checksum) if each
                )
                raise ArtifactNotFoundError(
                    f"{redact(uri)} is not there: expected {promised or 'an object'}, found "
                    f"nothing. {remedy_for_missing(uri)}"
                ) from exc

    def _files(self, uri: str, base: str) -> dict[str, Mapping[str, Any]]:
        where = absolute(uri, base)
        with store_errors(where, "look at"):
            files = files_of(where, self._filesystem)
        if not files:
            raise ArtifactNotFoundError(
                f"{redact(uri)!r} matches no file: expected a file, a folder with files or a "
                f"pattern at {redact(where)}. {remedy_for_missing(where, base)}"
            )
        return files

    def _uri_of(self, key_or_uri: str) -> str:
        return key_or_uri if "://" in key_or_uri else self.uri(key_or_uri)

    def _objects(self, uri: str) -> Objects:
        if parse(uri).scheme == "file":
            return LocalObjects(self._root if self.medium == "local" else tempfile.gettempdir())
        return RemoteObjects(self._filesystem(uri)[0])

    def _filesystem(self, uri: str) -> tuple[Any, str]:
        """Return file system and path, connecting once a process: forks must not share sockets."""
        where = parse(uri)
        same = (os.getpid(), where.scheme, where.conn_id, where.account, where.user, where.host)
        fs, until = self._filesystems.get(same, (None, 0.0))
        if time.monotonic() > until:
            fs = filesystem(uri, self._options)[0]
            # A connection may be changed or hand out credentials that expire.
            lasts = math.inf if where.conn_id is None else _CONNECTION_LASTS
            self._filesystems[same] = fs, time.monotonic() + lasts
        return fs, fs_path(where, fs)

    def _arrived(self, uri: str, local_path: str, exc: Exception) -> bool:
        """Tell whether a write that failed with *exc* is there nevertheless, by its bytes."""
        from airflow_provider_dbnd.core.digest import file_checksum

        if self.medium == "local":
            return False
        with tempfile.TemporaryDirectory(prefix="dbnd.") as folder:
            try:
                copy, size = self.download(uri, folder, None)
            except Exception as unread:  # noqa: BLE001 - the first error is the one to raise
                log.debug("%s cannot be read back: %s", uri, redact(str(unread)))
                return False
            if size != os.path.getsize(local_path) or file_checksum(copy) != file_checksum(
                local_path
            ):
                return False
        log.warning("%s was written although the store answered: %s", uri, redact(str(exc)))
        return True


def _regular_size(path: str) -> int:
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return found.st_size


def _read_if_there(objects: Objects, path: str) -> bytes | None:
    try:
        return objects.read(path)
    except Exception as exc:  # noqa: BLE001 - the first error is the one to raise
        log.debug("nothing to read back at %s: %s", redact(path), redact(str(exc)))
        return None


def _short(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()[:16]


def _local_name(uri: str, into: str) -> str:
    """Return a path in *into* that keeps the extension and that no other URI gets."""
    path = uri.partition("?")[0] if parse(uri).scheme in ("http", "https") else uri
    name = re.sub(r"[^A-Za-z0-9._=,-]", "_", path.rstrip("/").rpartition("/")[2])
    mark = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return os.path.join(into, f"{mark}-{name[-100:]}")
