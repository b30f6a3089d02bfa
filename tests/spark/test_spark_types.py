"""Which columns come to Spark and back exactly, and which are refused."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from spark_frames import read, write

from airflow_provider_dbnd.core.formats.fingerprint import BLOCK_ROWS
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import FormatError

FORMATS = ["arrow", "parquet"]
ROWS = BLOCK_ROWS + 777


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def random(rows: int = ROWS) -> Iterator[tuple[str, Any]]:
    """Columns with nulls of all kinds, at the ends of their ranges too."""
    generator = np.random.default_rng(7)
    holes = generator.random(rows) < 0.1

    def integers(type_: Any, bits: int, *, signed: bool = True) -> Any:
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        values = generator.integers(
            low, high, rows, f"{'' if signed else 'u'}int{bits}", endpoint=True
        )
        values[:2] = low, high
        return pa.array(values, mask=holes).cast(type_)

    for bits in (8, 16, 32, 64):
        yield f"int{bits}", integers(getattr(pa, f"int{bits}")(), bits)
    counting = np.arange(rows)
    yield "counting", pa.array(counting)
    yield "steps", pa.array(counting * -(10**9), mask=holes)
    yield "float", pa.array(generator.normal(size=rows).astype("float32"), mask=holes)
    doubles = generator.normal(size=rows)
    doubles[::7] = np.nan
    yield "double", pa.array(doubles, mask=holes)
    yield "bool", pa.array(generator.random(rows) < 0.5, mask=holes)
    texts = np.array([f"ü{number % 977}" * (number % 3) for number in counting], object)
    yield "text", pa.array(texts, mask=holes)
    yield "bytes", pa.array([bytes(3) * (number % 3) for number in counting], mask=holes)
    yield (
        "date",
        pa.array(generator.integers(-700_000, 100_000, rows, "int32"), mask=holes).cast(
            pa.date32()
        ),
    )
    times = generator.integers(-(6 * 10**16), 10**17, rows)
    yield "time", pa.array(times, mask=holes).cast(pa.timestamp("us"))
    yield "zoned", pa.array(times, mask=holes).cast(pa.timestamp("us", "UTC"))
    yield "duration", pa.array(times, mask=holes).cast(pa.duration("us"))
    yield (
        "decimal",
        pa.array([decimal.Decimal(int(number)).scaleb(-3) for number in times], mask=holes).cast(
            pa.decimal128(38, 3)
        ),
    )
    small = list(range(200))
    lists = pa.array([None if n % 5 == 0 else [n, None][: n % 3] for n in small])
    structs = pa.array([None if n % 5 == 0 else {"a": n, "b": [str(n)]} for n in small])
    maps = pa.array(
        [None if n % 5 == 0 else [(str(n), n / 7)] for n in small],
        pa.map_(pa.string(), pa.float64()),
    )
    places = pa.array(counting % len(small))
    for name, values in (("list", lists), ("struct", structs), ("map", maps)):
        yield name, values.take(places)


@pytest.mark.parametrize("format_", FORMATS)
def test_every_type_that_spark_has_is_the_same_data_there_and_back(
    spark: Any, store: ArtifactStore, format_: str
) -> None:
    table = pa.table(dict(random()))
    before = write(store, table, format_)

    frame = read(store, before, DataFrame)
    after = write(store, frame)

    assert after["digest"] == before["digest"]
    assert after["schema"] == before["schema"]
    assert after["rows"] == ROWS
    back, comparable = read(store, after, pa.Table), table.drop_columns("double")
    assert back.drop_columns("double").cast(comparable.schema).equals(comparable)
    again = write(store, read(store, after, DataFrame))
    assert again["digest"] == before["digest"]


@pytest.mark.parametrize("format_", FORMATS)
def test_columns_are_read_by_each_of_sparks_readers(
    spark: Any, store: ArtifactStore, format_: str
) -> None:
    """Spark has a reader of its own for flat columns and takes parquet's for others; both skip rows."""
    table = pa.table(
        {name: values for name, values in random(20_000) if name not in ("struct", "map", "list")}
    )
    reference = write(store, table, format_)
    expected = table.filter(pa.compute.equal(pa.compute.bit_wise_and(table["counting"], 63), 5))

    for vectorized in ("true", "false"):
        spark.conf.set("spark.sql.parquet.enableVectorizedReader", vectorized)
        try:
            some = read(store, reference, DataFrame).filter("(counting & 63) = 5")
            written = write(store, some)
        finally:
            spark.conf.unset("spark.sql.parquet.enableVectorizedReader")
        assert written["digest"] == write(store, expected)["digest"], vectorized


