"""Why a writer of another library failed: which column, in which format, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_dbnd.core.formats.annotations import type_name
from airflow_provider_dbnd.core.formats.panics import PolarsPanicError
from airflow_provider_dbnd.exceptions import FormatError

#: Rows that are tried again, column by column, after a failure.
_ROWS = 1000


def unwritable(
    format_name: str, value: Any, error: Exception, attempt: Callable[[Any], None]
) -> FormatError:
    """Make the error for a table that could not be written because of *error*.

    :param attempt: writes a table to nowhere
    """
    named = isinstance(error, FormatError) and not isinstance(error, PolarsPanicError)
    culprit = None if named else _culprit(value, attempt)
    what = f"this {type_name(type(value))}" if culprit is None else f"column {culprit!r}"
    reason = " ".join(str(error).split()).rstrip(".")
    return FormatError(
        f"{format_name} cannot hold {what}: {reason}; convert it, or declare output.parquet"
    )


def _culprit(value: Any, attempt: Callable[[Any], None]) -> Any:
    """Return the first column that fails alone, None where all do: then it is not the column."""
    columns = dict(_columns(value))
    failing = [name for name, column in columns.items() if not _succeeds(attempt, column)]
    return failing[0] if failing and (len(failing) < len(columns) or len(columns) == 1) else None


def _succeeds(attempt: Callable[[Any], None], table: Any) -> bool:
    try:
        attempt(table)
    except Exception:  # noqa: BLE001 - whichever it is, the first error is the one to tell
        return False
    return True


def _columns(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield names and first rows of single columns, where the container lets one choose."""
    if hasattr(value, "iloc") and hasattr(value, "columns"):
        for position, name in enumerate(value.columns):
            yield name, value.iloc[:_ROWS, [position]]
    elif hasattr(value, "select") and hasattr(value, "slice"):
        lazy = hasattr(value, "collect_schema")
        for name in value.collect_schema().names() if lazy else value.schema.names:
            yield name, value.slice(0, _ROWS).select([name])
