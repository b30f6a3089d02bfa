"""Multipart upload to S3 with every part's checksum verified by the store.

s3fs's own upload sends parts in batches that wait for their slowest, and leaves the checksum of
the whole object for the store to work out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any


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