@pytest.mark.parametrize("format_", FORMATS)
def test_types_that_only_differ_in_layout_keep_their_values(
    spark: Any, store: ArtifactStore, format_: str
) -> None:
    number = np.arange(500)
    table = pa.table(
        {
            "uint8": pa.array(number % 256, pa.uint8()),
            "uint16": pa.array(65535 - number, pa.uint16()),
            "uint32": pa.array(2**32 - 1 - number, pa.uint32()),
            "uint64": pa.array([2**64 - 1 - int(n) for n in number], pa.uint64()),
            "seconds": pa.array(number - 250, pa.timestamp("s")),
            "millis": pa.array(number - 250, pa.timestamp("ms", "UTC")),
            "long text": pa.array(number.astype(str), pa.large_string()),
            "view": pa.array(list(map(str, number)), pa.string_view()),
            "fixed": pa.array([b"%08d" % n for n in number], pa.binary(8)),
            "day": pa.array(number * 86_400_000, pa.date64()),
            "waited": pa.array(number - 250, pa.duration("s")),
            "waited ms": pa.array(number - 250, pa.duration("ms")),
            "fixed list": pa.array([[n, n] for n in number], pa.list_(pa.int64(), 2)),
            "large list": pa.array([[n, n] for n in number], pa.large_list(pa.int64())),
            "null": pa.nulls(500),
        }
    )
    reference = write(store, table, format_)

    frame = read(store, reference, DataFrame)
    assert dict(frame.dtypes)["null"] == "void"
    back = read(store, write(store, frame.drop("null")), pa.Table)

    expected = table.drop_columns("null")
    assert back.cast(expected.schema).equals(expected)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_whole_microseconds_of_nanoseconds_are_exact(
    spark: Any, store: ArtifactStore, format_: str, zone: str | None
) -> None:
    """pandas 2 makes every time one with nanoseconds."""
    micros = [-(9 * 10**15), -1, 0, 1, 9 * 10**15]
    nanos = [1000 * micro for micro in micros]
    types = pa.timestamp("ns", zone), pa.timestamp("us", zone)
    table = pa.table(
        {
            "a`b": pa.array([*nanos, None], types[0]),
            "waited": pa.array([*nanos, None], pa.duration("ns")),
        }
    )
    reference = write(store, table, format_)

    back = read(store, write(store, read(store, reference, DataFrame)), pa.Table)

    assert back.equals(
        pa.table(
            {
                "a`b": pa.array([*micros, None], types[1]),
                "waited": pa.array([*micros, None], pa.duration("us")),
            }
        )
    )


@pytest.mark.parametrize("format_", FORMATS)
def test_nanoseconds_are_an_error_where_there_are_some(
    spark: Any, store: ArtifactStore, format_: str
) -> None:
    table = pa.table({"when": pa.array([1000, 1001], pa.timestamp("ns"))})
    reference = write(store, table, format_)

    frame = read(store, reference, DataFrame)
    with pytest.raises(
        Exception,
        match=r"column 'when' of type timestamp\[ns\] has nanoseconds, which Spark would lose; round",
    ):
        frame.collect()

    cut = read(store, reference, DataFrame, lossy=True).collect()
    assert [row.when for row in cut] == [dt.datetime(1970, 1, 1, 0, 0, 0, 1)] * 2


