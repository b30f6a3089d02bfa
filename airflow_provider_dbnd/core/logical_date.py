"""``LOGICAL_DATE`` in the arguments of a run: its date, as the type that asks for it."""

from __future__ import annotations

import datetime as dt
import typing
from typing import Any

from airflow_provider_dbnd.core.conversion import (
    elements_of,
    is_union,
    record_fields,
    values_of,
    without_none,
)
from airflow_provider_dbnd.core.graph import walk
from airflow_provider_dbnd.core.parameters import RunValue


def takes_run_value(value: Any) -> bool:
    """Tell whether *value* is, or holds at any depth, what only a run can fill in."""
    return any(isinstance(leaf, RunValue) for leaf in walk(value))


def dated(value: Any, annotation: Any, date: str) -> Any:
    """Return *value* with the logical date *date* in it: a day, or a time in UTC as Airflow's is.

    What *annotation* leaves open is of the type of the pipeline's parameter.
    """
    if isinstance(value, RunValue):
        return _as(_kind(annotation) or _kind(value.annotation) or dt.datetime, date)
    if type(value) in (list, tuple):
        types = elements_of(annotation, len(value))
        return type(value)(dated(v, t, date) for v, t in zip(value, types, strict=True))
    if type(value) is dict:
        fields, others = record_fields(without_none(annotation)), values_of(annotation)
        return {k: dated(v, fields.get(k, others), date) for k, v in value.items()}
    return value


def _kind(annotation: Any) -> type | None:
    target = without_none(annotation)
    arms = typing.get_args(target) if is_union(target) else (target,)
    return next((kind for kind in (dt.datetime, dt.date, str) if kind in arms), None)


def _as(kind: type, date: str) -> Any:
    moment = dt.datetime.fromisoformat(date.replace("Z", "+00:00"))
    zone = moment.tzinfo or dt.timezone.utc
    moment = moment.replace(tzinfo=zone).astimezone(dt.timezone.utc)
    if kind is dt.date:
        return moment.date()
    return moment.isoformat() if kind is str else moment
