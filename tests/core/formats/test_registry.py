from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import dataset

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.formats import registry
from airflow_provider_dbnd.exceptions import (
    FormatError,
    FormatNotFoundError,
    MissingDependencyError,
)

TABLES = [
    pd.DataFrame,
    pd.Series,
    pl.DataFrame,
    pl.LazyFrame,
    pl.Series,
    pa.Table,
    pa.RecordBatch,
    pa.RecordBatchReader,
    dataset.Dataset,
    Iterator[pd.DataFrame],
    Iterable[pa.RecordBatch],
    Generator[pl.DataFrame, None, None],
]


@dataclasses.dataclass
class Config:
    x: int


@pytest.mark.parametrize("type_", TABLES, ids=formats.type_name)
def test_tables_are_mapped_on_disk_and_compressed_elsewhere(type_: Any) -> None:
    local, local_extension = formats.format_for_output(type_, medium="local")
    remote, remote_extension = formats.format_for_output(type_, medium="remote")

    assert (local.name, local_extension) == ("arrow", "arrow")
    assert (remote.name, remote_extension) == ("parquet", "parquet")
    assert formats.is_data_type(type_)
    assert formats.is_data_type(Optional[Annotated[type_, "doc"]])


@pytest.mark.parametrize(
    ("type_", "name", "extension"),
    [
        (np.ndarray, "npy", "npy"),
        (str, "text", "txt"),
        (bytes, "bytes", "bin"),
        (dict, "json", "json"),
        (dict[int, list[str]], "json", "json"),
        (Config, "json", "json"),
        (Path, "file", "file"),
        (type(Path()), "file", "file"),
    ],
    ids=str,
)
def test_other_types_have_a_format_too(type_: Any, name: str, extension: str) -> None:
    format_, found = formats.format_for_output(type_, medium="local")

    assert (format_.name, found) == (name, extension)
    assert formats.is_data_type(type_) == (type_ is np.ndarray)
    assert formats.is_stored_type(type_)


@pytest.mark.parametrize(
    ("type_", "extension", "name"),
    [
        (pd.DataFrame, "csv", "csv"),
        (pd.DataFrame, ".CSV.GZ", "csv"),
        (pd.DataFrame, "json", "records"),
        (pd.DataFrame, "ndjson", "jsonl"),
        (pl.LazyFrame, "pq", "parquet"),
        (dict, "json", "json"),
        (str, "md", "text"),
        (pd.DataFrame, "feather", "feather"),
    ],
)
def test_files_are_read_by_extension_and_type(type_: Any, extension: str, name: str) -> None:
    assert formats.format_for_input(type_, format=None, extension=extension).name == name


def test_a_declared_format_and_path_decide() -> None:
    found = formats.format_for_output(pd.DataFrame, medium="local", name="csv", extension="csv.gz")
    assert (found[0].name, found[1]) == ("csv", "csv.gz")
    found = formats.format_for_output(pd.DataFrame, medium="local", name="json")
    assert (found[0].name, found[1]) == ("records", "json")
    found = formats.format_for_output(object, medium="local", name="pickle")
    assert (found[0].name, found[1]) == ("pickle", "pickle")


def test_a_reference_names_its_type() -> None:
    assert formats.format_for_input("pandas.DataFrame", format="arrow", extension=None)
    assert formats.format_for_input("dict", format="json", extension=None).name == "json"


def test_an_object_is_never_pickled_by_default() -> None:
    class Model:
        pass

    with pytest.raises(FormatNotFoundError, match=r"no format stores a .*Model.*output.pickle"):
        formats.format_for_output(Model, medium="local")


def test_unknown_names_and_extensions_list_what_exists() -> None:
    with pytest.raises(FormatNotFoundError, match=r"no format 'cvs'; formats: arrow, parquet"):
        formats.format_for_output(pd.DataFrame, medium="local", name="cvs")
    with pytest.raises(FormatNotFoundError, match=r"extension 'xls'; .* csv, .*parquet"):
        formats.format_for_input(pd.DataFrame, format=None, extension="xls")
    with pytest.raises(FormatNotFoundError, match=r"without an extension.*pandas.DataFrame.*csv"):
        formats.format_for_input(pd.DataFrame, format=None, extension="")
    with pytest.raises(FormatNotFoundError, match=r"'csv' does not hold a int.*json"):
        formats.format_for_output(int, medium="local", name="csv")


def test_a_missing_library_is_named_with_its_install_command() -> None:
    row = formats.FormatRow(
        name="zarr", target="zarr_formats:Zarr", extensions=("zarr",), types=("zarr.Array",),
        needs=("no_such_zarr",),
    )  # fmt: skip
    formats.register_format(row)
    try:
        with pytest.raises(MissingDependencyError, match="needs: pip install no_such_zarr"):
            formats.format_for_input("zarr.Array", format="zarr", extension=None)
    finally:
        del registry._ROWS["zarr"]


def test_a_type_is_data_as_soon_as_its_format_is_registered() -> None:
    class Cube:
        pass

    assert not formats.is_data_type(Cube)
    row = formats.FormatRow(
        name="cube", target="cube_formats:Cube", extensions=("cube",),
        types=(formats.type_name(Cube),), loadable=True,
    )  # fmt: skip
    formats.register_format(row)
    try:
        assert formats.is_data_type(Cube)
    finally:
        del registry._ROWS["cube"]