REFUSED = [
    pytest.param(
        pd.DataFrame({"x": pd.Categorical(["b", "a"], ["b", "a"], ordered=True)}),
        r"column 'x' of type dictionary<.*> would lose its categories and their order in Spark; "
        r"convert it to the type of its values, or read it with load_options={'lossy': True} if",
        [("b",), ("a",)],
        id="category",
    ),
    pytest.param(
        pd.DataFrame({"x": pd.cut([1, 9], [0, 5, 10])}),
        r"column 'x' of type dictionary<.*> would lose its categories and their order in Spark; ",
        [((0, 5),), ((5, 10),)],
        id="bins",
    ),
    pytest.param(
        pd.DataFrame({"x": pd.DatetimeIndex(["2024-07-01"]).tz_localize("Europe/Berlin")}),
        r"column 'x' .* would lose its time zone Europe/Berlin in Spark; convert it to UTC, or",
        [(dt.datetime.fromtimestamp(1719784800),)],
        id="time zone",
    ),
    pytest.param(
        pa.table({"x": pa.array([dt.time(1)])}),
        r"column 'x' of type time64\[us\] cannot be read by Spark; convert it to a duration or to text",
        None,
        id="time of day",
    ),
    pytest.param(
        pa.table({"x": pa.array([np.float16(1)])}),
        r"column 'x' of type halffloat cannot be read by Spark; convert it to float32",
        None,
        id="half float",
    ),
    pytest.param(
        pa.table({"x": pa.array([decimal.Decimal(1)], pa.decimal256(50, 2))}),
        r"column 'x' of type decimal256\(50, 2\) cannot be read by Spark; .* at most 38 digits",
        None,
        id="long decimal",
    ),
    pytest.param(
        pa.table({"x": pa.array([[0]], pa.list_(pa.timestamp("ns")))}),
        r"column 'x' of type list<.*> cannot be read by Spark; convert timestamp\[ns\] in it to an",
        None,
        id="nanoseconds in a list",
    ),
]  # fmt: skip


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(("value", "message", "lossy"), REFUSED)
def test_what_spark_would_lose_is_refused(
    spark: Any, store: ArtifactStore, format_: str, value: Any, message: str, lossy: Any
) -> None:
    reference = write(store, value, format_)

    with pytest.raises(FormatError, match=message):
        read(store, reference, DataFrame)
    if lossy is None:
        with pytest.raises(FormatError, match=message):
            read(store, reference, DataFrame, lossy=True)
    else:
        found = read(store, reference, DataFrame, lossy=True).collect()
        assert [tuple(row) for row in found] == lossy


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "NULL AS x",
            r"column 'x' of type void cannot be stored, because other engines have no void",
        ),
        ("make_ym_interval(1, 2) AS x", r"column 'x' of type interval year to month cannot be"),
        (
            "array(make_dt_interval(1)) AS x",
            r"column 'x' of type array<interval day to second> cann",
        ),
        ("1 AS x, 2 AS x", r"column 'x' occurs more than once; rename one of them"),
        ("1 AS x, 2 AS X", r"Spark cannot write this frame as parquet: .*COLUMN_ALREADY_EXISTS"),
    ],
)
def test_what_other_engines_do_not_have_is_refused(
    spark: Any, store: ArtifactStore, sql: str, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        write(store, spark.sql(f"SELECT {sql}"))

    assert list(store.list()) == []


def test_other_things_that_are_no_result_are_refused(
    spark: Any, store: ArtifactStore, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match="a frame without columns cannot be stored; give it one"):
        write(store, spark.range(3).select())
    with pytest.raises(FormatError, match="a streaming frame has no end, so it cannot be a result"):
        write(store, spark.readStream.format("rate").load())
    with pytest.raises(
        FormatError, match=r"format 'parquet' has no option 'level'; it has: compress"
    ):
        write(store, spark.range(3), level=3)
    with pytest.raises(
        LookupError, match=r"format 'csv' does not hold a pyspark.sql.DataFrame; form"
    ):
        write(store, spark.range(3), "csv")


def test_a_pandas_index_becomes_columns_and_counting_vanishes(
    spark: Any, store: ArtifactStore
) -> None:
    named = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"], name="key"))

    for format_ in FORMATS:
        frame = read(store, write(store, named, format_), DataFrame)
        assert [tuple(row) for row in frame.collect()] == [(1, "a"), (2, "b")]
        assert frame.columns == ["x", "__index_level_0__"]
        assert read(store, write(store, named[:0].reset_index(), format_), DataFrame).columns == [
            "key",
            "x",
        ]


def test_times_do_not_depend_on_the_session(spark: Any, store: ArtifactStore) -> None:
    frame = spark.createDataFrame([(0,)], "n long").select(
        F.timestamp_seconds("n").alias("zoned"),
        F.expr("TIMESTAMP_NTZ'1970-01-01 00:00:00'").alias("plain"),
        F.expr("DATE'1200-01-01'").alias("old"),
    )

    found = read(store, write(store, frame), pa.Table)

    assert found.equals(
        pa.table(
            {
                "zoned": pa.array([0], pa.timestamp("us", "UTC")),
                "plain": pa.array([0], pa.timestamp("us")),
                "old": pa.array([dt.date(1200, 1, 1)]),
            }
        )
    )
    assert spark.conf.get("spark.sql.parquet.outputTimestampType") == "INT96"


def test_pandas_reads_what_spark_wrote_as_its_own(spark: Any, store: ArtifactStore) -> None:
    frame = pd.DataFrame(
        {
            "number": np.arange(1000),
            "float": np.where(np.arange(1000) % 3, np.arange(1000) / 7, np.nan),
            "text": np.arange(1000).astype(str),
            "when": pd.Series(np.arange(1000).astype("M8[us]")),
            "zoned": pd.Series(np.arange(1000).astype("M8[us]")).dt.tz_localize("UTC"),
            "flag": np.arange(1000) % 2 == 0,
        }
    )
    reference = write(store, frame)

    after = write(store, read(store, reference, DataFrame))

    pd.testing.assert_frame_equal(read(store, after, pd.DataFrame), frame, check_exact=True)
    assert after["digest"] == reference["digest"]
    parts = list(read(store, after, Iterator[pd.DataFrame]))
    pd.testing.assert_frame_equal(pd.concat(parts), frame, check_exact=True)
    some = read(store, after, pd.DataFrame, columns=["text", "number"], rows=(10, 20))
    pd.testing.assert_frame_equal(some, frame.loc[10:19, ["text", "number"]])
