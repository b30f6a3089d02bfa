"""Hypothesis strategies for pandas frames of every kind that must come back exactly."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pandas as pd
from hypothesis import strategies as st

NUMBERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float32", "float64"]
NULLABLE = ["Int8", "Int64", "UInt16", "Float32", "Float64", "boolean", "string"]
UNITS = ["s", "ms", "us", "ns"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "+05:30"]

INTERVALS = [
    pd.interval_range(0, 3),
    pd.interval_range(0.5, 2.0, periods=4, closed="both"),
    pd.interval_range(pd.Timestamp("2024-01-01"), periods=3, closed="left"),
    pd.interval_range(pd.Timestamp("2024-03-30", tz="Europe/Berlin"), periods=3),
]

texts = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)


def _values(draw: st.DrawFn, rows: int, elements: st.SearchStrategy) -> list:
    return draw(st.lists(elements, min_size=rows, max_size=rows))


def _integers(dtype: str) -> st.SearchStrategy[int]:
    limits = np.iinfo(dtype.lower())
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def columns(draw: st.DrawFn, rows: int) -> pd.Series:
    kind = draw(st.sampled_from(KINDS))
    return KINDS_BY_NAME[kind](draw, rows)


def numbers(draw: st.DrawFn, rows: int) -> pd.Series:
    dtype = draw(st.sampled_from(NUMBERS))
    return pd.Series(_values(draw, rows, _integers(dtype)), dtype=dtype)


def floats(draw: st.DrawFn, rows: int) -> pd.Series:
    dtype = draw(st.sampled_from(FLOATS))
    width = int(dtype[-2:])
    return pd.Series(_values(draw, rows, st.floats(width=width)), dtype=dtype)


def booleans(draw: st.DrawFn, rows: int) -> pd.Series:
    return pd.Series(_values(draw, rows, st.booleans()), dtype=bool)


def strings(draw: st.DrawFn, rows: int) -> pd.Series:
    dtype = draw(st.sampled_from(["str", object, "string"]))
    return pd.Series(_values(draw, rows, st.none() | texts), dtype=dtype)


def nullable(draw: st.DrawFn, rows: int) -> pd.Series:
    dtype = draw(st.sampled_from(NULLABLE))
    if dtype == "string":
        elements: st.SearchStrategy = texts
    elif dtype == "boolean":
        elements = st.booleans()
    elif dtype.startswith("F"):
        elements = st.floats(width=int(dtype[-2:]), allow_nan=False)
    else:
        elements = _integers(dtype)
    return pd.Series(pd.array(_values(draw, rows, st.none() | elements), dtype=dtype))


def times(draw: st.DrawFn, rows: int) -> pd.Series:
    unit = draw(st.sampled_from(UNITS))
    stamps = np.array(_values(draw, rows, st.integers(-(10**9), 10**9)), dtype="i8")
    stamps = stamps.view(f"M8[{unit}]")
    series = pd.Series(stamps)
    missing = np.array(_values(draw, rows, st.booleans()), dtype=bool)
    series[missing] = pd.NaT
    zone = draw(st.none() | st.sampled_from(ZONES))
    return series.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else series


def durations(draw: st.DrawFn, rows: int) -> pd.Series:
    unit = draw(st.sampled_from(UNITS))
    return pd.Series(np.array(_values(draw, rows, st.integers(-(10**9), 10**9)), f"m8[{unit}]"))


def categories(draw: st.DrawFn, rows: int) -> pd.Series:
    values = draw(
        st.lists(texts, min_size=1, max_size=5, unique=True)
        | st.lists(st.integers(-100, 100), min_size=1, max_size=5, unique=True)
    )
    codes = _values(draw, rows, st.integers(-1, len(values) - 1))
    return pd.Series(pd.Categorical.from_codes(codes, values, ordered=draw(st.booleans())))


def dates(draw: st.DrawFn, rows: int) -> pd.Series:
    return pd.Series(_values(draw, rows, st.none() | st.dates(dt.date(1700, 1, 1))), dtype=object)


def decimals(draw: st.DrawFn, rows: int) -> pd.Series:
    exact = st.decimals(-1000, 1000, places=2).map(decimal.Decimal)
    return pd.Series(_values(draw, rows, exact), dtype=object)


def lists(draw: st.DrawFn, rows: int) -> pd.Series:
    series = pd.Series(np.empty(rows, object), dtype=object)
    for row, value in enumerate(_values(draw, rows, st.lists(st.integers(-9, 9), max_size=3))):
        series.iat[row] = value
    return series


def periods(draw: st.DrawFn, rows: int) -> pd.Series:
    ordinals = _values(draw, rows, st.integers(0, 500))
    return pd.Series(pd.PeriodIndex.from_ordinals(ordinals, freq="M"))


def intervals(draw: st.DrawFn, rows: int) -> pd.Series:
    values = draw(st.sampled_from(INTERVALS))
    missing = values.dtype.subtype.kind != "i" and draw(st.booleans())
    numbers = _values(draw, rows, st.integers(-1 if missing else 0, len(values) - 1))
    return pd.Series(values.take(numbers, allow_fill=missing).array)


def bins(draw: st.DrawFn, rows: int) -> pd.Series:
    """What pandas.cut returns."""
    values = draw(st.sampled_from([*INTERVALS, pd.period_range("2024-01", periods=3, freq="M")]))
    codes = _values(draw, rows, st.integers(-1, len(values) - 1))
    return pd.Series(pd.Categorical.from_codes(codes, values, ordered=draw(st.booleans())))


KINDS_BY_NAME = {
    function.__name__: function
    for function in (
        numbers,
        floats,
        booleans,
        strings,
        nullable,
        times,
        durations,
        categories,
        dates,
        decimals,
        lists,
        periods,
        intervals,
        bins,
    )
}
KINDS = sorted(KINDS_BY_NAME)


INDEXES = ["default", "range", "int", "text", "time", "category", "bins", "multi"]


@st.composite
def indexes(draw: st.DrawFn, rows: int) -> pd.Index:
    kind = draw(st.sampled_from(INDEXES))
    name = draw(st.none() | names)
    if kind == "range":
        return pd.RangeIndex(5, 5 + 3 * rows, 3, name=name)
    if kind == "int":
        return pd.Index(np.arange(rows)[::-1].copy(), name=name)
    if kind == "text":
        return pd.Index(_values(draw, rows, texts), dtype="str", name=name)
    if kind == "time":
        return pd.date_range("2024-01-01", periods=rows, freq="D", tz="Europe/Berlin", name=name)
    if kind == "category":
        return pd.CategoricalIndex(["a"] * rows, categories=["b", "a"], name=name)
    if kind == "bins":
        return pd.CategoricalIndex(pd.cut(np.arange(rows), [-1, 3, 9]), name=name)
    if kind == "multi":
        times_ = pd.DatetimeIndex(np.arange(rows).astype("M8[us]"))
        return pd.MultiIndex.from_arrays([np.arange(rows), times_], names=[name, None])
    return pd.RangeIndex(rows)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 12))
    labels = draw(
        st.lists(names, max_size=5, unique=True) | st.integers(0, 4).map(lambda n: list(range(n)))
    )
    frame = pd.DataFrame({label: draw(columns(rows)) for label in labels}, index=range(rows))
    frame.index = draw(indexes(rows))
    if draw(st.booleans()):
        frame.columns.name = draw(st.none() | names)
    frame.attrs = draw(st.just({}) | st.just({"source": ["a", 1, None]}))
    return frame
