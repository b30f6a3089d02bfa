"""A file that is sent while it is written, to a store that takes objects in parts."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

from airflow_provider_dbnd.core.storage import transfer, transfer_s3
from airflow_provider_dbnd.core.storage.filesystem import redact

log = logging.getLogger(__name__)


class Sending:
    """The local file *local* on its way to *path* in S3.

    It is an attempt: what is not there in the end is for a plain upload, with its retries and its
    errors. ``tried`` tells that there was enough to send, ``done`` that it is there.
    """

    def __init__(self, fs: Any, local: str, path: str) -> None:
        self.tried = self.done = False
        self._fs, self._local, self._path = fs, local, path
        self._sizes: asyncio.Queue[int | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._ended = threading.Event()

    def grown(self, size: int) -> None:
        """Tell that the first *size* bytes are written, and will not change any more."""
        if not self.tried and size > transfer.SMALLEST_PART:
            self.tried = True
            self._fs.loop.call_soon_threadsafe(self._begin)
        if self.tried:
            self._fs.loop.call_soon_threadsafe(self._sizes.put_nowait, size)

    def finish(self) -> None:
        """Send the rest, now that all is written."""
        if not self.tried:
            return
        self._fs.loop.call_soon_threadsafe(self._sizes.put_nowait, None)
        self._ended.wait()
        self.done = self._failure is None
        if self._failure:
            why = redact(str(self._failure))
            log.info("%s was not sent while it was written: %s", self._path, why)

    def stop(self) -> None:
        """Give up; nothing of it stays in the store."""
        if self.tried and not self._ended.is_set():
            self._fs.loop.call_soon_threadsafe(self._cancel)
            self._ended.wait()

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._send())
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._ended.set()

    async def _send(self) -> None:
        if await transfer_s3.is_there(self._fs, self._path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._path)
        await transfer_s3.upload(
            self._fs,
            self._local,
            self._path,
            self._grows(),
            create=True,
            part=_part,
            concurrency=transfer.CONCURRENCY,
        )

    def _cancel(self) -> None:
        if self._task:
            self._task.cancel()

    async def _grows(self) -> AsyncIterator[int]:
        while (size := await self._sizes.get()) is not None:
            yield size


def _part(number: int) -> int:
    """Return the bytes of a part: S3 takes 10,000, and how many will be needed is not known.

    >>> sum(map(_part, range(10_000))) > 5 * 2**40, _part(999) == transfer.SMALLEST_PART
    (True, True)
    """
    return transfer.SMALLEST_PART << (number // 1000)
