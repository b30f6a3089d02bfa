"""Values in the path of an output stay where the path leads."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from airflow_provider_dbnd.core.output_path import filled
from airflow_provider_dbnd.exceptions import ParameterError


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("{store}/{a}.csv", {"store": "s3://b/x", "a": "eu/de"}, "s3://b/x/eu/de.csv"),
        ("{folder}/{a}.csv", {"folder": "../out", "a": "eu"}, "../out/eu.csv"),
        ("{target}", {"target": "../x.csv"}, "../x.csv"),
        ("../out/{a}.csv", {"a": "a..b"}, "../out/a..b.csv"),
        ("{a}.csv", {"a": "eu/de"}, "eu/de.csv"),
        ("out/{day:%Y/%m}/{a!r}.csv", {"day": dt.date(2020, 1, 2), "a": 1}, "out/2020/01/1.csv"),
    ],
)
def test_a_path_is_filled_in(template: str, values: dict[str, Any], expected: str) -> None:
    assert filled(template, values) == expected


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("{store}/{a}.csv", {"store": "/data", "a": "../../dags/evil"}),
        ("{store}/{a}/x.csv", {"store": "/data", "a": ".."}),
        ("{store}/{a}{b}/x.csv", {"store": "/data", "a": ".", "b": "."}),
        ("{store}/.{a}/x.csv", {"store": "/data", "a": "."}),
        ("{store}/{a}.csv", {"store": "/data", "a": ""}),
        ("{a}.csv", {"a": "../x"}),
        ("{a}.csv", {"a": "/etc/x"}),
        ("{a}.csv", {"a": "s3://other/x"}),
    ],
)
def test_a_value_that_leads_elsewhere_is_refused(template: str, values: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="a name that stays below what the path begins with"):
        filled(template, values)
