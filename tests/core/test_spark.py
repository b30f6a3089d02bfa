"""Spark as far as it needs no pyspark; tests/spark has the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pandas as pd
import pytest

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.edges import fits
from airflow_provider_dbnd.core.parameters import Parameter
from airflow_provider_dbnd.core.signature import read_signature
from airflow_provider_dbnd.core.spark.session import is_session, session
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import Decoder
from airflow_provider_dbnd.exceptions import (
    FormatNotFoundError,
    MissingDependencyError,
    SignatureError,
)

REFERENCE = {
    "dbnd_artifact": 1,
    "uri": "file:///store/a.parquet",
    "type": "pyspark.sql.DataFrame",
    "format": "parquet",
    "digest": "ab",
    "checksum": "parts:ab",
    "size": 1,
}


def named(module: str, name: str, *bases: type) -> Any:
    """Return a class that says to be of another module, as pyspark's does."""
    return type(name, bases, {"__module__": module})


Frame = named("pyspark.sql.dataframe", "DataFrame")
ClassicFrame = named("pyspark.sql.classic.dataframe", "DataFrame", Frame)
ConnectFrame = named("pyspark.sql.connect.dataframe", "DataFrame", Frame)
PandasOnSpark = named("pyspark.pandas.frame", "DataFrame")
Session = named("pyspark.sql.session", "SparkSession")
ConnectSession = named("pyspark.sql.connect.session", "SparkSession")


@pytest.mark.parametrize("type_", [Frame, ClassicFrame, ConnectFrame])
def test_a_spark_frame_is_a_table_that_is_stored_as_parquet_everywhere(type_: Any) -> None:
    for medium in ("local", "remote"):
        format_, extension = formats.format_for_output(type_, medium=medium)  # type: ignore[arg-type]
        assert (format_.name, extension) == ("parquet", "parquet")
    for name in ("parquet", "arrow", "feather", "csv", "tsv", "jsonl", "records"):
        assert formats.format_for_input(type_, format=name, extension=None).name == name
    assert formats.type_name(type_) == "pyspark.sql.DataFrame"
    assert formats.is_data_type(Optional[type_])
    assert fits(type_, pd.DataFrame)
    assert fits(pd.DataFrame, type_)
    assert fits(str, type_)
    assert not fits(int, type_)
    assert not fits(pd.Series, type_)


@pytest.mark.parametrize("name", ["arrow", "csv", "excel", "npy"])
def test_a_spark_frame_is_stored_as_nothing_else(name: str) -> None:
    with pytest.raises(FormatNotFoundError) as error:
        formats.format_for_output(Frame, medium="local", name=name)

    assert str(error.value) == (
        f"format {name!r} does not hold a pyspark.sql.DataFrame; formats that do: parquet, pickle, "
        "joblib, skops"
    )


def test_a_pandas_frame_on_spark_is_no_spark_frame() -> None:
    assert not formats.is_data_type(PandasOnSpark)
    with pytest.raises(FormatNotFoundError, match=r"no format stores a pyspark\.pandas\.DataFrame"):
        formats.format_for_output(PandasOnSpark, medium="local")


def test_nothing_imports_pyspark_by_itself() -> None:
    code = """
import sys, pandas
from airflow_provider_dbnd import pipeline, task
from airflow_provider_dbnd.core import formats, values, execute, runner
from airflow_provider_dbnd.core.spark import session as spark
from airflow_provider_dbnd.core.storage import store
Frame = type("DataFrame", (), {"__module__": "pyspark.sql.dataframe"})
assert formats.is_data_type(Frame) and formats.is_data_type("pyspark.sql.DataFrame")
assert formats.can_convert(Frame, pandas.DataFrame)
assert not spark.is_session(Frame)
formats.format_for_output(Frame, medium="local")
assert "pyspark" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_missing_pyspark_is_told_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    decoder = Decoder(store=ArtifactStore(str(tmp_path)), scratch=str(tmp_path))

    for annotation in (Frame, Any):
        with pytest.raises(MissingDependencyError) as error:
            decoder.load(REFERENCE, "orders", annotation, Parameter(), "")
        assert str(error.value) == (
            "Spark frames need pyspark: pip install 'airflow-provider-dbnd[spark]'"
        )
    with pytest.raises(MissingDependencyError):
        session()


def test_the_client_of_spark_connect_alone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed")
    if (Path(pyspark.__file__).parent / "jars").is_dir():
        pytest.skip("pyspark is installed with its JVM part")
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    # A process of pytest-xdist has no main file, which Spark 4.2 takes for a run of its own doctests.
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)

    with pytest.raises(
        MissingDependencyError, match="is only the client of Spark Connect: set SPARK_"
    ):
        session()


@pytest.mark.parametrize("type_", [Session, ConnectSession, Optional[Session]])
def test_a_session_is_known_by_its_annotation(type_: Any) -> None:
    assert is_session(type_)


@pytest.mark.parametrize("type_", [Frame, int, list[int], Any, "SparkSession", None])
def test_other_annotations_are_no_session(type_: Any) -> None:
    assert not is_session(type_)


def test_a_session_is_no_input_of_a_task() -> None:
    def count(spark: Session, orders: Frame, *, least: int = 1) -> int:  # type: ignore[valid-type]
        return least

    count.__annotations__ = {"spark": Session, "orders": Frame, "least": int, "return": int}
    signature = read_signature(count, {})

    assert list(signature.inputs) == ["orders", "least"]
    assert list(signature.injected) == ["spark"]
    assert signature.bind(("x",), {"least": 2}) == {"orders": "x", "least": 2}
    assert signature.spread({"orders": 1, "least": 2, "spark": 3}) == (
        [],
        {"spark": 3, "orders": 1, "least": 2},
    )
    with pytest.raises(
        SignatureError, match=r"count\(\): got an unexpected keyword argument 'spark'"
    ):
        signature.bind(("x",), {"spark": 1})
