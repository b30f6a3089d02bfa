"""What differs between two versions: schema, rows, statistics, values; a bounded number of each.

Tables are compared block by block, in the memory of two blocks, row by row in order; with ``keys``
both are read whole and rows are matched by them. A pickle is never loaded to be compared.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.formats.same import same
from airflow_provider_dbnd.core.manifest import to_json
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.past.versions import Version
from airflow_provider_dbnd.core.references import replaced
from airflow_provider_dbnd.exceptions import ParameterError

Kind: TypeAlias = Literal["table", "array", "json", "text", "other"]

#: Longer texts take minutes to align.
_MOST_LINES = 5000
_KINDS: dict[str, Kind] = {"json": "json", "text": "text", "npy": "array"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing that differs. What one side lacks is MISSING there."""

    where: str
    before: Any = MISSING
    after: Any = MISSING

    def to_json(self) -> dict[str, Any]:
        """Return what there is of it as plain JSON."""
        each = {"before": self.before, "after": self.after}
        known = {name: to_json(value) for name, value in each.items() if value is not MISSING}
        return {"where": self.where, **known}


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnChange:
    """A column, or an array, with other values: how many, and those statistics that differ."""

    name: str
    cells: int
    statistics: tuple[Change, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What differs. ``same`` tells whether the data is equal; then nothing else is said.

    ``schema`` is columns and types, ``changes`` the first values that differ, ``removed`` and
    ``added`` the first rows that only one side has and ``rows_removed``, ``rows_added`` how many.
    """

    kind: Kind
    same: bool = False
    rows: tuple[int, int] | None = None
    rows_removed: int = 0
    rows_added: int = 0
    schema: tuple[Change, ...] = ()
    columns: tuple[ColumnChange, ...] = ()
    changes: tuple[Change, ...] = ()
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, without what is empty."""
        document = {field.name: getattr(self, field.name) for field in fields(self)}
        document["columns"] = [
            {"name": c.name, "cells": c.cells, "statistics": [s.to_json() for s in c.statistics]}
            for c in self.columns
        ]
        for name in ("schema", "changes"):
            document[name] = [change.to_json() for change in document[name]]
        kept = ("kind", "same")
        return {
            n: to_json(v) for n, v in document.items() if n in kept or v not in (None, 0, [], ())
        }


def compare(
    before: Version, after: Version, *, limit: int = 10, keys: Sequence[str] = ()
) -> Difference:
    """Say what differs between two versions.

    :param limit: at most how many values, rows and lines are shown.
    :param keys: columns that name a row, to match rows of tables by instead of their position.
    """
    kinds = {_kind(before), _kind(after)}
    kind = kinds.pop() if len(kinds) == 1 else "json" if kinds == {"json", "text"} else "other"
    if keys and kind != "table":
        raise ParameterError(f"keys match rows of tables, but {after.name} is a {after.type}.")
    if before.digest == after.digest:
        return Difference(kind=kind, same=True)
    if kind == "table":
        from airflow_provider_dbnd.core.past.diff_tables import compare_by_key, compare_in_order

        if keys:
            return compare_by_key(before, after, limit=limit, keys=keys)
        return compare_in_order(before, after, limit=limit)
    if kind == "array":
        return _arrays(before, after, limit)
    if kind == "text":
        return _texts(before, after, limit)
    if kind == "json":
        return _values(before.load(), after.load(), limit)
    if not (is_reference(before.encoded) and is_reference(after.encoded)):
        return _structures(before, after, limit)
    return Difference(
        kind="other",
        note=f"{_said(before)} and {_said(after)} are compared by their digests only",
    )


def changed(before: Any, after: Any, where: str = "") -> Iterator[Change]:
    """Yield where two JSON values differ.

    >>> [(c.where, c.before, c.after) for c in changed({"a": [1, 2]}, {"a": [1, 3]})]
    [('a[1]', 2, 3)]
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            inner = f"{where}.{name}".lstrip(".")
            yield from changed(before.get(name, MISSING), after.get(name, MISSING), inner)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        pairs = zip_longest(before, after, fillvalue=MISSING)
        for position, (left, right) in enumerate(pairs):
            yield from changed(left, right, f"{where}[{position}]")
    elif not same(before, after):
        yield Change(where=where, before=before, after=after)


def _kind(version: Version) -> Kind:
    encoded = version.encoded
    if is_reference(encoded):
        return "table" if "schema" in encoded else _KINDS.get(encoded["format"], "other")
    if version.artifacts:
        return "other"
    return "text" if isinstance(encoded, str) else "json"


def _values(before: Any, after: Any, limit: int) -> Difference:
    found = list(changed(before, after))
    note = None if found else "the values are equal and of other types"
    more = f"{len(found) - limit} more values differ" if len(found) > limit else note
    return Difference(kind="json", changes=tuple(found[:limit]), note=more)


def _structures(before: Version, after: Version, limit: int) -> Difference:
    """Compare lists and dicts of artifacts element by element, by what the references say."""

    def short(version: Version) -> Any:
        return replaced(version.encoded, lambda r: _said(_element(version, r)))

    difference = _values(short(before), short(after), limit)
    return Difference(kind="other", changes=difference.changes, note=difference.note)


def _element(version: Version, reference: Any) -> Version:
    return Version(
        store=version.store,
        address=version.address,
        run_id=version.run_id,
        encoded=reference,
        ended=version.ended,
    )


def _said(version: Version) -> str:
    rows = "" if version.rows is None else f" of {version.rows} rows"
    return f"{version.type}{rows} {version.digest[:12]}"


def _texts(before: Version, after: Version, limit: int) -> Difference:
    left, right = (version.load().splitlines() for version in (before, after))
    sizes = (len(left), len(right))
    if max(sizes) > _MOST_LINES:
        pairs = enumerate(zip(left, right, strict=False), 1)
        first = next((n for n, (a, b) in pairs if a != b), min(sizes) + 1)
        return Difference(kind="text", rows=sizes, note=f"they differ from line {first} on")
    lines = list(difflib.unified_diff(left, right, lineterm="", n=1))[2:]
    more = f"{len(lines) - limit} more lines" if len(lines) > limit else None
    note = more if lines else "they differ in line ends only"
    return Difference(kind="text", rows=sizes, lines=tuple(lines[:limit]), note=note)


def _arrays(before: Version, after: Version, limit: int) -> Difference:
    import numpy as np

    left, right = before.load(), after.load()
    schema = [
        Change(where=what, before=str(a), after=str(b))
        for what, a, b in (("dtype", left.dtype, right.dtype), ("shape", left.shape, right.shape))
        if a != b
    ]
    if left.shape != right.shape:
        return Difference(kind="array", schema=tuple(schema))
    differs = left != right
    if left.dtype.kind in "fc" and right.dtype.kind in "fc":
        differs &= ~(np.isnan(left) & np.isnan(right))
    places = np.argwhere(differs)
    changes = (
        Change(where=f"[{', '.join(map(str, place))}]", before=left[place], after=right[place])
        for place in map(tuple, places[:limit].tolist())
    )
    numbers = [a.dtype.kind in "biuf" and a.size for a in (left, right)]
    statistics = [
        Change(where=name, before=a, after=b)
        for name in ("min", "max", "mean")
        if all(numbers)
        and (a := getattr(left, name)().item()) != (b := getattr(right, name)().item())
    ]
    column = ColumnChange(name="", cells=len(places), statistics=tuple(statistics))
    return Difference(
        kind="array",
        schema=tuple(schema),
        columns=(column,) if len(places) else (),
        changes=tuple(changes),
    )
