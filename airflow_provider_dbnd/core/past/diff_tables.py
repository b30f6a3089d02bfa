"""Comparing tables: column by column with Arrow, whatever engine and format stored them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core.formats.canonical import logical_type
from airflow_provider_dbnd.core.past.diff import Change, ColumnChange, Difference
from airflow_provider_dbnd.core.past.versions import Version
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ParameterError

#: Names of the row numbers in a join; no column of a user's is called like this.
_ROWS = ("__dbnd_before", "__dbnd_after")


def compare_in_order(before: Version, after: Version, *, limit: int) -> Difference:
    """Compare row 0 with row 0 and so on; rows beyond the shorter table are added or removed."""
    left, right = _Side(_stream(before)), _Side(_stream(after))
    cells = _Cells(limit)
    for number, a, b in _aligned(left, right):
        cells.compare(a, b, lambda row, at=number: f"row {at + row}")
    left.drain()
    right.drain()
    removed, added = max(0, left.rows - right.rows), max(0, right.rows - left.rows)
    return _difference(left, right, cells, rows_removed=removed, rows_added=added)


def compare_by_key(
    before: Version, after: Version, *, limit: int, keys: Sequence[str]
) -> Difference:
    """Compare the rows that have the same key; others are added or removed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tables = [_keyed(version, keys) for version in (before, after)]
    numbered = [
        table.select(keys).append_column(name, pa.array(range(table.num_rows), pa.int64()))
        for table, name in zip(tables, _ROWS, strict=True)
    ]
    try:
        joined = numbered[0].join(numbered[1], list(keys), join_type="full outer")
    except pa.ArrowException as exc:
        raise ParameterError(f"the keys of both tables cannot be matched: {exc}") from exc
    joined = joined.sort_by([(name, "ascending") for name in _ROWS])
    both = pc.and_(*(pc.is_valid(joined[name]) for name in _ROWS))
    matched = joined.filter(both)
    left, right = (_Side(iter(table.to_batches())) for table in tables)
    left.drain()
    right.drain()
    a, b = (
        table.take(matched[name]).combine_chunks()
        for table, name in zip(tables, _ROWS, strict=True)
    )
    cells = _Cells(limit, skipped=keys)
    cells.compare(a, b, lambda row: _key_text(a, keys, row))
    alone = [joined.filter(pc.is_null(joined[name])).select(keys) for name in reversed(_ROWS)]
    removed, added = (
        tuple(_key_text(rows, keys, row) for row in range(min(limit, rows.num_rows)))
        for rows in alone
    )
    return _difference(
        left,
        right,
        cells,
        rows_removed=alone[0].num_rows,
        rows_added=alone[1].num_rows,
        removed=removed,
        added=added,
    )


def _difference(left: _Side, right: _Side, cells: _Cells, **rows: Any) -> Difference:
    schema = tuple(_schema_changes(left.types, right.types))
    columns = []
    for name in dict.fromkeys([*left.columns, *right.columns]):
        if name in left.columns and name in right.columns:
            statistics = tuple(_statistics_changes(left.columns[name], right.columns[name]))
            if statistics or cells.counts.get(name):
                changed = cells.counts.get(name, 0)
                columns.append(ColumnChange(name=name, cells=changed, statistics=statistics))
    found = schema or columns or any(rows.values())
    note = None if found else "all values are equal; order, index, dtypes or metadata differ"
    return Difference(
        kind="table",
        rows=(left.rows, right.rows),
        schema=schema,
        columns=tuple(columns),
        changes=tuple(cells.first),
        note=note,
        **rows,
    )


