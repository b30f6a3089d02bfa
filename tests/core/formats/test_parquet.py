from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contract import read, write
from table_contract import TableContract

from airflow_provider_dbnd.core.formats.parquet import ParquetFormat
from airflow_provider_dbnd.core.formats.parquet_folder import opened
from airflow_provider_dbnd.exceptions import FormatError

OLD_PYARROW = int(pa.__version__.partition(".")[0]) < 26


class TestParquet(TableContract):
    name = "parquet"
    fixed_list_gap = [5, 6] if OLD_PYARROW else None


@pytest.mark.skipif(not OLD_PYARROW, reason="pyarrow reads it")
def test_what_pyarrow_would_write_but_not_read_is_refused(tmp_path: Path) -> None:
    lists = pa.array([[1, 2], None], pa.list_(pa.int8(), 2))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int8(), [2]), lists)

    for column in (lists, tensors):
        with pytest.raises(FormatError, match=r"nulls of column 'x'.*declare output.arrow"):
            write("parquet", pa.table({"x": column}), tmp_path / "f")


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


ROWS = 3000
GAPS = [None if n % 1000 in (3, 4) or 1100 < n < 1300 else n for n in range(1, ROWS + 1)]
COLUMNS = {
    "integers": pa.array(range(ROWS)),
    "bytes": pa.array(GAPS, pa.int64()).cast(pa.int8(), safe=False),
    "floats": pa.array(GAPS, pa.float64()),
    "halves": pa.array([n % 100 for n in range(ROWS)], pa.float16()),
    "times": pa.array(GAPS, pa.timestamp("us", "Europe/Vienna")),
    "days": pa.array([n and n % 20_000 for n in GAPS], pa.date32()),
    "late": pa.array([None] * 2999 + [1], pa.int16()),
    "nothing": pa.array([None] * ROWS, pa.int32()),
    "flags": pa.array([n and n % 3 == 1 for n in GAPS], pa.bool_()),
    "decimals": pa.array(GAPS, pa.decimal128(9, 2)),
    "text": pa.array([n and f"ü{n}" for n in GAPS]),
    "lists": pa.array([n and [n, None] for n in GAPS]),
    "categories": pa.array([n and f"kind {n % 5}" for n in GAPS]).dictionary_encode(),
    "nulls": pa.nulls(ROWS),
}


@pytest.mark.parametrize("size", [7, 8, 1001, 2999, 3000])
def test_row_groups_of_any_size_come_back_together(size: int, tmp_path: Path) -> None:
    table = pa.table(COLUMNS)
    write("parquet", table, tmp_path / "f", row_group_size=size)

    assert pq.ParquetFile(tmp_path / "f").metadata.num_row_groups == -(-ROWS // size)
    found = read("parquet", tmp_path / "f", pa.Table)
    found.validate(full=True)
    assert found.equals(table)
    assert read(
        "parquet", tmp_path / "f", pa.Table, columns=["days", "text"], rows=(5, 2500)
    ).equals(table.select(["days", "text"]).slice(5, 2495))


def test_empty_row_groups_of_others_are_read(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2, None], "y": ["a", None, "c"]})
    none = table.slice(0, 0)
    with pq.ParquetWriter(tmp_path / "f", table.schema) as writer:
        for part in (table, none, table.slice(1)):
            writer.write_table(part)
    with pq.ParquetWriter(tmp_path / "g", table.schema) as writer:
        for part in (none, none):
            writer.write_table(part)

    assert read("parquet", tmp_path / "f", pa.Table).equals(
        pa.concat_tables([table, table.slice(1)])
    )
    assert read("parquet", tmp_path / "g", pa.Table).equals(none)


def check_held_since(before: int, limit: float) -> None:
    """Check what Arrow holds more than *before*, when its threads have let go of their buffers."""
    for _ in range(100):
        if pa.total_allocated_bytes() - before < limit:
            break
        time.sleep(0.05)
    assert pa.total_allocated_bytes() - before < limit


def test_compressed_bytes_of_an_artifact_take_no_memory_beside_its_table(tmp_path: Path) -> None:
    table = pa.table({f"x{i}": np.random.default_rng(i).random(200_000) for i in range(4)})
    written = write("parquet", table, tmp_path / "f", row_group_size=50_000)
    before = pa.total_allocated_bytes()

    stored = ParquetFormat().open(
        str(tmp_path / "f"), checksum=written.checksum, digest=written.digest
    )
    loaded = stored.load()

    check_held_since(before, 1.1 * table.nbytes)
    assert loaded.table.equals(table)


def test_compressed_bytes_of_a_part_of_a_folder_take_no_memory_either(tmp_path: Path) -> None:
    table = pa.table({f"x{i}": np.random.default_rng(i).random(200_000) for i in range(4)})
    pq.write_table(table, tmp_path / "f", row_group_size=50_000)
    before = pa.total_allocated_bytes()

    part = opened(str(tmp_path / "f"))
    found = part.read()

    check_held_since(before, 1.1 * table.nbytes)
    assert found.equals(table)


@pytest.mark.parametrize("compression", ["snappy", "gzip", "brotli", "lz4", "zstd", "none"])
def test_each_compression_is_taken_without_a_level(compression: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(1000)})

    write("parquet", frame, tmp_path / "f", compression=compression)

    pd.testing.assert_frame_equal(read("parquet", tmp_path / "f", pd.DataFrame), frame)
    found = pq.ParquetFile(tmp_path / "f").metadata.row_group(0).column(0).compression
    assert found.lower() == {"none": "uncompressed"}.get(compression, compression)


def test_nested_categories_are_refused(tmp_path: Path) -> None:
    inner = pa.array(["b", "a"]).dictionary_encode()
    table = pa.table({"x": pa.ListArray.from_arrays([0, 1, 2], inner)})

    with pytest.raises(FormatError, match=r"'x'.*order of its categories.*output.arrow"):
        write("parquet", table, tmp_path / "f")


def test_a_category_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", "a"]))

    with pytest.raises(FormatError, match=r"column 'x' of type .* has a category twice"):
        write("parquet", pa.table({"x": twice}), tmp_path / "f")
