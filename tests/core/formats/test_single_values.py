"""Formats of one value a file: text, bytes, arrays, files, pickles."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import FormatContract, read, write

from airflow_provider_dbnd.exceptions import FormatError


class TestText(FormatContract):
    name = "text"

    def values(self) -> list[Any]:
        return ["grüße\r\n\x00", "", "a" * 100_000]


class TestBytes(FormatContract):
    name = "bytes"

    def values(self) -> list[Any]:
        return [b"\x00\xff" * 50, b""]


class TestNpy(FormatContract):
    name = "npy"

    def values(self) -> list[Any]:
        return [
            np.arange(24.0).reshape(2, 3, 4),
            np.asfortranarray(np.arange(6).reshape(2, 3)),
            np.arange(6).reshape(2, 3),
            np.arange(6).reshape(2, 3).astype("int32"),
            np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
            np.array(["ü", "b"]),
            np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
            np.array(3.5),
            np.empty((0, 3), ">i2"),
        ]

    def assert_equal(self, expected: Any, found: Any) -> None:
        assert type(found) is np.ndarray
        assert found.dtype == expected.dtype
        assert found.flags.f_contiguous == expected.flags.f_contiguous
        np.testing.assert_array_equal(found, expected)


def test_a_read_array_is_writable_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    written = write("npy", np.zeros(5), tmp_path / "f")
    array = read("npy", tmp_path / "f", np.ndarray, written)

    array[0] = 1

    assert read("npy", tmp_path / "f", np.ndarray, written).sum() == 0


def test_an_array_of_others_does_not_change_with_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.arange(1_000_000))
    array = read("npy", tmp_path / "f.npy", np.ndarray)

    os.truncate(tmp_path / "f.npy", 100)  # under a map, the next access kills the process

    assert array.sum() == 1_000_000 * 999_999 // 2


def test_arrays_of_objects_and_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds Python objects"):
        write("npy", np.array([object()]), tmp_path / "f")
    with pytest.raises(FormatError, match="MaskedArray would come back as a plain"):
        write("npy", np.ma.masked_array([1], [True]), tmp_path / "f")


def test_an_npy_file_with_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.array([{}]), allow_pickle=True)

    with pytest.raises(FormatError, match="not an npy file of plain values"):
        read("npy", tmp_path / "f.npy", np.ndarray)


def test_text_in_another_encoding_is_refused_unless_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("é".encode("latin-1"))

    with pytest.raises(FormatError, match=r"is not utf-8 text.*pass its encoding="):
        read("text", tmp_path / "f", str)
    assert read("text", tmp_path / "f", str, encoding="latin-1") == "é"


class TestFile(FormatContract):
    name = "file"

    def values(self) -> list[Any]:
        return [Path(__file__), Path(__file__).with_name("contract.py")]

    def type_of(self, value: Any) -> Any:
        return Path

    def assert_equal(self, expected: Any, found: Any) -> None:
        assert found.read_bytes() == expected.read_bytes()


def test_a_file_is_read_by_its_extension(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "made.csv").write_text("x\n1\n")
    write("file", tmp_path / "made.csv", tmp_path / "stored.csv", Path)

    assert read("file", tmp_path / "stored.csv", pd.DataFrame)["x"].tolist() == [1]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is a folder; return the path of one file"):
        write("file", tmp_path, tmp_path / "f", Path)


class TestPickle(FormatContract):
    name = "pickle"
    read_options = {"allow_pickle": True}

    def values(self) -> list[Any]:
        return [{1: {"a", "b"}}, ValueError]

    def type_of(self, value: Any) -> Any:
        return object


@pytest.mark.parametrize("name", ["pickle", "joblib"])
def test_a_pickle_is_only_loaded_where_declared(name: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "f").write_bytes(pickle.dumps(Bomb()))

    with pytest.raises(FormatError, match=rf"loading one runs the code in it.*parameter\.{name}"):
        read(name, tmp_path / "f", object)
    with pytest.raises(FormatError, match="runs the code"):
        read(name, tmp_path / "f", object, allow_pickle="yes")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["pickle", "joblib"])
@pytest.mark.parametrize("renamed", [False, True], ids=["moved", "renamed"])
def test_an_object_whose_class_was_moved_or_renamed_is_told_with_what_to_do(
    name: str, renamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code, file = tmp_path / "moved.py", tmp_path / f"f.{name}"
    code.write_text("class Model: ...")
    write(name, importlib.import_module("moved").Model(), file, object)
    del sys.modules["moved"]
    code.unlink()
    if renamed:
        monkeypatch.setitem(sys.modules, "moved", types.ModuleType("moved"))

    with pytest.raises(FormatError) as error:
        read(name, file, object, allow_pickle=True)

    missing = "Model" if renamed else "No module named 'moved'"
    assert re.fullmatch(
        re.escape(f"{file} cannot be loaded by {name}: ")
        + ("it needs moved.Model, which is not there: " if name == "pickle" else "")
        + f".*{missing}.*"
        + re.escape(
            ". Where its class was renamed, moved or changed since, bring back what it was stored "
            "with, or run again the task that made it; where its library is missing, install it."
        ),
        str(error.value),
    )


def test_models_come_back_by_joblib(tmp_path: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = linear_model.LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    write("joblib", model, tmp_path / "f", object, compress=3)

    found = read("joblib", tmp_path / "f", object, allow_pickle=True)

    assert found.predict([[2.0]]) == pytest.approx([4.0])


def test_what_pickle_cannot_take_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be stored by pickle"):
        write("pickle", lambda: 0, tmp_path / "f", object)


def test_figures_are_stored_as_pictures(tmp_path: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([1, 2])
    first = write("figure", figure, tmp_path / "f")

    assert first.digest == write("figure", figure, tmp_path / "g").digest
    assert read("figure", tmp_path / "f", bytes).startswith(b"\x89PNG")
