from __future__ import annotations

import datetime as dt
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from contract import FormatContract, read, verify_like_the_store, write

from airflow_provider_dbnd.core.formats import format_for_output
from airflow_provider_dbnd.core.formats.panics import panics_refused
from airflow_provider_dbnd.exceptions import FormatError

UNION = pa.UnionArray.from_dense(
    pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["a"])]
)


def simple() -> pd.DataFrame:
    return pd.DataFrame(
        {"i": [1, 2], "f": [0.1 + 0.2, 1e-300], "s": ["a,b", "ü\n"], "b": [True, False]}
    )


class InterchangeContract(FormatContract):
    def values(self) -> list[Any]:
        return [simple(), simple()[["i", "f"]], simple()[::-1].reset_index(drop=True)]

    def assert_equal(self, expected: Any, found: Any) -> None:
        pd.testing.assert_frame_equal(expected, found, check_exact=True)

    def test_engines_read_what_others_wrote(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        table = pa.Table.from_pandas(simple())
        for value in (simple(), table, pl.from_arrow(table)):
            written = write(self.name, value, path)
            verify_like_the_store(path, written)
            self.assert_equal(simple(), read(self.name, path, pd.DataFrame))
            assert read(self.name, path, pl.DataFrame).equals(pl.from_arrow(table))
            assert read(self.name, path, pl.LazyFrame).collect().equals(pl.from_arrow(table))
            assert read(self.name, path, pa.Table).to_pylist() == table.to_pylist()
            parts = list(read(self.name, path, Iterator[pd.DataFrame]))
            self.assert_equal(simple(), pd.concat(parts))

    def test_what_is_lost_is_named_unless_lossy(self, tmp_path: Path) -> None:
        frame = simple().assign(c=pd.Categorical(["x", "y"]))

        with pytest.raises(FormatError, match=r"column 'c' of type dictionary<string> would come"):
            write(self.name, frame, tmp_path / "f")

        written = write(self.name, frame, tmp_path / "f", lossy=True)
        assert read(self.name, tmp_path / "f", pd.DataFrame)["c"].tolist() == ["x", "y"]
        assert written.digest != write("arrow", frame, tmp_path / "g").digest

    def test_an_index_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            FormatError, match=r"__index_level_0__ would .*output.parquet, or pass lossy"
        ):
            write(self.name, simple().set_axis(["x", "y"]), tmp_path / "f")

    def test_compressed_by_extension(self, tmp_path: Path) -> None:
        format_, extension = format_for_output(
            pd.DataFrame, medium="local", name=self.name, extension=f"{self.extension}.gz"
        )
        assert extension == f"{self.extension}.gz"

        path = tmp_path / f"f.{extension}"
        format_.write(simple(), str(path), options={})

        assert gzip.decompress(path.read_bytes())
        self.assert_equal(simple(), read(self.name, path, pd.DataFrame))


class TestCsv(InterchangeContract):
    name = extension = "csv"


class TestTsv(InterchangeContract):
    name = extension = "tsv"


class TestJsonLines(InterchangeContract):
    name = extension = "jsonl"


class TestRecords(InterchangeContract):
    name = "records"
    extension = "json"


def test_options_go_to_the_reader_of_the_engine(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("a;b\n1;x\n2;y\n")

    frame = read("csv", tmp_path / "f.csv", pd.DataFrame, sep=";", dtype={"a": "int8"})
    other = read("csv", tmp_path / "f.csv", pl.DataFrame, separator=";")

    assert frame["a"].dtype == "int8"
    assert other.columns == ["a", "b"]


def test_large_csv_is_read_in_parts(tmp_path: Path) -> None:
    pd.DataFrame({"x": np.arange(300_000)}).to_csv(tmp_path / "f.csv", index=False)

    sizes = [len(part) for part in read("csv", tmp_path / "f.csv", Iterator[pd.DataFrame])]

    assert sizes == [131_072, 131_072, 37_856]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("csv", b'a,b\n1,2\n3,4,5,6\n"x', id="csv with a ragged end"),
        pytest.param("csv", b"", id="empty csv"),
        pytest.param("csv", b"\x89PNG\r\n\x1a\n\x00\xff\xfe", id="a picture as csv"),
        pytest.param("jsonl", b'{"a": 1', id="cut jsonl"),
        pytest.param("records", b"a,b\n1,2\n", id="csv as json"),
    ],
)
@pytest.mark.parametrize("type_", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_a_file_of_another_kind_is_refused(
    name: str, content: bytes, type_: Any, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(content)

    with pytest.raises(FormatError, match=f"{tmp_path / 'f'} cannot be read as {name} into"):
        read(name, tmp_path / "f", type_)


def test_an_iterator_is_not_written_to_csv(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"declare output.parquet or output.arrow"):
        write("csv", iter([simple()]), tmp_path / "f", Iterator[pd.DataFrame])


def test_a_column_without_a_name_is_refused_where_it_would_get_one(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="columns '' would come back as Unnamed: 0; declare"):
        write("csv", pl.Series([1, 2]), tmp_path / "f")


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        pytest.param("excel", pd.Series(pd.date_range("2024", periods=2, tz="UTC")), id="zone"),
        pytest.param("csv", pl.Series([[1], [2]]), id="polars list"),
        pytest.param("csv", pl.Series([dt.timedelta(1), None]), id="polars duration"),
        pytest.param("jsonl", pl.Series([object()] * 2, dtype=pl.Object), id="polars object"),
        pytest.param("jsonl", pl.Series([b"a", b"b"]), id="panic of polars"),
        pytest.param("records", pl.Series([b"a", b"b"]), id="panic of polars in an array"),
        pytest.param(
            "csv", pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())), id="map"
        ),
        pytest.param("csv", pa.array(["a", "b"], pa.string_view()), id="view"),
        pytest.param("csv", pa.RunEndEncodedArray.from_arrays([2], ["a"]), id="run-end encoded"),
        pytest.param("jsonl", UNION, id="union"),
    ],
)
def test_what_the_engine_cannot_write_is_named(name: str, bad: Any, tmp_path: Path) -> None:
    make = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}
    table = make[type(bad).__module__.partition(".")[0]]({"good": [1, 2], "bad": bad})

    with pytest.raises(
        FormatError, match=rf"^{name} cannot hold .*column 'bad'.*, or declare output.parquet$"
    ):
        write(name, table, tmp_path / "f.xlsx")


def test_what_is_wrong_with_no_single_column_names_none(tmp_path: Path) -> None:
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))

    with pytest.raises(FormatError, match=r"^excel cannot hold this pandas.DataFrame: .*MultiInd"):
        write("excel", frame, tmp_path / "f.xlsx")


def test_an_interrupt_is_no_panic() -> None:
    with pytest.raises(KeyboardInterrupt), panics_refused():
        raise KeyboardInterrupt
