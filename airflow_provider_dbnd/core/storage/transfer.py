"""Whole objects to and from a remote file system, in parallel parts.

A single connection to an object store is slow and its bandwidth capped; several at once are not.
So there an object never streams through ``fs.open``: it goes up from a local file in parallel parts.
From every store it comes down in parallel ranges, each written at its offset, with a bounded number
of parts in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import io
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from airflow_provider_dbnd.core.storage import transfer_s3
from airflow_provider_dbnd.core.storage.errors import http_statuses
from airflow_provider_dbnd.core.storage.filesystem import SCHEMES, kind_of
from airflow_provider_dbnd.core.storage.object_info import version_of

SMALLEST_PART = 8 * 2**20
"""Objects up to this size move in one piece; a smaller part costs more in round trips."""

LARGEST_PART = 24 * 2**20
"""With :data:`CONCURRENCY` this bounds the memory of a transfer."""

CONCURRENCY = 8
"""Parts moved at the same time."""

SYNC_CONCURRENCY = 4
"""The same where each part is a thread with blocking calls."""

_MOST_PARTS = 10_000
_COPY_PAUSE = 0.2
_CONFLICT_PAUSES = (0.1, 0.4, 1.6, 6.4)
#: Stores to which the parts of an object can be sent before there are all of them.
IN_PARTS = {"s3"}

#: A resumable upload learns at its end that the name was taken, one request at once.
_GCS_ONE_REQUEST = 48 * 2**20

#: What gcsfs (2026.10.1) puts around data in one request, and does not look for in the data.
_GCS_BOUNDARY = b"--==0=="

_OBJECT_STORES = {"s3", "gs", "abfs"}
_create_in_memory = threading.Lock()


def protocol_of(fs: Any) -> str:
    """Return the one name *fs* goes by in this package."""
    names = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    return kind_of(next((name for name in names if name in SCHEMES), str(names[0])))


def upload(fs: Any, local: str, path: str, *, create: bool) -> None:
    """Store the bytes of file *local* at *path*, complete or not at all.

    :param create: raise ``FileExistsError`` where the store can tell that *path* is taken.
    """
    protocol = protocol_of(fs)
    if protocol in _OBJECT_STORES:
        _conditional(lambda: _upload_object(fs, protocol, local, path, create=create), path)
    elif protocol == "memory":
        with open(local, "rb") as source:
            _put_in_memory(fs, source.read(), path, create=create)
    else:
        with open(local, "rb") as source:
            _put_by_rename(fs, source, path, create=create)


def upload_bytes(fs: Any, data: bytes, path: str, *, create: bool) -> None:
    """Store *data* at *path*, complete or not at all; *create* as in :func:`upload`."""
    protocol = protocol_of(fs)
    if protocol in _OBJECT_STORES:
        _conditional(lambda: _put_object(fs, protocol, data, path, create=create), path)
    elif protocol == "memory":
        _put_in_memory(fs, data, path, create=create)
    else:
        _put_by_rename(fs, io.BytesIO(data), path, create=create)


def move(fs: Any, source: str, path: str) -> None:
    """Make *source* the object *path* without its bytes passing through here.

    An object store has no renaming: there *source* stays, and its copy appears complete.
    """
    protocol = protocol_of(fs)
    if protocol in _OBJECT_STORES or protocol == "memory":
        fs.cp_file(source, path)
        if protocol == "abfs":
            _await_copy_in_azure(fs, path)
        return
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    _rename(fs, source, path, create=True)


def download(fs: Any, path: str, local: str, *, size: int | None = None) -> int:
    """Copy the object at *path* to the new file *local*; return its size.

    :param size: the size of an object that nobody writes over. It saves requests; a different one
        shows in the result.
    """
    if protocol_of(fs) == "http":
        # Whether a web server honours ranges is not known beforehand.
        fs.get_file(path, local)
        return os.path.getsize(local)
    return _download(fs, path, local, size) if size else _download_version(fs, path, local)


def download_bytes(fs: Any, path: str) -> bytes:
    """Return the bytes of a small object."""
    data = fs.cat_file(path)
    return data if isinstance(data, bytes) else bytes(data)


def part_size(size: int) -> int:
    """Return the part size with which all parts move at once, within the bounds of memory.

    >>> part_size(2**20) == SMALLEST_PART, part_size(2**40) * 10_000 >= 2**40
    (True, True)
    """
    at_once = max(SMALLEST_PART, min(LARGEST_PART, -(-size // CONCURRENCY)))
    # S3 takes no more than 10,000 parts.
    return max(at_once, -(-size // _MOST_PARTS))


def _download_version(fs: Any, path: str, local: str) -> int:
    """Copy an object that others may replace meanwhile: all of its parts are of one version."""
    for pause in (*_CONFLICT_PAUSES, None):
        info = fs.info(path)
        size = int(info["size"])
        got, failure = 0, None
        try:
            got = _download(fs, path, local, size)
        except Exception as exc:  # noqa: BLE001 - of a shorter object, ranges beyond its end are refused
            failure = exc
        complete = got == size and not failure
        if complete and size <= SMALLEST_PART:
            return got  # by one request
        if _version_now(fs, path, failure) == version_of(info):
            if complete:
                return got
            raise failure or OSError(errno.EIO, f"expected {size} bytes, got {got}", path)
        if pause is not None:
            time.sleep(pause)
    raise OSError(errno.EBUSY, "it is replaced again and again while it is read", path)


def _version_now(fs: Any, path: str, failure: Exception | None) -> str:
    try:
        return version_of(fs.info(path))
    except Exception as exc:  # noqa: BLE001 - the first failure is the one to raise
        raise failure or exc from None


def _download(fs: Any, path: str, local: str, size: int) -> int:
    with open(local, "wb") as target:
        os.ftruncate(target.fileno(), size)
        if getattr(fs, "async_impl", False):
            from fsspec.asyn import sync

            got: int = sync(fs.loop, _download_ranges, fs, path, target.fileno(), size)
        else:
            got = _download_threads(fs, path, target.fileno(), size)
        os.ftruncate(target.fileno(), got)
    return got


def _conditional(write: Callable[[], object], path: str) -> None:
    """Run *write* with the answers to "only if it is new" told apart from other errors."""
    for pause in (*_CONFLICT_PAUSES, None):
        try:
            write()
            return
        except FileExistsError:
            raise
        except OSError as exc:
            statuses = http_statuses(exc)
            # Ceph says 412 without a message, which s3fs takes for an invalid argument.
            if 412 in statuses:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from exc
            # S3 says 409 while another write of the same key is under way: to be tried again.
            if 409 not in statuses or pause is None:
                raise
            time.sleep(pause)


def _upload_object(fs: Any, protocol: str, local: str, path: str, *, create: bool) -> None:
    size = os.path.getsize(local)
    mode = "create" if create else "overwrite"
    if protocol == "s3" and size > SMALLEST_PART:
        from fsspec.asyn import sync

        part = part_size(size)
        sync(
            fs.loop,
            transfer_s3.upload,
            fs,
            local,
            path,
            _once(size),
            create=create,
            part=lambda _number: part,
            concurrency=CONCURRENCY,
        )
    elif protocol == "gs" and size <= _GCS_ONE_REQUEST:
        with open(local, "rb") as source:
            _put_object(fs, protocol, source.read(), path, create=create)
    elif protocol == "abfs":
        fs.put_file(local, path, mode=mode, max_concurrency=CONCURRENCY)
    else:
        fs.put_file(local, path, mode=mode)


def _put_object(fs: Any, protocol: str, data: bytes, path: str, *, create: bool) -> None:
    mode = "create" if create else "overwrite"
    if protocol != "gs":
        fs.pipe_file(path, data, mode=mode)
        return
    chunk = min(len(data), _GCS_ONE_REQUEST)
    # With the "\n" before the boundary "\r" is the end of a line, which does not belong to the data.
    if chunk == len(data) and not data.endswith(b"\r") and _GCS_BOUNDARY not in data:
        chunk += 1  # framed, in one request
    fs.pipe_file(path, data, mode=mode, chunksize=chunk)


async def _once(size: int) -> AsyncIterator[int]:
    yield size


def _await_copy_in_azure(fs: Any, path: str) -> None:
    """Wait until the store has copied, which it may do after its answer; adlfs does not."""
    from fsspec.asyn import sync

    container, blob, _ = fs.split_path(path, delimiter="/")

    async def status() -> str | None:
        async with fs.service_client.get_blob_client(container, blob) as client:
            properties = await client.get_blob_properties()
        return properties.copy.status  # type: ignore[no-any-return]

    while (found := sync(fs.loop, status)) == "pending":
        time.sleep(_COPY_PAUSE)
    if found not in (None, "success"):
        raise OSError(errno.EIO, f"copying ended as {found!r}", path)


def _put_in_memory(fs: Any, data: bytes, path: str, *, create: bool) -> None:
    with _create_in_memory:
        if create and fs.exists(path):
            raise FileExistsError(path)
        fs.pipe_file(path, data)


def _put_by_rename(fs: Any, source: IO[bytes], path: str, *, create: bool) -> None:
    """Write under a hidden name beside *path*, then rename: no reader sees a part of it."""
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name[:100]}.{secrets.token_hex(8)}"
    fs.makedirs(folder, exist_ok=True)
    try:
        _write(fs, temporary, source)
        _rename(fs, temporary, path, create=create)
    finally:
        # Not there any more after a rename; after a failure it is of no use to anyone.
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(temporary)


def _write(fs: Any, path: str, source: IO[bytes]) -> None:
    if protocol_of(fs) == "webhdfs":
        # Two calls instead of fsspec's four and a body that streams from the file.
        answer = fs._call("CREATE", "PUT", path, redirect=False, overwrite="false")
        address = fs._apply_proxy(answer.headers["Location"])
        content = {"content-type": "application/octet-stream"}
        fs.session.put(address, data=source, headers=content).raise_for_status()
        return
    with fs.open(path, "wb") as target:
        while block := source.read(SMALLEST_PART):
            target.write(block)


def _rename(fs: Any, source: str, path: str, *, create: bool) -> None:
    if protocol_of(fs) == "webhdfs":
        _rename_webhdfs(fs, source, path, create=create)
        return
    if create and fs.exists(path):
        raise FileExistsError(path)
    fs.mv(source, path)


def _rename_webhdfs(fs: Any, source: str, path: str, *, create: bool) -> None:
    """Rename with the name node's answer read: fsspec's own ``mv`` drops it."""
    options = {} if create else {"renameoptions": "OVERWRITE"}
    answer = fs._call("RENAME", "put", path=source, destination=path, **options)
    if create and not answer.json()["boolean"]:
        raise FileExistsError(path)


def _ranges(size: int) -> Iterator[tuple[int, int]]:
    """Cut *size* into ranges; the last asks for one byte more, which shows a longer object."""
    part = part_size(size)
    for start in range(0, size, part):
        end = start + part
        yield start, (end if end < size else size + 1)


async def _download_ranges(fs: Any, path: str, fd: int, size: int) -> int:
    free, is_s3 = asyncio.Semaphore(CONCURRENCY), protocol_of(fs) == "s3"

    async def fetch(start: int, end: int) -> int:
        async with free:
            if is_s3:
                write = functools.partial(_write_at, fd)
                return await transfer_s3.download(fs, path, start, end, write)
            data = await fs._cat_file(path, start=start, end=end)
            return await asyncio.to_thread(_write_at, fd, data, start)

    return sum(await transfer_s3.gather([fetch(start, end) for start, end in _ranges(size)]))


def _download_threads(fs: Any, path: str, fd: int, size: int) -> int:
    def fetch(part: tuple[int, int]) -> int:
        return _write_at(fd, fs.cat_file(path, start=part[0], end=part[1]), part[0])

    return _sum_in_threads(fetch, list(_ranges(size)))


def _write_at(fd: int, data: bytes, offset: int) -> int:
    """Write all of *data*: a single ``pwrite`` stops early on a disk that fills up."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
    return len(data)


def _sum_in_threads(fetch: Callable[[tuple[int, int]], int], parts: list[tuple[int, int]]) -> int:
    if len(parts) <= 1:
        return sum(map(fetch, parts))
    with ThreadPoolExecutor(SYNC_CONCURRENCY) as pool:
        return sum(pool.map(fetch, parts))
