from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
from contract import read, write
from pyarrow import feather, parquet
from table_contract import TableContract

from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, FormatError


class TestArrow(TableContract):
    name = "arrow"


def test_numbers_are_read_without_a_copy(tmp_path: Path) -> None:
    rows = 4_000_000
    frame = pd.DataFrame({"i": np.arange(rows), "f": np.where(np.arange(rows) % 2, 0.5, np.nan)})
    written = write("arrow", frame, tmp_path / "f")

    before = psutil.Process().memory_full_info().data
    found = read("arrow", tmp_path / "f", pd.DataFrame, written)

    assert found["i"].sum() == frame["i"].sum()
    mapped = [m for m in psutil.Process().memory_maps() if m.path == str(tmp_path / "f")]
    assert mapped
    assert mapped[0].anonymous < 1_000_000
    assert psutil.Process().memory_full_info().data - before < 0.2 * 16 * rows + (128 << 20)


def test_files_of_others_are_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2], "s": ["a", None]})
    frame.to_feather(tmp_path / "f", compression="lz4")

    found = read("feather", tmp_path / "f", pd.DataFrame)

    pd.testing.assert_frame_equal(found, frame)


def test_files_of_others_are_read_by_columns_and_blocks(tmp_path: Path) -> None:
    table = pa.table(
        {
            "i": range(200_000),
            "nested": [{"x": i, "y": [i]} for i in range(200_000)],
            "kind": pa.array(["u", "v"] * 100_000).dictionary_encode(),
        }
    )
    path = tmp_path / "f"
    feather.write_feather(table, path, compression="zstd", chunksize=30_000)

    whole = read("feather", path, pa.Table)
    part = read("feather", path, pa.Table, columns=["kind", "i"], rows=(29_990, 60_010))
    blocks = read("feather", path, Iterator[pa.Table])

    assert whole.equals(table)
    assert part.equals(table.select(["kind", "i"]).slice(29_990, 30_020))
    assert pa.concat_tables(blocks).combine_chunks().equals(table.combine_chunks())


def test_what_was_read_from_a_file_of_others_does_not_change_with_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    pd.DataFrame({"x": np.arange(1_000_000)}).to_feather(path, compression="uncompressed")
    found = read("feather", path, pd.DataFrame)

    os.truncate(path, 100)  # under a map, the next access kills the process

    assert found.x.sum() == 1_000_000 * 999_999 // 2


def test_a_damaged_batch_of_others_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f"
    random = np.random.default_rng(1).integers(0, 100, 100_000)
    frame = pd.DataFrame({"x": range(100_000), "r": random})
    frame.to_feather(path, compression="zstd", chunksize=100_000)
    damaged = bytearray(path.read_bytes())
    damaged[-40_000:-20_000] = bytes(20_000)  # of the last column
    path.write_bytes(damaged)

    with pytest.raises(ArtifactCorruptedError, match="readable batches"):
        read("feather", path, pd.DataFrame)


def test_two_columns_of_one_name_are_told(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    feather.write_feather(table, tmp_path / "f")
    parquet.write_table(table, tmp_path / "p")

    for name, file in (("feather", "f"), ("parquet", "p")):
        with pytest.raises(FormatError, match=f"{file} has several columns of one name: 'a'"):
            read(name, tmp_path / file, pd.DataFrame)


def test_others_read_our_files(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2], "s": ["a", None]})
    write("arrow", frame, tmp_path / "f")

    with pa.memory_map(str(tmp_path / "f")) as file:
        pd.testing.assert_frame_equal(pa.ipc.open_file(file).read_pandas(), frame)


def test_parts_of_a_stream_may_be_filtered_down_to_nothing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": range(10)})
    parts = iter([frame[frame.x > 3], frame[frame.x > 99]])
    written = write("arrow", parts, tmp_path / "t", Iterator[pd.DataFrame])

    assert read("arrow", tmp_path / "t", pd.DataFrame, written).x.tolist() == [4, 5, 6, 7, 8, 9]
