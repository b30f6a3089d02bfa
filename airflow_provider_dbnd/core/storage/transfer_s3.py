"""Parts of an object to and from S3.

s3fs's own upload sends parts in batches that wait for their slowest, and leaves the checksum of
the whole object for the store to work out; here the store verifies every part's. Its own download of
a range holds all of it in memory, twice; here what has arrived is written at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK = 2**18


async def is_there(fs: Any, path: str) -> bool:
    """Tell whether there is an object at *path*, by one request: s3fs asks twice for what is not."""
    bucket, key, _ = fs.split_path(path)
    try:
        await fs._call_s3("head_object", Bucket=bucket, Key=key)
    except FileNotFoundError:
        return False
    return True


async def upload(
    fs: Any,
    local: str,
    path: str,
    sizes: AsyncIterator[int],
    *,
    create: bool,
    part: Callable[[int], int],
    concurrency: int,
) -> None:
    """Upload file *local* in parts; it appears when the last one is there.

    :param sizes: how many bytes of it are there so far, again and again; the last is its size.
    :param part: gives the bytes of a part by its number from 0.
    """
    bucket, key, _ = fs.split_path(path)
    target = {"Bucket": bucket, "Key": key}
    await fs.set_session()  # this may be the first call: there is no client before
    config = (await fs.get_s3(bucket)).meta.config
    # Servers that do not know checksums are served by this botocore setting.
    wanted = getattr(config, "request_checksum_calculation", None) == "when_supported"
    checksums = {"ChecksumAlgorithm": "CRC32"} if wanted else {}
    target["UploadId"] = await _start(fs, target, checksums)
    free = asyncio.Semaphore(concurrency)

    async def send(number: int, start: int, size: int) -> dict[str, Any]:
        async with free:
            body = await asyncio.to_thread(_read, local, start, size)
            answer = await fs._call_s3(
                "upload_part", **target, **checksums, PartNumber=number + 1, Body=body
            )
        kept = {name: answer[name] for name in ("ETag", "ChecksumCRC32") if name in answer}
        return {"PartNumber": number + 1, **kept}

    try:
        await fs._call_s3(
            "complete_multipart_upload",
            **target,
            MultipartUpload={"Parts": await _in_parts(send, sizes, part)},
            **({"IfNoneMatch": "*"} if create else {}),
        )
    except BaseException:
        # Parts of an unfinished upload are kept, and paid for, until it is aborted. The reason of
        # the failure matters more than one of the clean-up.
        with contextlib.suppress(Exception):
            await fs._call_s3("abort_multipart_upload", **target)
        raise


async def _start(fs: Any, target: dict[str, str], checksums: dict[str, str]) -> str:
    """Start an upload and return its name; where that is cancelled, nothing of it stays."""
    starting = asyncio.ensure_future(fs._call_s3("create_multipart_upload", **target, **checksums))
    try:
        return str((await asyncio.shield(starting))["UploadId"])
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            name = (await starting)["UploadId"]
            await fs._call_s3("abort_multipart_upload", **target, UploadId=name)
        raise


async def _in_parts(
    send: Callable[[int, int, int], Coroutine[Any, Any, T]],
    sizes: AsyncIterator[int],
    part: Callable[[int], int],
) -> list[T]:
    """Send each part when all of it is there, and the rest at the end."""
    sending: list[asyncio.Task[T]] = []
    sent = size = 0
    try:
        async for size in sizes:
            while size - sent >= part(len(sending)):
                length = part(len(sending))
                sending.append(asyncio.ensure_future(send(len(sending), sent, length)))
                sent += length
        if size > sent:
            sending.append(asyncio.ensure_future(send(len(sending), sent, size - sent)))
        return list(await asyncio.gather(*sending))
    except BaseException:
        await _cancel(sending)
        raise


def _read(path: str, start: int, size: int) -> bytes:
    with open(path, "rb") as source:
        source.seek(start)
        return source.read(size)


async def download(
    fs: Any, path: str, start: int, end: int, write: Callable[[bytes, int], object]
) -> int:
    """Give the bytes of *path* from *start* to *end* to *write*, each piece with its offset.

    Returns how many there were. After an error on the way the range is read again, as s3fs does.
    """
    from s3fs import core

    bucket, key, version = fs.split_path(path)
    target = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
    for attempt in range(fs.retries):
        answer = await fs._call_s3("get_object", **target, Range=f"bytes={start}-{end - 1}")
        offset = start
        try:
            with contextlib.closing(answer["Body"]) as body:
                while piece := await body.read(_CHUNK):
                    write(piece, offset)
                    offset += len(piece)
            break
        except core.S3_RETRYABLE_ERRORS:
            if attempt + 1 == fs.retries:
                raise
            await asyncio.sleep(min(0.1 * 1.7**attempt, 15))
    return offset - start


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all; the first error cancels the rest before it is raised."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        await _cancel(tasks)
        raise


async def _cancel(tasks: Iterable[asyncio.Task[T]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