def test_nothing_heavy_is_imported_before_use() -> None:
    code = (
        "import sys; from airflow_provider_dbnd.core import formats\n"
        "formats.is_data_type(int)\n"
        "formats.format_for_input('dict', format='json', extension=None)\n"
        "print([m for m in ('pandas', 'pyarrow', 'polars', 'numpy', 'blake3', 'airflow')"
        " if m in sys.modules])"
    )
    path = ":".join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, check=True
    )

    assert done.stdout.strip() == b"[]"


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        (pd.DataFrame, "pandas.DataFrame"),
        (Optional[pl.LazyFrame], "polars.LazyFrame"),
        (Annotated[pa.Table, 1], "pyarrow.Table"),
        (dict[str, int], "dict[str, int]"),
        (Iterator[pd.DataFrame], "Iterator[pandas.DataFrame]"),
        (int, "int"),
        (int | str, "int | str"),
        (np.ndarray, "numpy.ndarray"),
    ],
)
def test_type_names_are_short(type_: Any, name: str) -> None:
    assert formats.type_name(type_) == name


@pytest.mark.parametrize(
    ("producer", "consumer", "possible"),
    [
        (pd.DataFrame, pl.DataFrame, True),
        (pl.LazyFrame, Iterator[pd.DataFrame], True),
        (Iterator[pa.RecordBatch], pd.DataFrame, True),
        (Optional[pd.DataFrame], pd.DataFrame, True),
        (pd.DataFrame, Any, True),
        (pd.Series, pl.Series, True),
        (pd.DataFrame, pd.Series, False),
        (pd.Series, pd.DataFrame, False),
        (pd.DataFrame, int, False),
        (dict, pd.DataFrame, False),
        (np.ndarray, pd.DataFrame, False),
        (np.ndarray, np.ndarray, True),
        (bool, int, True),
        (str, int, False),
    ],
)
def test_which_types_convert(producer: Any, consumer: Any, possible: bool) -> None:
    assert formats.can_convert(producer, consumer) is possible


def test_tables_convert_in_memory() -> None:
    frame = pd.DataFrame({"x": [1, 2]})

    assert formats.convert_in_memory(frame, pd.DataFrame) is frame
    assert formats.convert_in_memory(frame, pl.DataFrame).equals(pl.DataFrame({"x": [1, 2]}))
    assert formats.convert_in_memory(frame, pl.LazyFrame).collect()["x"].sum() == 3
    assert formats.convert_in_memory(frame, pa.RecordBatchReader).read_all().num_rows == 2
    assert formats.convert_in_memory(frame, dataset.Dataset).count_rows() == 2
    assert [len(t) for t in formats.convert_in_memory(frame, Iterator[pa.Table])] == [2]
    assert formats.convert_in_memory(7, int) == 7


@pytest.mark.parametrize(
    ("uri", "extension"),
    [
        ("s3://b/x.csv.gz", "csv.gz"),
        ("/a.b/c", ""),
        ("x.PARQUET", "parquet"),
        (".hidden", ""),
        ("x.gz", "gz"),
        ("/a/really?.csv", "csv"),
        ("file:///a/b?c.d.csv", "csv"),
        ("s3://b/really?.csv", "csv"),
        ("https://h/x.csv?sig=a.b", "csv"),
    ],
)
def test_extension_of(uri: str, extension: str) -> None:
    assert formats.extension_of(uri) == extension


def test_many_files_are_one_table(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.csv"))
        pd.DataFrame({"x": [number]}).to_csv(paths[-1], index=False)
    csv = formats.format_for_input(pd.DataFrame, format="csv", extension=None)

    def read(type_: Any, paths: list[str] = paths) -> Any:
        return formats.read_many(partial(csv.read, options={}), paths, type_)

    assert read(pd.DataFrame)["x"].tolist() == [0, 1, 2]
    assert read(pl.DataFrame)["x"].to_list() == [0, 1, 2]
    assert read(pa.Table).num_rows == 3
    assert len(list(read(Iterator[pd.DataFrame]))) == 3
    with pytest.raises(FormatError, match="3 files cannot be read as one dict"):
        read(dict)
    with pytest.raises(FormatError, match="no files"):
        read(pd.DataFrame, [])


@pytest.mark.parametrize("type_", [pd.DataFrame, pl.DataFrame, pa.Table])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_many_files_that_differ_name_the_first_that_does(
    tmp_path: Path, type_: Any, stream: bool
) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    csv = formats.format_for_input(pd.DataFrame, format="csv", extension=None)

    with pytest.raises(
        FormatError, match=r"b.csv has other columns than .*a.csv: expected x: [iI]nt"
    ):
        formats.read_many(
            partial(csv.read, options={}),
            [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")],
            Iterator[type_] if stream else type_,
        )


def test_a_stream_of_files_may_have_nulls_in_some(tmp_path: Path) -> None:
    paths = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    for path, values in zip(paths, ([1, 2], [3, None]), strict=True):
        pl.DataFrame({"x": values}, schema={"x": pl.Int64}).write_parquet(path)
    parquet = formats.format_for_input(pd.DataFrame, format="parquet", extension=None)

    parts = list(
        formats.read_many(partial(parquet.read, options={}), paths, Iterator[pd.DataFrame])
    )

    assert [list(part["x"].dropna()) for part in parts] == [[1, 2], [3]]
