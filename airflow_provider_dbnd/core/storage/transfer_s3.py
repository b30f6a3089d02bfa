"""Parts of an object to and from S3.

s3fs's own upload sends parts in batches that wait for their slowest, and leaves the checksum of
the whole object for the store to work out; here the store verifies every part's. Its own download of
a range holds all of it in memory, twice; here what has arrived is written at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

_CHUNK = 2**18


async def upload(
    fs: Any, local: str, path: str, *, create: bool, part: int, concurrency: int
) -> None:
    """Upload file *local* in parts of *part* bytes; it appears when the last one is there."""
    bucket, key, _ = fs.split_path(path)
    target = {"Bucket": bucket, "Key": key}
    config = (await fs.get_s3(bucket)).meta.config
    # Servers that do not know checksums are served by this botocore setting.
    wanted = getattr(config, "request_checksum_calculation", None) == "when_supported"
    checksums = {"ChecksumAlgorithm": "CRC32"} if wanted else {}
    started = await fs._call_s3("create_multipart_upload", **target, **checksums)
    target["UploadId"] = started["UploadId"]
    try:
        parts = await _upload_parts(fs, local, target | checksums, part, concurrency)
        await fs._call_s3(
            "complete_multipart_upload",
            **target,
            MultipartUpload={"Parts": parts},
            **({"IfNoneMatch": "*"} if create else {}),
        )
    except BaseException:
        # Parts of an unfinished upload are kept, and paid for, until it is aborted. The reason of
        # the failure matters more than one of the clean-up.
        with contextlib.suppress(Exception):
            await fs._call_s3("abort_multipart_upload", **target)
        raise


async def _upload_parts(
    fs: Any, local: str, target: dict[str, str], part: int, concurrency: int
) -> list[dict[str, Any]]:
    free = asyncio.Semaphore(concurrency)
    with open(local, "rb") as source:
        fd = source.fileno()

        async def send(number: int, offset: int) -> dict[str, Any]:
            async with free:
                body = await asyncio.to_thread(os.pread, fd, part, offset)
                answer = await fs._call_s3("upload_part", **target, PartNumber=number, Body=body)
            kept = {name: answer[name] for name in ("ETag", "ChecksumCRC32") if name in answer}
            return {"PartNumber": number, **kept}

        offsets = range(0, os.path.getsize(local), part)
        return await gather([send(number, offset) for number, offset in enumerate(offsets, 1)])


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


async def gather(coroutines: list[Any]) -> list[Any]:
    """Await all; the first error cancels the rest before it is raised."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
