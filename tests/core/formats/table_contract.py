"""What every exact format of tables must do, beyond :class:`FormatContract`."""

from __future__ import annotations

import datetime as dt
import decimal
import subprocess
import sys
import uuid
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dateutil.tz
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from contract import FormatContract, read, write
from frames import frames
from hypothesis import HealthCheck, given, settings
from pyarrow import dataset

from airflow_provider_dbnd.core.formats.fingerprint import BLOCK_ROWS
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, FormatError

#: Run in another process: prints the digest of a frame made there.
DIGEST_ELSEWHERE = """
import sys, pandas as pd, table_contract, contract, pathlib
frame = table_contract.mixed(1000)
print(contract.write(sys.argv[1], frame, pathlib.Path(sys.argv[2])).digest)
"""


EAST, WEST = (dt.timezone(dt.timedelta(hours=hours)) for hours in (2, 1))
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


class Text(str):
    __slots__ = ()


def extended(type_: Any, *storages: Any) -> list[Any]:
    return [pa.ExtensionArray.from_storage(type_, storage) for storage in storages]


def uuids() -> list[Any]:
    storages = (pa.array([b"x" * 16, other], pa.binary(16)) for other in (None, b"y" * 16))
    return extended(pa.uuid(), *storages)


def documents() -> list[Any]:
    return extended(pa.json_(), *(pa.array([text, None]) for text in ("{}", "[]")))


def flags() -> list[Any]:
    return extended(pa.bool8(), *(pa.array([flag, None], pa.int8()) for flag in (0, 1)))


def tensors() -> list[Any]:
    """Two that differ in the parameters of their types only."""
    storage = pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))
    types = (pa.fixed_shape_tensor(pa.int32(), shape) for shape in ([2], [2, 1]))
    return [array for type_ in types for array in extended(type_, storage)]


def mixed(rows: int = 50) -> pd.DataFrame:
    """A frame of many dtypes, with nulls where they can be."""
    number = np.arange(rows)
    holes = number % 3 == 0
    times = pd.Series(pd.to_datetime(number * 10**9).as_unit("us")).mask(holes)
    return pd.DataFrame(
        {
            "int": number,
            "small": number.astype("int8"),
            "float": np.where(holes, np.nan, number / 7),
            "bool": holes,
            "str": pd.Series(np.where(holes, None, number.astype(str)), dtype="str"),
            "time": times,
            "zoned": times.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
            "category": pd.Categorical(
                np.where(holes, None, "b"), categories=["z", "b", "a"], ordered=True
            ),
            "nullable": pd.array(np.where(holes, None, number), dtype="Int64"),
        }
    )


def plain(rows: int = 50) -> pd.DataFrame:
    """A frame that needs no extras, so that other engines hold the very same table."""
    return mixed(rows).drop(columns="nullable")


def assert_same_frame(expected: pd.DataFrame, found: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        expected, found, check_exact=True, check_column_type="exact", check_index_type="exact"
    )
    assert found.columns.identical(expected.columns)
    assert found.attrs == expected.attrs
    for before, after in zip(expected.dtypes, found.dtypes, strict=True):
        assert repr(before) == repr(after)


#: Before pandas 3 a column of text is one of objects already.
TEXT = pytest.mark.skipif(pd.__version__ < "3", reason="text is of dtype object")


