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


def test_nested_categories_are_refused(tmp_path: Path) -> None:
    inner = pa.array(["b", "a"]).dictionary_encode()
    table = pa.table({"x": pa.ListArray.from_arrays([0, 1, 2], inner)})

    with pytest.raises(FormatError, match=r"'x'.*order of its categories.*output.arrow"):
        write("parquet", table, tmp_path / "f")