def _schema_changes(before: dict[str, str], after: dict[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            sides = {"before": before.get(name), "after": after.get(name)}
            yield Change(where=name, **{k: v for k, v in sides.items() if v is not None})
    shared = [
        [name for name in side if name in before and name in after] for side in (before, after)
    ]
    if shared[0] != shared[1]:
        yield Change(where="(order)", before=", ".join(before), after=", ".join(after))


class _Cells:
    """Counts the cells that differ in each column, and keeps the first."""

    def __init__(self, limit: int, skipped: Sequence[str] = ()) -> None:
        self.counts: dict[str, int] = {}
        self.first: list[Change] = []
        self._limit, self._skipped = limit, skipped

    def compare(self, before: Any, after: Any, label: Any) -> None:
        """Compare two tables of as many rows."""
        found = []
        for position, name in enumerate(before.schema.names):
            if name not in after.schema.names or name in self._skipped:
                continue
            left, right = _plain(before.column(name)), _plain(after.column(name))
            rows = _unequal(left, right)
            self.counts[name] = self.counts.get(name, 0) + len(rows)
            first = rows[: self._limit].tolist()
            found += [(row, position, name, left[row], right[row]) for row in first]
        for row, _, name, left, right in sorted(found, key=lambda each: each[:2]):
            if len(self.first) == self._limit:
                return
            change = Change(where=f"{label(row)}, {name}", before=left.as_py(), after=right.as_py())
            self.first.append(change)


@dataclass
class _Statistics:
    """Of one column, over all blocks."""

    nulls: int = 0
    min: Any = None
    max: Any = None
    total: float | None = None
    count: int = 0

    def add(self, array: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.nulls += array.null_count
        if pa.types.is_floating(array.type):
            array = array.filter(pc.invert(pc.is_nan(array)))
        if array.null_count == len(array):
            return
        try:
            bounds = pc.min_max(array).as_py()
        except pa.ArrowNotImplementedError:
            return  # nested values have no order
        self.min = bounds["min"] if self.min is None else min(self.min, bounds["min"])
        self.max = bounds["max"] if self.max is None else max(self.max, bounds["max"])
        kind = array.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            total = pc.sum(array.cast(pa.float64(), safe=False)).as_py()
            self.total = (self.total or 0.0) + total
            self.count += len(array) - array.null_count

    @property
    def mean(self) -> float | None:
        return None if self.total is None else self.total / self.count


def _statistics_changes(before: _Statistics, after: _Statistics) -> Iterator[Change]:
    for name in ("nulls", "min", "max", "mean"):
        left, right = getattr(before, name), getattr(after, name)
        # Sums of the same numbers in another order may differ in the last digits.
        near = name == "mean" and None not in (left, right) and math.isclose(left, right)
        if left != right and not near:
            yield Change(where=name, before=left, after=right)


@dataclass
class _Side:
    """One table on its way through: its batches, and what is known of those that passed."""

    batches: Iterator[Any]
    rows: int = 0
    types: dict[str, str] = field(default_factory=dict)
    columns: dict[str, _Statistics] = field(default_factory=dict)

    def next(self) -> Any:
        """Return the next batch, None at the end."""
        batch = next(self.batches, None)
        if batch is None:
            return None
        self.rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            self.types.setdefault(name, logical_type(batch.schema.field(name).type))
            self.columns.setdefault(name, _Statistics()).add(_plain(column))
        return batch

    def drain(self) -> None:
        """Take in what is left."""
        while self.next() is not None:
            pass


def _aligned(left: _Side, right: _Side) -> Iterator[tuple[int, Any, Any]]:
    """Yield (first row, rows of one, as many rows of the other) while both have some."""
    a, b = left.next(), right.next()
    start = 0
    while a is not None and b is not None:
        n = min(a.num_rows, b.num_rows)
        yield start, a.slice(0, n), b.slice(0, n)
        start += n
        a = a.slice(n) if a.num_rows > n else left.next()
        b = b.slice(n) if b.num_rows > n else right.next()


def _stream(version: Version) -> Iterator[Any]:
    import pyarrow as pa

    batches: Iterator[Any] = version.load(Iterator[pa.RecordBatch])
    return batches


def _keyed(version: Version, keys: Sequence[str]) -> Any:
    import pyarrow as pa

    table = version.load(pa.Table)
    for name in keys:
        if name not in table.schema.names:
            raise ParameterError(
                f"{version.name} has no column {name!r}{did_you_mean(name, table.schema.names)}"
            )
    table = pa.table({name: _plain(table.column(name)) for name in table.schema.names})
    counted = table.select(keys).group_by(list(keys)).aggregate([([], "count_all")])
    if counted.num_rows < table.num_rows:
        raise ParameterError(
            f"{', '.join(keys)} does not name a row of {version.name}: {table.num_rows} rows have "
            f"{counted.num_rows} different keys."
        )
    return table


def _key_text(table: Any, keys: Sequence[str], row: int) -> str:
    return ", ".join(f"{name}={table.column(name)[row].as_py()!r}" for name in keys)


def _plain(column: Any) -> Any:
    """Return a column in one piece, without dictionary, text and bytes in the form that computes."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        return _computable(column.dictionary).take(column.indices)
    return _computable(column)


def _computable(array: Any) -> Any:
    """Return text and bytes with large offsets: no kernel takes the views that polars hands out."""
    import pyarrow as pa

    if array.type in (pa.string(), pa.string_view()):
        return array.cast(pa.large_string())
    if array.type in (pa.binary(), pa.binary_view()):
        return array.cast(pa.large_binary())
    return array


def _unequal(left: Any, right: Any) -> Any:
    """Return the numbers of the rows in which two columns differ; null is equal to null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        equal = pc.equal(left, right) if left.type == right.type else None
    except pa.ArrowNotImplementedError:
        equal = None
    if equal is None:
        pairs = enumerate(zip(left.to_pylist(), right.to_pylist(), strict=True))
        return np.array([row for row, (a, b) in pairs if not _equal(a, b)], dtype=np.int64)
    equal = pc.fill_null(equal, False)
    for nothing in (pc.is_null, pc.is_nan) if pa.types.is_floating(left.type) else (pc.is_null,):
        both = pc.and_(nothing(left), nothing(right))
        equal = pc.or_(equal, pc.fill_null(both, False))
    return np.flatnonzero(~equal.to_numpy(zero_copy_only=False))


def _equal(left: Any, right: Any) -> bool:
    both_nan = left != left and right != right  # noqa: PLR0124 - NaN alone is not itself
    return bool(left == right) or both_nan
