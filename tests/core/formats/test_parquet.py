from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contract import read, write
from table_contract import TableContract

from airflow_provider_dbnd.exceptions import FormatError

OLD_PYARROW = int(pa.__version__.partition(".")[0]) < 26


class TestParquet(TableContract):
    name = "parquet"
    fixed_list_gap = [5, 6] if OLD_PYARROW else None


@pytest.mark.skipif(not OLD_PYARROW, reason="pyarrow reads it")
def test_what_pyarrow_would_write_but_not_read_is_refused(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([[1, 2], None], pa.list_(pa.int8(), 2))})

    with pytest.raises(FormatError, match=r"nulls of column 'x'.*declare output.arrow"):
        write("parquet", table, tmp_path / "f")


def test_files_of_others_are_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2], "s": ["a", None]})
    frame.to_parquet(tmp_path / "f", compression="snappy")

    pd.testing.assert_frame_equal(read("parquet", tmp_path / "f", pd.DataFrame), frame)


def test_others_read_our_files(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2], "s": ["a", None]})
    write("parquet", frame, tmp_path / "f", compression="gzip")

    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "f"), frame)
    assert pq.ParquetFile(tmp_path / "f").metadata.row_group(0).column(0).compression == "GZIP"


def test_encodings_follow_types_and_how_often_values_come(tmp_path: Path) -> None:
    n = 50_000
    frame = pd.DataFrame(
        {
            "id": range(n),
            "size": [i % 7 for i in range(n)],
            "price": [i % 100 / 4 for i in range(n)],
            "share": [i / n for i in range(n)],
            "day": pd.to_datetime([f"2026-01-0{1 + i % 5}" for i in range(n)]),
            "when": pd.to_datetime(range(n), unit="s"),
            "name": [f"name-{i % 9}" for i in range(n)],
        }
    )
    write("parquet", frame, tmp_path / "f")

    group = pq.ParquetFile(tmp_path / "f").metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    encoded = {c.path_in_schema: set(c.encodings) - {"RLE"} for c in columns}
    of_few = {"PLAIN", "RLE_DICTIONARY"}
    assert encoded == {
        "id": {"DELTA_BINARY_PACKED"},
        "size": of_few,
        "price": of_few,
        "share": {"PLAIN"},
        "day": of_few,
        "when": {"DELTA_BINARY_PACKED"},
        "name": of_few,
    }
    pd.testing.assert_frame_equal(read("parquet", tmp_path / "f", pd.DataFrame), frame)


@pytest.mark.parametrize(
    "type_",
    [
        pa.float16(),
        pa.uint64(),
        pa.time32("s"),
        pa.time64("ns"),
        pa.date32(),
        pa.date64(),
        pa.timestamp("ns", "Europe/Vienna"),
    ],
    ids=str,
)
@pytest.mark.parametrize("distinct", [0, 1, 3, 500])
def test_columns_of_few_and_of_many_values_come_back(
    type_: pa.DataType, distinct: int, tmp_path: Path
) -> None:
    integers = {2: pa.uint16(), 4: pa.int32(), 8: pa.int64()}[type_.bit_width // 8]
    unit = 86_400_000 if type_ == pa.date64() else 1
    values = [None if n % 10 == 9 else n % distinct * unit for n in range(500 * distinct)]
    numbers = pa.array(values, integers)
    table = pa.table({"x": numbers.view(type_) if distinct else pa.array([None] * 9, type_)})

    write("parquet", table, tmp_path / "f")

    assert read("parquet", tmp_path / "f", pa.Table).equals(table)


def test_nested_categories_are_refused(tmp_path: Path) -> None:
    inner = pa.array(["b", "a"]).dictionary_encode()
    table = pa.table({"x": pa.ListArray.from_arrays([0, 1, 2], inner)})

    with pytest.raises(FormatError, match=r"'x'.*order of its categories.*output.arrow"):
        write("parquet", table, tmp_path / "f")
