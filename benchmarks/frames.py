"""The data that is handed over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


def mixed(megabytes: float) -> pd.DataFrame:
    """Return a frame of all common dtypes and about *megabytes* of memory."""
    rows = max(int(megabytes * 1e6 / 76), 10)
    random = np.random.default_rng(7)
    words = pa.array([f"word-{n:x}" for n in random.integers(0, 2**36, 50_000)])
    value = random.normal(size=rows)
    value[random.integers(0, rows, rows // 20)] = np.nan
    missing = random.random(rows) < 0.05
    start = np.datetime64("2026-01-01", "us")
    seconds = np.sort(random.integers(0, 10**8, rows)).astype("timedelta64[s]")
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "amount": random.integers(0, 10**6, rows),
            "value": value,
            "price": random.random(rows).round(2),
            "name": pd.array(words.take(pa.array(random.integers(0, 50_000, rows))), dtype="str"),
            "when": pd.Series(start + seconds).dt.tz_localize(
                "Europe/Vienna", ambiguous=True, nonexistent="shift_forward"
            ),
            "kind": pd.Categorical.from_codes(random.integers(0, 5, rows), list("abcde")),
            "count": pd.arrays.IntegerArray(random.integers(0, 100, rows), missing),
            "flag": random.random(rows) < 0.5,
        }
    )


def wide(megabytes: float, columns: int = 50) -> pd.DataFrame:
    """Return a frame of *columns* columns of all common dtypes and about *megabytes* of memory."""
    kinds = mixed(megabytes * 9 / columns)
    return pd.DataFrame({f"c{n}": kinds.iloc[:, n % 9] for n in range(columns)})


def numbers(megabytes: float, columns: int = 50) -> pd.DataFrame:
    """Return a frame of *columns* columns of floats and about *megabytes* of memory."""
    rows = max(int(megabytes * 1e6 / 8 / columns), 10)
    random = np.random.default_rng(7)
    return pd.DataFrame({f"c{n}": random.random(rows) for n in range(columns)})


def size(frame: pd.DataFrame) -> int:
    """Return the bytes a frame takes in memory."""
    return int(frame.memory_usage(deep=True).sum())


def touch(frame: pd.DataFrame) -> dict[str, float]:
    """Use every value of every column, as a consumer would, and in next to no memory of its own."""
    return {name: _used(frame[name]) for name in frame.columns}


def _used(column: pd.Series[Any]) -> float:
    rows = 2**20
    parts = (column.iloc[start : start + rows] for start in range(0, len(column), rows))
    return sum(map(_number, parts), 0.0)


def _number(column: pd.Series[Any]) -> float:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return float(column.cat.codes.sum())
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return float(column.max().timestamp())
    if isinstance(column.dtype, pd.StringDtype):
        return float((column == "word-1").sum())
    return float(column.sum())
