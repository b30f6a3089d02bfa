"""``dbnd artifacts diff``: two versions of an output, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_provider_dbnd.cli.artifacts import document, one_output
from airflow_provider_dbnd.cli.past import print_json
from airflow_provider_dbnd.cli.tables import print_rows
from airflow_provider_dbnd.core.manifest import to_json
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.past.addresses import Address, Selector, parse
from airflow_provider_dbnd.core.past.diff import Change, Difference, compare
from airflow_provider_dbnd.core.past.lookup import find, history
from airflow_provider_dbnd.core.past.versions import Version
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError

_WIDEST = 40


def diff_artifacts(
    store: ArtifactStore,
    before: str,
    after: str | None,
    *,
    keys: Sequence[str],
    limit: int,
    as_json: bool,
) -> int:
    """Print what differs; return 1 where something does."""
    left, right = _versions(store, before, after)
    difference = compare(left, right, limit=limit, keys=keys)
    if as_json:
        sides = {"before": document(left), "after": document(right)}
        print_json({**sides, **difference.to_json()})
    else:
        print(f"- {_version_text(left)}\n+ {_version_text(right)}")
        print_difference(difference)
    return 0 if difference.same else 1


def _versions(store: ArtifactStore, before: str, after: str | None) -> tuple[Version, Version]:
    address, chosen = parse(before)
    if after is None and chosen == Selector():
        return _last_two(store, address)
    left = one_output(find(store, address, chosen), address)
    if after is None:
        after = str(left.address)
    elif after.startswith("@"):
        after = f"{left.address}{after}"
    address, chosen = parse(after)
    return left, one_output(find(store, address, chosen), address)


def _last_two(store: ArtifactStore, address: Address) -> tuple[Version, Version]:
    found = (one_output(outputs, address) for outputs in history(store, address))
    newest = next(found)
    for older in found:
        if older.digest != newest.digest:
            return older, newest
    raise ArtifactNotFoundError(
        f"{newest.name} has no version before it that differs: name two to compare."
    )


def print_difference(difference: Difference) -> None:
    """Print what differs between two versions."""
    """Print what differs between two versions."""
    if difference.same:
        print("the same data")
        return
    for line in _lines(difference):
        print(line)
    if difference.columns:
        print_rows(list(_column_rows(difference)), indent="  ")
    if difference.changes:
        rows = [[c.where or "value", *_texts(c)] for c in difference.changes]
        print("first values that differ")
        print_rows(rows, indent="  ")
    for line in difference.lines:
        print(f"  {line}")
    if difference.note:
        print(difference.note)


def _lines(difference: Difference) -> Iterator[str]:
    if difference.rows is not None:
        before, after = difference.rows
        unit = "lines" if difference.kind == "text" else "rows"
        moved = f" ({difference.rows_removed} removed, {difference.rows_added} added)"
        rows = difference.rows_removed or difference.rows_added
        yield f"{unit} {before} -> {after}{moved if rows else ''}"
    for sign, shown in (("-", difference.removed), ("+", difference.added)):
        yield from (f"  {sign} {row}" for row in shown)
    for change in difference.schema:
        yield f"  {_schema_text(change)}"


def _schema_text(change: Change) -> str:
    if change.before is MISSING:
        return f"+ {change.where}  {change.after}"
    if change.after is MISSING:
        return f"- {change.where}  {change.before}"
    return f"~ {change.where}  {change.before} -> {change.after}"


def _column_rows(difference: Difference) -> Iterator[list[str]]:
    for column in difference.columns:
        statistics = "  ".join(f"{s.where} {' -> '.join(_texts(s))}" for s in column.statistics)
        yield [column.name or "values", f"{column.cells} differ", statistics]


def _version_text(version: Version) -> str:
    rows = [] if version.rows is None else [f"{version.rows} rows"]
    return f"{version.name}  {', '.join([version.type, *rows, version.digest[:12]])}"


def _texts(change: Change) -> list[str]:
    """Return both sides, short where that shows what differs."""
    sides = (change.before, change.after)
    short = [f"{value:.6g}" if isinstance(value, float) else _text(value) for value in sides]
    return short if short[0] != short[1] else list(map(_text, sides))


def _text(value: Any) -> str:
    if value is MISSING:
        return "-"
    text = str(to_json(value))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
