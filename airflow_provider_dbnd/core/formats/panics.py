"""Panics of polars: bugs and gaps in it, raised as no Exception, which would end the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_dbnd.exceptions import FormatError


class PolarsPanicError(FormatError):
    """polars gave up on a table in its own code."""


@contextmanager
def panics_refused() -> Iterator[None]:
    """Raise a panic of polars as an error that fails one task; also a decorator."""
    from polars.exceptions import PanicException

    try:
        yield
    except PanicException as panic:
        raise PolarsPanicError(f"polars panicked: {panic}") from panic
