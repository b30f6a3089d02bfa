"""What the engines on Amazon's services have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Poll often enough for short tasks, and as long as a task may take: Airflow's own execution_timeout
#: is what limits it. The operators' defaults would give up after half an hour.
LONG: Mapping[str, Any] = {"waiter_delay": 15, "waiter_max_attempts": 4 * 60 * 24 * 7}

_UNKNOWN = ("InvalidRequestException", "ResourceNotFoundException", "ValidationException")


def own_connection(conn_id: str | None) -> str | None:
    """Return *conn_id* if somebody chose it: the default need not be there, AWS has other ways."""
    return None if conn_id in (None, "", "aws_default") else conn_id


def is_unknown(error: BaseException) -> bool:
    """Tell whether AWS answered that there is no such thing."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, Mapping) else None
    return code in _UNKNOWN
