"""What differs between two versions: tables, arrays, JSON, text, structures."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_project import Project
from pandas import DataFrame

from airflow_provider_dbnd import output, pipeline, task
from airflow_provider_dbnd.core.parameters import Output
from airflow_provider_dbnd.core.past.addresses import Address
from airflow_provider_dbnd.core.past.diff import Difference, compare
from airflow_provider_dbnd.core.past.versions import Version
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import Encoder
from airflow_provider_dbnd.exceptions import ParameterError


def stored(store: ArtifactStore, value: Any, run_id: str, format: str | None = None) -> Version:
    encoder = Encoder(store=store, pipeline="p", task_id="t")
    address = Address(pipeline="p", task="t", output="o")
    encoded = encoder.encode(value, "o", Output(format=format))
    now = dt.datetime.now(dt.timezone.utc)
    return Version(store=store, address=address, run_id=run_id, encoded=encoded, ended=now)


def difference(project: Project, before: Any, after: Any, **options: Any) -> Difference:
    formats = options.pop("formats", (None, None))
    versions = (
        stored(project.store, value, run_id, format)
        for value, run_id, format in zip((before, after), ("a", "b"), formats, strict=True)
    )
    return compare(*versions, **options)


def changes(difference: Difference) -> list[tuple[str, Any, Any]]:
    return [(c.where, c.before, c.after) for c in difference.changes]


def test_equal_data_is_the_same_whatever_stored_it(project: Project) -> None:
    before, after = DataFrame({"x": [1, 2]}), pl.DataFrame({"x": [1, 2]})

    found = difference(project, before, after, formats=("parquet", "arrow"))

    assert found == Difference(kind="table", same=True)


def test_cells_that_differ_are_counted_and_the_first_shown(project: Project) -> None:
    before = DataFrame({"x": range(100), "y": ["a"] * 100, "z": [0.5] * 100})
    after = before.assign(x=before["x"].where(before["x"] < 40, -1)).copy()
    after.loc[7, "y"] = "b"

    found = difference(project, before, after, limit=3)

    assert changes(found) == [("row 7, y", "a", "b"), ("row 40, x", 40, -1), ("row 41, x", 41, -1)]
    assert {c.name: c.cells for c in found.columns} == {"x": 60, "y": 1}
    assert (found.rows, found.rows_added, found.rows_removed) == ((100, 100), 0, 0)


def test_statistics_are_given_where_they_differ(project: Project) -> None:
    before = DataFrame({"x": [1.0, 2.0, None], "s": ["a", "b", "c"]})
    after = DataFrame({"x": [1.0, 4.0, 7.0], "s": ["a", "b", "d"]})

    found = difference(project, before, after)

    statistics = {
        column.name: {s.where: (s.before, s.after) for s in column.statistics}
        for column in found.columns
    }
    assert statistics == {
        "x": {"nulls": (1, 0), "max": (2.0, 7.0), "mean": (1.5, 4.0)},
        "s": {"max": ("c", "d")},
    }


def test_columns_come_go_and_change_their_type(project: Project) -> None:
    before = DataFrame({"a": [1], "b": [1], "c": [1]})
    after = DataFrame({"c": [1], "b": [1.0], "d": ["new"]})

    found = difference(project, before, after)

    assert [change.to_json() for change in found.schema] == [
        {"where": "a", "before": "int64"},
        {"where": "b", "before": "int64", "after": "double"},
        {"where": "d", "after": "string"},
        {"where": "(order)", "before": "a, b, c", "after": "c, b, d"},
    ]
    assert found.changes == ()  # 1 is equal to 1.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1.0, float("nan"), None], [1.0, float("nan"), None]),
        ([[1, 2], None, []], [[1, 2], None, []]),
        ([{"a": 1}, None, {"a": None}], [{"a": 1}, None, {"a": None}]),
        ([decimal.Decimal("1.10")] * 3, [decimal.Decimal("1.10")] * 3),
        ([b"x", None, b""], [b"x", None, b""]),
    ],
)
def test_nothing_is_equal_to_nothing(project: Project, before: list[Any], after: list[Any]) -> None:
    left = pl.DataFrame({"x": before, "y": [1, 2, 3]}, strict=False)
    right = pl.DataFrame({"x": after, "y": [1, 2, 4]}, strict=False)

    found = difference(project, left, right)

    assert changes(found) == [("row 2, y", 3, 4)]


def test_nested_and_categorical_values_are_compared(project: Project) -> None:
    before = pl.DataFrame({"l": [[1, 2], [3]], "c": pl.Series(["a", "b"], dtype=pl.Categorical)})
    after = pl.DataFrame({"l": [[1, 2], [4]], "c": pl.Series(["c", "b"], dtype=pl.Categorical)})

    found = difference(project, before, after)

    assert changes(found) == [("row 0, c", "a", "c"), ("row 1, l", [3], [4])]


def test_rows_at_the_end_are_added_or_removed(project: Project) -> None:
    before, after = DataFrame({"x": range(5)}), DataFrame({"x": range(8)})

    assert difference(project, before, after).rows_added == 3
    assert difference(project, after, before).rows_removed == 3
    assert difference(project, before, after).changes == ()


@pytest.mark.parametrize("keys", [[], ["k"]])
def test_a_table_that_became_empty_is_compared(project: Project, keys: list[str]) -> None:
    before = DataFrame({"k": [1, 2], "c": pd.Categorical(["a", "b"])})

    found = difference(project, before, before[:0], keys=keys)

    assert (found.rows, found.rows_removed, found.changes) == ((2, 0), 2, ())


def test_a_key_matches_rows_wherever_they_are(project: Project) -> None:
    before = DataFrame({"day": [1, 1, 2, 2], "hour": [1, 2, 1, 2], "x": [1.0, 2.0, 3.0, 4.0]})
    after = DataFrame({"day": [2, 3, 1, 1], "hour": [1, 1, 2, 1], "x": [3.0, 9.0, 5.0, 1.0]})

    found = difference(project, before, after, keys=["day", "hour"])

    assert changes(found) == [("day=1, hour=2, x", 2.0, 5.0)]
    assert (found.rows_removed, found.removed) == (1, ("day=2, hour=2",))
    assert (found.rows_added, found.added) == (1, ("day=3, hour=1",))


def test_rows_in_another_order_differ_without_a_key_and_not_with_one(project: Project) -> None:
    before = DataFrame({"k": ["a", "b", "c"], "x": [1, 2, 3]})
    after = before[::-1].reset_index(drop=True)

    assert difference(project, before, after).columns[0].cells == 2
    with_key = difference(project, before, after, keys=["k"])
    assert (with_key.same, with_key.changes, with_key.columns) == (False, (), ())
    assert with_key.note == "all values are equal; order, index, dtypes or metadata differ"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["kk"], "p/t/o@a has no column 'kk'; did you mean 'k'?"),
        (["x"], "x does not name a row of p/t/o@a: 3 rows have 1 different keys."),
    ],
)
def test_a_key_that_names_no_row_is_refused(
    project: Project, keys: list[str], message: str
) -> None:
    before = DataFrame({"k": [1, 2, 3], "x": [1, 1, 1]})

    with pytest.raises(ParameterError) as error:
        difference(project, before, before.assign(x=2), keys=keys)

    assert str(error.value) == message


def test_keys_of_two_types_cannot_be_matched(project: Project) -> None:
    before, after = DataFrame({"k": [1]}), DataFrame({"k": ["1"]})

    with pytest.raises(ParameterError, match="the keys of both tables cannot be matched"):
        difference(project, before, after, keys=["k"])


def test_an_index_that_differs_is_noted(project: Project) -> None:
    before = DataFrame({"x": [1, 2]})
    after = DataFrame({"x": [1, 2]}, index=pd.RangeIndex(5, 7))

    found = difference(project, before, after)

    assert not found.same
    assert found.note == "all values are equal; order, index, dtypes or metadata differ"


def test_tables_of_many_blocks_are_compared_to_the_last_row(project: Project) -> None:
    rows = 300_000
    before = DataFrame({"x": np.arange(rows)})
    after = before.copy()
    after.loc[[1, 200_000, rows - 1], "x"] = -1

    found = difference(project, before, after, formats=("arrow", "parquet"))

    assert [change.where for change in found.changes] == [
        "row 1, x",
        "row 200000, x",
        "row 299999, x",
    ]
    assert found.columns[0].cells == 3


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    columns=st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.none() | st.floats(allow_nan=True)),
        min_size=1,
        max_size=30,
    )
)
def test_as_many_cells_differ_as_python_finds(
    project: Project, columns: list[tuple[int, int, float | None]]
) -> None:
    before = pl.DataFrame({"x": [a for a, _, _ in columns], "y": [c for _, _, c in columns]})
    after = pl.DataFrame({"x": [b for _, b, _ in columns], "y": [c for _, _, c in columns]})

    found = difference(project, before, after, limit=100)

    expected = [(f"row {i}, x", a, b) for i, (a, b, _) in enumerate(columns) if a != b]
    assert changes(found) == expected
    assert found.same == (not expected)


def test_json_is_compared_by_its_paths(project: Project) -> None:
    before = {"a": {"b": [1, 2, 3]}, "gone": None, "same": "x"}
    after = {"a": {"b": [1, 5]}, "new": True, "same": "x"}

    found = difference(project, before, after)

    assert [change.to_json() for change in found.changes] == [
        {"where": "a.b[1]", "before": 2, "after": 5},
        {"where": "a.b[2]", "before": 3},
        {"where": "gone", "before": None},
        {"where": "new", "after": True},
    ]


def test_a_value_that_grew_into_an_artifact_is_compared(project: Project) -> None:
    found = difference(project, {"n": 1}, {"n": 1, "more": list(range(1000))}, limit=1)

    assert found.kind == "json"
    assert [change.where for change in found.changes] == ["more"]


def test_numbers_of_json_beyond_the_limit_are_counted(project: Project) -> None:
    found = difference(project, list(range(20)), list(range(1, 21)), limit=2)

    assert len(found.changes) == 2
    assert found.note == "18 more values differ"


def test_text_is_compared_by_lines(project: Project) -> None:
    before = "\n".join(f"line {i}" for i in range(300))
    after = before.replace("line 100\n", "line one hundred\n")

    found = difference(project, before, after)

    assert found.kind == "text"
    assert found.lines[1:] == (" line 99", "-line 100", "+line one hundred", " line 101")


def test_arrays_are_compared_by_element(project: Project) -> None:
    before = np.array([[1.0, np.nan], [3.0, 4.0]])
    after = np.array([[1.0, np.nan], [3.0, 5.0]])

    found = difference(project, before, after)

    assert changes(found) == [("[1, 1]", 4.0, 5.0)]
    assert found.columns[0].cells == 1
    assert difference(project, before, after.ravel()).schema[0].to_json() == {
        "where": "shape",
        "before": "(2, 2)",
        "after": "(4,)",
    }


def test_a_structure_is_compared_by_what_its_references_say(project: Project) -> None:
    before = [DataFrame({"x": [1]}), DataFrame({"x": [2]})]
    after = [DataFrame({"x": [1]}), DataFrame({"x": [2, 3]})]

    found = difference(project, before, after)

    (change,) = found.changes
    assert change.where == "[1]"
    assert str(change.after).startswith("pandas.DataFrame of 2 rows ")


class Trap:
    """Tells when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("unpickled"),))