class TableContract(FormatContract):
    #: What stands between the lists of a fixed size.
    fixed_list_gap: list[int] | None = None

    def values(self) -> list[Any]:
        return [mixed(), plain(), mixed(0), mixed()[::-1]]

    def assert_equal(self, expected: Any, found: Any) -> None:
        assert_same_frame(expected, found)

    @settings(
        max_examples=100,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(frame=frames())
    def test_any_frame_comes_back_exactly(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        assert_same_frame(frame, self.round_trip(frame, tmp_path / "f"))

    @pytest.mark.parametrize("rows", [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 7])
    def test_digest_is_of_the_data_not_of_engine_or_chunks(self, rows: int, tmp_path: Path) -> None:
        frame = plain(rows)
        table = pa.Table.from_pandas(frame)
        cut = pa.concat_tables([table.slice(0, rows // 3), table.slice(rows // 3)])
        held = [frame, table, cut, pl.from_arrow(table.drop_columns("category"))]
        if rows:
            held.append(pa.Table.from_batches(table.to_batches(max_chunksize=1000)))

        digests = [write(self.name, value, tmp_path / "f").digest for value in held]

        assert digests[0] == digests[1] == digests[2] == digests[-1 if rows else 0]
        without = write(self.name, frame.drop(columns="category"), tmp_path / "f").digest
        assert digests[3] == without

    def test_digest_is_the_same_in_another_process(self, tmp_path: Path) -> None:
        arguments = [self.name, str(tmp_path / "f")]
        path = [str(Path(__file__).parent), *sys.path]
        elsewhere = subprocess.run(
            [sys.executable, "-c", DIGEST_ELSEWHERE, *arguments],
            env={"PYTHONPATH": ":".join(path), "PYTHONHASHSEED": "7"},
            capture_output=True,
            text=True,
            check=True,
        )

        assert elsewhere.stdout.strip() == write(self.name, mixed(1000), tmp_path / "g").digest

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda f: f.assign(int=f["int"].astype("int32")), id="narrower"),
            pytest.param(lambda f: f.assign(int=f["int"].astype("Int64")), id="nullable"),
            pytest.param(
                lambda f: f.assign(str=f["str"].astype(object)), id="objects with nan", marks=TEXT
            ),
            pytest.param(
                lambda f: f.assign(str=f["str"].astype(object).where(f["str"].notna(), None)),
                id="objects with none",
                marks=TEXT,
            ),
            pytest.param(lambda f: f.assign(time=f["time"].dt.as_unit("ns")), id="unit"),
            pytest.param(lambda f: f.assign(zoned=f["zoned"].dt.tz_convert("UTC")), id="zone"),
            pytest.param(lambda f: f.iloc[::-1].reset_index(drop=True), id="rows reversed"),
            pytest.param(lambda f: f[list(f)[::-1]], id="columns reversed"),
            pytest.param(lambda f: f.rename(columns={"int": "integer"}), id="renamed"),
            pytest.param(lambda f: f.set_axis(range(1, len(f) + 1)), id="index"),
            pytest.param(lambda f: f.rename_axis("row"), id="index named"),
            pytest.param(lambda f: f.rename_axis(columns="column"), id="labels named"),
            pytest.param(lambda f: f.head(-1), id="row less"),
            pytest.param(lambda f: f.assign(float=f["float"].fillna(0.0)), id="value"),
            pytest.param(
                lambda f: f.assign(category=f["category"].cat.as_unordered()), id="unordered"
            ),
            pytest.param(
                lambda f: f.assign(
                    category=f["category"].cat.reorder_categories(["a", "b", "z"], ordered=True)
                ),
                id="category order",
            ),
            pytest.param(
                lambda f: f.assign(category=f["category"].cat.remove_unused_categories()),
                id="unused categories",
            ),
        ],
    )
    def test_any_change_changes_the_digest(self, change: Any, tmp_path: Path) -> None:
        changed = change(mixed())

        before = write(self.name, mixed(), tmp_path / "f").digest
        after = write(self.name, changed, tmp_path / "f").digest

        assert before != after
        assert_same_frame(changed, read(self.name, tmp_path / "f", pd.DataFrame))

    def test_nan_and_null_are_different_data(self, tmp_path: Path) -> None:
        tables = [
            pa.table({"x": pa.array([1.0, float("nan"), None])}),
            pa.table({"x": pa.array([1.0, None, float("nan")])}),
            pa.table({"x": pa.array([1.0, None, None])}),
            pa.table({"x": pa.array([1.0, float("nan"), float("nan")])}),
        ]

        digests = [write(self.name, table, tmp_path / "f").digest for table in tables]

        assert len(set(digests)) == 4
        frame = pd.DataFrame({"x": [1.0, np.nan, np.nan]})
        assert write(self.name, frame, tmp_path / "f").digest == digests[2]

    def test_what_lies_under_a_null_does_not_count(self, tmp_path: Path) -> None:
        mask = pa.array([True, False, True]).buffers()[1]
        clean = pa.array([1, None, 3])
        dirty = pa.Array.from_buffers(pa.int64(), 3, [mask, pa.array([1, 99, 3]).buffers()[1]])

        first = write(self.name, pa.table({"x": clean}), tmp_path / "f").digest

        assert write(self.name, pa.table({"x": dirty}), tmp_path / "f").digest == first

    @pytest.mark.parametrize(
        "type_",
        [pa.string(), pa.large_string(), pa.string_view()],
        ids=str,
    )
    def test_layouts_of_text_are_one_type(self, type_: Any, tmp_path: Path) -> None:
        long = "x" * 30
        table = pa.table({"x": pa.array(["skipped", "a", None, "", long], type_).slice(1)})

        written = write(self.name, table, tmp_path / "f")

        expected = pa.table({"x": ["a", None, "", long]})
        assert written.digest == write(self.name, expected, tmp_path / "g").digest
        assert read(self.name, tmp_path / "f", pa.Table, written) == table

    def test_nested_and_exact_types_come_back(self, tmp_path: Path) -> None:
        table = pa.table(
            {
                "list": pa.array([[1, None], None, []], pa.list_(pa.int16())),
                "fixed": pa.array([[1, 2], self.fixed_list_gap, [3, 4]], pa.list_(pa.int8(), 2)),
                "struct": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}]),
                "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
                "decimal": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-2.00")]),
                "date": pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1)]),
                "time": pa.array([dt.time(1, 2, 3, 4), None, dt.time()]),
                "bytes": pa.array([b"\x00\xff", None, b""]),
                "null": pa.nulls(3),
                "duration": pa.array([dt.timedelta(1), None, dt.timedelta(0)], pa.duration("ms")),
            }
        )

        written = write(self.name, table, tmp_path / "f")

        assert read(self.name, tmp_path / "f", pa.Table, written) == table
        assert write(self.name, table.slice(1), tmp_path / "g").digest != written.digest
        again = pa.concat_tables([table.slice(0, 1), table.slice(1)])
        assert write(self.name, again, tmp_path / "g").digest == written.digest

    def test_some_columns_and_rows_can_be_read(self, tmp_path: Path) -> None:
        frame = mixed(BLOCK_ROWS + 500)
        written = write(self.name, frame, tmp_path / "f")

        options = {"columns": ["zoned", "int"], "rows": (BLOCK_ROWS - 2, BLOCK_ROWS + 2)}
        part = read(self.name, tmp_path / "f", pd.DataFrame, written, **options)

        expected = frame.loc[BLOCK_ROWS - 2 : BLOCK_ROWS + 1, ["zoned", "int"]]
        assert_same_frame(expected, part)

    def test_an_unknown_column_is_named(self, tmp_path: Path) -> None:
        write(self.name, mixed(), tmp_path / "f")

        with pytest.raises(FormatError, match="has no column 'no'; it has: int, small"):
            read(self.name, tmp_path / "f", pd.DataFrame, columns=["no"])

    def test_a_read_frame_is_writable_and_the_file_stays_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        written = write(self.name, mixed(), path)
        frame = read(self.name, path, pd.DataFrame, written)

        frame.iloc[1] = frame.iloc[2]
        for name in ("int", "float", "time", "zoned", "category", "nullable"):
            frame.loc[0, name] = frame.loc[4, name]

        assert frame.loc[0, "int"] == 4
        assert_same_frame(mixed(), read(self.name, path, pd.DataFrame, written))

    @pytest.mark.parametrize(
        "objects",
        [
            pytest.param([dt.datetime(2024, 1, 1, 2, tzinfo=EAST), None], id="one offset"),
            pytest.param(
                [dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=fold) for fold in (1, 0)],
                id="the hour that comes twice",
            ),
            pytest.param([decimal.Decimal("1.10"), decimal.Decimal("100.00")], id="same places"),
            pytest.param([0.0, -0.0, None], id="signed zeros"),
        ],
    )
    def test_objects_come_back_as_they_look(self, objects: list[Any], tmp_path: Path) -> None:
        frame = pd.DataFrame({"x": pd.Series(objects, dtype=object)})

        found = self.round_trip(frame, tmp_path / "f")

        assert list(map(str, found["x"])) == list(map(str, objects))

    @pytest.mark.parametrize(
        ("objects", "message"),
        [
            pytest.param(
                [dt.datetime(2024, 1, 1, tzinfo=zone) for zone in (dt.timezone.utc, EAST)],
                "2024, 1, 1, 0, 0, .*2023, 12, 31, 22, 0, ",
                id="two offsets",
            ),
            pytest.param(
                [dt.datetime(2024, 1, 1, tzinfo=zone) for zone in (BERLIN, WEST)],
                "2024, 1, 1, 0, 0, .*Berlin",
                id="two zones of one offset",
            ),
            pytest.param(
                [[dt.datetime(2024, 1, 1, tzinfo=zone)] for zone in (dt.timezone.utc, EAST)],
                "2024, 1, 1, 0, 0, .*2023, 12, 31, 22, 0, ",
                id="two offsets in lists",
            ),
            pytest.param([dt.datetime(2024, 1, 1, fold=1)], "fold=1", id="fold without a zone"),
            pytest.param(
                [decimal.Decimal("1.10"), decimal.Decimal(100)],
                r"Decimal\('100'\) .* as Decimal\('100.00'\)",
                id="other places",
            ),
            pytest.param([decimal.Decimal("-0.0")], r"'-0.0'\) .* as .*'0.0'", id="signed zero"),
            pytest.param(["a", Text("b")], r"'b' \(Text\) as 'b' \(str\)", id="a kind of str"),
            pytest.param([1.5, np.float64(2)], r"\(float64\) as 2.0 \(float\)", id="of numpy"),
        ],
    )
    def test_objects_that_come_back_only_equal_are_refused(
        self, objects: list[Any], message: str, tmp_path: Path
    ) -> None:
        frame = pd.DataFrame({"x": pd.Series(objects, dtype=object)})

        with pytest.raises(FormatError, match=f"column 'x' of dtype object would not .*{message}"):
            write(self.name, frame, tmp_path / "f")

    @pytest.mark.parametrize(
        ("frame", "message"),
        [
            pytest.param(
                pd.DataFrame({"x": pd.Series([1, "a"], dtype=object)}), "'x'", id="mixed objects"
            ),
            pytest.param(
                pd.DataFrame({"x": pd.Series([None, np.nan, "a"], dtype=object)}), "'x'",
                id="nan among strings",
            ),
            pytest.param(
                pd.DataFrame({"x": pd.Series([1, 2.5], dtype=object)}), "'x'", id="int and float"
            ),
            pytest.param(
                pd.DataFrame({"x": pd.Series([True, np.int64(1)], dtype=object)}), "'x'",
                id="numpy scalars",
            ),
            pytest.param(pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' occurs more", id="twice"),
            pytest.param(pd.DataFrame([[1, 2]], columns=[1, "1"]), "'1' occurs more", id="1 and 1"),
            pytest.param(pd.DataFrame({"x": [1 + 2j]}), "complex", id="complex"),
            pytest.param(
                pd.DataFrame({"x": pd.arrays.SparseArray([0, 1])}), "sparse", id="sparse"
            ),
            pytest.param(
                pd.DataFrame({"x": pd.date_range("2024", periods=1, tz=dateutil.tz.gettz("CET"))}),
                r"'x' .* no name for its dtype .* convert it, a time zone with .dt.tz_convert",
                id="zone of dateutil",
            ),
            pytest.param(
                pd.DataFrame({"x": pd.Categorical([("a", "b")])}),
                r"'x' .* \('a', 'b'\) \(tuple\) as \['a', 'b'\]",
                id="tuples as categories",
            ),
            pytest.param(
                pd.DataFrame({dt.date(2024, 1, 1): [1]}), "2024", id="dates as labels"
            ),
        ],
    )  # fmt: skip
    def test_what_would_not_come_back_is_refused(
        self, frame: pd.DataFrame, message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(FormatError, match=message):
            write(self.name, frame, tmp_path / "f")

    def test_attrs_that_json_changes_are_refused(self, tmp_path: Path) -> None:
        frame = mixed()
        frame.attrs["shape"] = (1, 2)

        with pytest.raises(FormatError, match="attrs"):
            write(self.name, frame, tmp_path / "f")

    def test_a_subclass_is_refused(self, tmp_path: Path) -> None:
        class Special(pd.DataFrame):
            pass

        with pytest.raises(FormatError, match=r"Special would come back as a plain"):
            write(self.name, Special({"x": [1]}), tmp_path / "f")

    def test_uuids_come_back(self, tmp_path: Path) -> None:
        ids = [uuid.UUID(int=number) for number in range(3)]
        frame = pd.DataFrame({"id": [ids[0], None, ids[2]], "gap": [ids[0], np.nan, ids[1]]}, ids)

        written = write(self.name, frame, tmp_path / "f")

        assert_same_frame(frame, read(self.name, tmp_path / "f", pd.DataFrame, written))
        found = read(self.name, tmp_path / "f", pa.Table, written)
        assert found["id"].to_pylist() == [ids[0], None, ids[2]]
        assert read(self.name, tmp_path / "f", pl.DataFrame, written).height == 3

    @pytest.mark.parametrize("make", [uuids, documents, flags, tensors])
    def test_extension_types_of_arrow_come_back(self, make: Any, tmp_path: Path) -> None:
        first, second = (pa.table({"x": array}) for array in make())

        written = write(self.name, first, tmp_path / "f")

        assert read(self.name, tmp_path / "f", pa.Table, written).equals(first)
        assert written.digest != write(self.name, second, tmp_path / "g").digest
        storage = pa.table({"x": first["x"].chunk(0).storage})
        assert written.digest != write(self.name, storage, tmp_path / "g").digest

    def test_what_pandas_cannot_take_is_named(self, tmp_path: Path) -> None:
        inside = pa.StructArray.from_arrays([flags()[0]], ["flag"])
        written = write(self.name, pa.table({"x": inside}), tmp_path / "f")

        with pytest.raises(FormatError, match=r"'x' of type .* cannot be brought to pandas: "):
            read(self.name, tmp_path / "f", pd.DataFrame, written)

    def test_labels_may_be_tuples(self, tmp_path: Path) -> None:
        labels = pd.Index([("a", 1), ("b", 2)], tupleize_cols=False)
        frame = pd.DataFrame([[1, 2]], columns=labels)

        found = self.round_trip(frame, tmp_path / "f")

        assert found.columns.identical(labels)

    def test_bins_of_a_large_frame_come_back(self, tmp_path: Path) -> None:
        numbers = pd.Series(np.arange(9 * BLOCK_ROWS) % 100)
        frame = pd.DataFrame({"bin": pd.cut(numbers.mask(numbers == 7), 5)})

        written = write(self.name, frame, tmp_path / "f")

        assert_same_frame(frame, read(self.name, tmp_path / "f", pd.DataFrame, written))
        table = read(self.name, tmp_path / "f", pa.Table, written)
        assert write(self.name, table, tmp_path / "g").rows == len(frame)
        first = read(self.name, tmp_path / "f", pl.DataFrame, written)["bin"][0]
        assert first == {"left": frame["bin"][0].left, "right": frame["bin"][0].right}

    def test_counts_of_bins_come_back(self, tmp_path: Path) -> None:
        counts = pd.cut(pd.Series([1, 5, 9]), 3).value_counts()

        written = write(self.name, counts, tmp_path / "f")

        pd.testing.assert_series_equal(
            counts, read(self.name, tmp_path / "f", pd.Series, written), check_index_type="exact"
        )

    @pytest.mark.parametrize(
        "values",
        [["a", "b"], [0.0, -0.0], pd.interval_range(0, 2)],
        ids=["text", "zeros", "bins"],
    )
    def test_parts_of_a_stream_with_other_categories_are_refused(
        self, values: Any, tmp_path: Path
    ) -> None:
        codes = np.zeros(BLOCK_ROWS, int)
        parts = (pd.DataFrame({"x": pd.Categorical.from_codes(codes, [value])}) for value in values)

        with pytest.raises(FormatError, match=r"'x' has other categories from row 131072 on"):
            write(self.name, parts, tmp_path / "f", Iterator[pd.DataFrame])

    def test_categories_of_an_extension_type_are_refused(self, tmp_path: Path) -> None:
        values = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1], pa.int8()))
        table = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([0, 1]), values)})

        with pytest.raises(FormatError, match=r"categories would come back as int8; convert it to"):
            write(self.name, table, tmp_path / "f")

    def test_a_series_keeps_its_name_and_index(self, tmp_path: Path) -> None:
        for series in (
            pd.Series([1.5, None], name="x", index=["a", "b"]),
            pd.Series(["a"], name=("x", 1)),
            pd.Series([1, 2]),
        ):
            written = write(self.name, series, tmp_path / "f")

            pd.testing.assert_series_equal(
                series, read(self.name, tmp_path / "f", pd.Series, written)
            )

    def test_engines_read_what_others_wrote(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        frame = plain()
        written = write(self.name, frame, path)
        table = pa.Table.from_pandas(frame)

        assert read(self.name, path, pa.Table, written).equals(table)
        assert read(self.name, path, pa.RecordBatch, written).num_rows == 50
        assert read(self.name, path, pl.DataFrame, written).equals(pl.from_arrow(table))
        assert read(self.name, path, pl.LazyFrame, written).collect().equals(pl.from_arrow(table))
        assert read(self.name, path, dataset.Dataset, written).to_table().num_rows == 50
        reader = read(self.name, path, pa.RecordBatchReader, written)
        assert reader.read_all().equals(table)

    def test_polars_comes_back_equal(self, tmp_path: Path) -> None:
        frame = pl.DataFrame(
            {
                "int": [1, None],
                "nan": [float("nan"), None],
                "text": ["a", None],
                "enum": pl.Series(["b", None], dtype=pl.Enum(["c", "b"])),
                "time": pl.Series([dt.time(1), None]),
                "duration": pl.Series([dt.timedelta(1), None]),
                "list": [[1], None],
                "struct": [{"a": 1}, {"a": None}],
            }
        )
        written = write(self.name, frame, tmp_path / "f")

        found = read(self.name, tmp_path / "f", pl.DataFrame, written)

        assert found.schema == frame.schema
        assert found.equals(frame)
        column = frame["enum"]
        written = write(self.name, column, tmp_path / "f")
        assert read(self.name, tmp_path / "f", pl.Series, written).equals(column)

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(pl.Series([1, 2]), id="series"),
            pytest.param(pl.DataFrame({"column_0": [1], "": ["a"], "0": [2.5]}), id="frame"),
        ],
    )
    def test_polars_columns_need_no_name(self, value: Any, tmp_path: Path) -> None:
        written = write(self.name, value, tmp_path / "f")

        found = read(self.name, tmp_path / "f", type(value), written)

        assert found.equals(value)
        frame = found if isinstance(found, pl.DataFrame) else found.to_frame()
        assert read(self.name, tmp_path / "f", pl.LazyFrame, written).collect().equals(frame)
        written = write(self.name, frame.lazy(), tmp_path / "g", pl.LazyFrame)
        assert read(self.name, tmp_path / "g", pl.DataFrame, written).equals(frame)

    def test_integers_with_nulls_of_other_engines_stay_integers_in_pandas(
        self, tmp_path: Path
    ) -> None:
        table = pa.table({"x": [2**60 + 1, None]})
        written = write(self.name, table, tmp_path / "f")

        frame = read(self.name, tmp_path / "f", pd.DataFrame, written)

        assert frame["x"].dtype == "Int64"
        assert frame["x"][0] == 2**60 + 1

    @pytest.mark.parametrize("size", [1000, BLOCK_ROWS, 100_001])
    def test_a_stream_is_the_same_data_as_a_whole(self, size: int, tmp_path: Path) -> None:
        rows = 2 * BLOCK_ROWS + 10
        frame = mixed(rows)
        parts = (frame.iloc[start : start + size] for start in range(0, rows, size))

        written = write(self.name, parts, tmp_path / "f", Iterator[pd.DataFrame])

        assert written.rows == rows
        assert written.digest == write(self.name, frame, tmp_path / "g").digest
        stream = read(self.name, tmp_path / "f", Iterator[pd.DataFrame], written)
        assert_same_frame(frame, pd.concat(stream))
        assert_same_frame(frame, read(self.name, tmp_path / "f", pd.DataFrame, written))
        assert sum(len(t) for t in read(self.name, tmp_path / "g", Iterator[pa.Table])) == rows

    @pytest.mark.parametrize("size", [1000, BLOCK_ROWS, BLOCK_ROWS + 50_001])
    def test_a_task_may_fill_one_frame_again_and_again(self, size: int, tmp_path: Path) -> None:
        numbers = np.zeros(size)
        frame = pd.DataFrame({"x": numbers}, copy=False)

        def parts() -> Iterator[pd.DataFrame]:
            for n in range(1, 5):
                numbers[:] = n
                yield frame
            numbers[:] = -1

        written = write(self.name, parts(), tmp_path / "f", Iterator[pd.DataFrame])

        found = read(self.name, tmp_path / "f", pd.DataFrame, written)["x"].to_numpy()
        assert (found == np.repeat([1, 2, 3, 4], size)).all()

    def test_parts_of_a_stream_must_agree(self, tmp_path: Path) -> None:
        parts = iter([pd.DataFrame({"x": [1]}), pd.DataFrame({"x": ["a"]})])

        with pytest.raises(FormatError, match=r"part 2 .* expected x: int64, got x: "):
            write(self.name, parts, tmp_path / "f", Iterator[pd.DataFrame])

    def test_an_empty_stream_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="yielded nothing"):
            write(self.name, iter([]), tmp_path / "f", Iterator[pd.DataFrame])

    def test_a_changed_block_stops_a_stream_there(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        table = pa.table({"x": np.random.default_rng(0).integers(0, 2**62, 3 * BLOCK_ROWS)})
        written = write(self.name, table, path)
        data = bytearray(path.read_bytes())
        data[int(len(data) * 0.9)] ^= 1
        path.write_bytes(bytes(data))

        with pytest.raises(ArtifactCorruptedError, match=str(path)):
            for _ in read(self.name, path, Iterator[pa.Table], written):
                pass

    def test_another_reference_to_the_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        mine = write(self.name, mixed(), path)
        other = write(self.name, plain(), tmp_path / "g")

        with pytest.raises(ArtifactCorruptedError) as error:
            read(self.name, path, pd.DataFrame, other)

        message = str(error.value)
        assert str(path) in message
        assert other.checksum in message or other.digest in message
        assert mine.checksum in message or mine.digest in message

    def test_a_file_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_text("id,name\n1,a\n")

        with pytest.raises(FormatError, match=f"{path} is not"):
            read(self.name, path, pd.DataFrame)
