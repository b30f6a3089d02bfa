"""Folders for what has to be a local file for a while: one a process, one a task below it.

Most tasks need none, so only a name is made up; who writes there makes the folder.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

_serial = itertools.count()


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """Give the path of a folder of this task's own, removed at the end."""
    folder = os.path.join(process_folder(), str(next(_serial)))
    try:
        yield folder
    finally:
        if os.path.exists(folder):
            shutil.rmtree(folder, ignore_errors=True)


def process_folder() -> str:
    """Return a folder that only this user can read and that lives as long as this process."""
    return _folder_of(os.getpid())


@functools.cache
def _folder_of(pid: int) -> str:  # noqa: ARG001 - a forked process makes its own
    folder = tempfile.mkdtemp(prefix="dbnd-")
    atexit.register(_remove, folder, os.getpid())
    # A child of multiprocessing ends without atexit, and has this module.
    if (own_end := sys.modules.get("multiprocessing.util")) is not None:
        own_end.Finalize(None, _remove, args=(folder, os.getpid()), exitpriority=0)
    return folder


def _remove(folder: str, pid: int) -> None:
    # A forked child inherits the registration, but not the folder.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