def test_a_pickle_is_not_loaded_to_be_compared(project: Project) -> None:
    found = difference(project, Trap(), {1: 2}, formats=("pickle", "pickle"))

    assert found.note is not None
    assert "are compared by their digests only" in found.note
    assert not Path("unpickled").exists()


def test_a_difference_is_json(project: Project) -> None:
    before = DataFrame({"t": pd.to_datetime(["2026-01-01"]), "x": [1.0]})
    after = DataFrame({"t": pd.to_datetime(["2026-01-02"]), "x": [float("inf")]})

    document = difference(project, before, after).to_json()

    assert document["changes"] == [
        {"where": "row 0, t", "before": "2026-01-01T00:00:00", "after": "2026-01-02T00:00:00"},
        {"where": "row 0, x", "before": 1.0, "after": "inf"},
    ]
    assert "removed" not in document


@task
def table(n: int) -> Annotated[DataFrame, output.csv]:
    return DataFrame({"x": range(n)})


@pipeline
def tables(n: int) -> None:
    table(n)


def test_versions_of_runs_in_text_formats_are_compared(project: Project) -> None:
    from airflow_provider_dbnd import Run

    for n in (2, 3):
        project.run(tables, {"n": n}, run_id=f"r{n}")

    found = compare(*(Run("tables", f"r{n}")["table"].outputs["result"] for n in (2, 3)))

    assert (found.rows, found.rows_added) == ((2, 3), 1)
