from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from contract import read, write
from table_contract import TableContract


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
