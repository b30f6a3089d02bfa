"""Which runs a clean-up keeps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from airflow_provider_dbnd.core.conversion import convert
from airflow_provider_dbnd.core.parameters import Parameter
from airflow_provider_dbnd.core.storage import claims
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """A run is kept if one of the rules keeps it. Without any, all runs are.

    :param keep_last: as many runs of each pipeline, the last written.
    :param keep_days: runs that wrote something in the last days.
    :param grace: nothing younger is deleted; as a timedelta or text such as ``"1d"``.

    >>> Policy(keep_last=3, grace="2h").grace
    datetime.timedelta(seconds=7200)
    """

    keep_last: int | None = None
    keep_days: float | None = None
    grace: dt.timedelta = dt.timedelta(days=1)

    def __post_init__(self) -> None:
        for name, type_ in (
            ("keep_last", int | None),
            ("keep_days", float | None),
            ("grace", dt.timedelta),
        ):
            try:
                value = convert(getattr(self, name), type_, Parameter())
            except ValueError as exc:
                raise ConfigurationError(f"gc: {name}: {exc}.") from exc
            if value is not None and name != "grace" and value < 0:
                raise ConfigurationError(f"gc: {name} is {value}: expected 0 or more.")
            object.__setattr__(self, name, value)
        shortest = dt.timedelta(seconds=2 * claims.FRESH)
        if self.grace < shortest:
            raise ConfigurationError(
                f"gc: grace is {self.grace}: expected {shortest} or more. A task needs that time "
                "between its last object and its manifest."
            )

    @classmethod
    def of(cls, table: Mapping[str, Any], **given: Any) -> Policy:
        """Read table ``[gc]`` of the settings; what is *given* and not None goes first."""
        known = [field.name for field in fields(cls)]
        for name in table:
            if name not in known:
                raise ConfigurationError(f"[gc]: unknown key {name!r}{did_you_mean(name, known)}")
        return cls(**{**table, **{k: v for k, v in given.items() if v is not None}})

    def keeps_all(self) -> bool:
        """Tell whether no run is too old."""
        return self.keep_last is None and self.keep_days is None
