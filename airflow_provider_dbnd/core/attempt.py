"""The attempt that runs in this context: where metrics and nested calls are recorded."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core.manifest import CallRecord, Identity, Status
from airflow_provider_dbnd.core.storage.store import ArtifactStore

log = logging.getLogger("airflow_provider_dbnd")


@dataclass(kw_only=True)
class Attempt:
    """A running task, and what it records.

    ``store`` is where its results go, ``loaded`` what it loaded of past runs, by name.
    """

    identity: Identity
    store: ArtifactStore | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    calls: list[CallRecord] = field(default_factory=list)
    loaded: dict[str, Any] = field(default_factory=dict)


_ATTEMPT: ContextVar[Attempt | None] = ContextVar("dbnd_attempt", default=None)


def current_attempt() -> Attempt | None:
    """Return the attempt this code runs in, or None outside a task."""
    return _ATTEMPT.get()


@contextlib.contextmanager
def running(attempt: Attempt) -> Iterator[Attempt]:
    """Make *attempt* the current one."""
    token = _ATTEMPT.set(attempt)
    try:
        yield attempt
    finally:
        _ATTEMPT.reset(token)


def call_nested(
    attempt: Attempt, name: str, function: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """Call a task inside a running task, in this process, and record the call."""
    started = time.perf_counter()
    status: Status = "failed"
    try:
        result = function(*args, **kwargs)
        status = "success"
        return result
    finally:
        seconds = round(time.perf_counter() - started, 6)
        attempt.calls.append(CallRecord(task=name, seconds=seconds, status=status))


def log_metric(name: str, value: Any) -> None:
    """Record a number (or short text) under *name* in the running task's manifest.

    Outside a task it only logs, so functions that call it stay testable.

    >>> log_metric("rows", 3)
    """
    log_metrics({name: value})


def log_metrics(values: Mapping[str, Any]) -> None:
    """Record several metrics at once."""
    attempt = _ATTEMPT.get()
    for name, value in values.items():
        plain = _plain(value)
        log.info("metric %s = %s", name, plain)
        if attempt is not None:
            attempt.metrics[name] = plain


@contextlib.contextmanager
def _timed(name: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        log_metric(name, round(time.perf_counter() - started, 6))


def log_duration(name: str) -> Any:
    """Record how many seconds a block or a function takes, also when it raises.

    Works as ``with log_duration("load"):`` and as ``@log_duration("load")``.
    """
    return _timed(name)


def _plain(value: Any) -> Any:
    """Return numpy scalars as Python's own numbers; text and numbers as they are."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        value = item()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
