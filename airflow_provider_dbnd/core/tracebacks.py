"""Tracebacks for people: without the frames of this package and of Python's import system."""

from __future__ import annotations

import importlib
import os
import traceback

from airflow_provider_dbnd.exceptions import DbndError

_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_IMPORTLIB = importlib.__file__
_HEADLINE = "Traceback (most recent call last):\n"


def user_traceback(error: BaseException) -> str:
    """Return the traceback of *error* and of what led to it, to stand below a line that introduces it.

    Our own errors say in their message what led to them. Where another error was raised in this
    package, its frames stay: they tell why.
    """
    told = traceback.TracebackException.from_exception(error)
    _shorten(told, error)
    return "".join(told.format()).removeprefix(_HEADLINE)


def user_line(error: BaseException) -> str | None:
    """Return the line outside this package that led to *error*; None where it comes from here."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{f.filename}:{f.lineno}" for f in frames if not f.filename.startswith(_HOME)]
    return lines[-1] if lines else None


def _shorten(told: traceback.TracebackException, error: BaseException) -> None:
    stack, ours = told.stack, isinstance(error, DbndError)
    if ours or not stack or not stack[-1].filename.startswith(_HOME):
        stack[:] = [frame for frame in stack if not _is_noise(frame)]
    if not stack:
        told.stack = None  # type: ignore[assignment]  # then there is no headline either
    if ours:
        told.__cause__ = told.__context__ = None
    chain = ((told.__cause__, error.__cause__), (told.__context__, error.__context__))
    for told_of, led in chain:
        if told_of is not None and led is not None:
            _shorten(told_of, led)


def _is_noise(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith((_HOME, "<frozen ")) or frame.filename == _IMPORTLIB
