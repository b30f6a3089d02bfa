"""Frames of Spark as artifacts: folders of parts, written and read by the executors."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import dataset

pytest.importorskip("pyspark", reason="pyspark is not installed")

from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from spark_frames import decoder, read, write

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.formats import spark_frame
from airflow_provider_dbnd.core.storage.parts import LISTING
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import publish
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ConfigurationError,
    FormatError,
)

ROWS = 10_000


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def table(rows: int = ROWS) -> pa.Table:
    number = np.arange(rows)
    return pa.table({"number": number, "text": number.astype(str)})


def uneven(spark: Any) -> Any:
    """The rows of :func:`table` in five parts, few in the first: Spark reads the largest file first."""
    first = "CASE id WHEN 0 THEN 0 WHEN 1 THEN 10 ELSE (id - 1) * 2500 END"
    last = "CASE id WHEN 0 THEN 9 ELSE id * 2500 - 1 END"
    frame = spark.range(0, 5, 1, 5).selectExpr(f"EXPLODE(SEQUENCE({first}, {last})) AS number")
    return frame.selectExpr("CAST(number AS BIGINT) AS number", "CAST(number AS STRING) AS text")


def numbers(frame: Any) -> list[int]:
    return [row.number for row in frame.select("number").collect()]


def folder_of(reference: Any) -> Path:
    return Path(reference["uri"].removeprefix("file://"))


def parts_of(reference: Any) -> list[Path]:
    return sorted(folder_of(reference).glob("part-*"))


def test_a_frame_becomes_a_folder_of_parts_that_is_one_artifact(
    spark: Any, store: ArtifactStore
) -> None:
    reference = write(store, uneven(spark))

    folder = folder_of(reference)
    listing = json.loads((folder / LISTING).read_text())
    assert reference["uri"].startswith(f"{store.url}/p/t/result/{reference['digest']}-")
    assert reference["uri"].endswith(".parquet")
    assert reference["type"] == "pyspark.sql.DataFrame"
    assert reference["format"] == "parquet"
    assert reference["rows"] == ROWS
    assert reference["schema"] == {"number": "int64", "text": "string"}
    assert reference["checksum"].startswith("parts:")
    assert reference["size"] == sum(part.stat().st_size for part in parts_of(reference))
    assert sorted(os.listdir(folder)) == [LISTING, *(part.name for part in parts_of(reference))]
    assert [part["rows"] for part in listing["parts"]] == [10, 2490, 2500, 2500, 2500]
    assert len(json.dumps(reference)) < 4096
    assert {info.key.split("/")[-2] for info in store.list()} == {folder.name}


def test_digest_is_that_of_the_same_rows_from_any_engine(spark: Any, store: ArtifactStore) -> None:
    digests = {
        write(store, each)["digest"]
        for each in (
            table(),
            table().to_pandas(),
            uneven(spark),
            uneven(spark).coalesce(1),
            read(store, write(store, table()), DataFrame),
        )
    }

    assert len(digests) == 1
    assert write(store, uneven(spark).sort("number", ascending=False))["digest"] not in digests


def test_rows_keep_their_order_from_task_to_task(spark: Any, store: ArtifactStore) -> None:
    reference = write(store, uneven(spark))

    frame = read(store, reference, DataFrame)

    assert len(parts_of(reference)) == 5
    assert numbers(frame) == list(range(ROWS))
    assert numbers(frame.filter("number % 2 = 0")) == list(range(0, ROWS, 2))
    assert read(store, reference, pa.Table).equals(table())
    assert write(store, frame)["digest"] == reference["digest"]


def test_many_parts_are_all_read(spark: Any, store: ArtifactStore) -> None:
    frame = spark.range(0, 1000, 1, 40).withColumnRenamed("id", "number")
    reference = write(store, frame)

    assert len(parts_of(reference)) == 40
    assert sorted(numbers(read(store, reference, DataFrame))) == list(range(1000))
    assert read(store, reference, pd.DataFrame)["number"].tolist() == list(range(1000))


def test_every_container_reads_the_folder(spark: Any, store: ArtifactStore) -> None:
    reference = write(store, uneven(spark))
    expected = table().to_pandas()

    pd.testing.assert_frame_equal(read(store, reference, pd.DataFrame), expected)
    assert read(store, reference, pa.Table).equals(table())
    assert read(store, reference, pa.RecordBatchReader).read_all().equals(table())
    assert read(store, reference, dataset.Dataset).to_table().equals(table())
    assert sum(len(part) for part in read(store, reference, Iterator[pd.DataFrame])) == ROWS
    assert read(store, reference, Path) == folder_of(reference)
    assert read(store, reference, Artifact).rows == ROWS
    some = read(store, reference, pd.DataFrame, columns=["text"], rows=(2495, 2505))
    assert some["text"].tolist() == [str(n) for n in range(2495, 2505)]
    assert read(store, reference, DataFrame, columns=["text"]).columns == ["text"]


def test_what_spark_calls_otherwise_in_parquet_comes_back(spark: Any, store: ArtifactStore) -> None:
    """An interval is a number in the file."""
    reference = write(store, spark.sql("SELECT make_dt_interval(0, 0, 0, 1.5) AS waited"))
    expected = pa.table({"waited": pa.array([1_500_000], pa.duration("us"))})

    assert reference["schema"] == {"waited": "duration[us]"}
    assert reference["digest"] == write(store, expected)["digest"]
    for type_ in (pa.Table, dataset.Dataset):
        found = read(store, reference, type_)
        assert (found if type_ is pa.Table else found.to_table()).equals(expected)
    assert dict(read(store, reference, DataFrame).dtypes) == {"waited": "interval day to second"}


def test_two_writers_of_the_same_rows_agree(spark: Any, store: ArtifactStore) -> None:
    first = write(store, uneven(spark))
    stamps = [part.stat().st_mtime_ns for part in parts_of(first)]

    assert write(store, uneven(spark)) == first
    assert [part.stat().st_mtime_ns for part in parts_of(first)] == stamps


def test_an_empty_frame_is_an_artifact_with_columns(spark: Any, store: ArtifactStore) -> None:
    for frame in (
        uneven(spark).filter("number < 0"),
        read(store, write(store, table(0)), DataFrame),
    ):
        reference = write(store, frame)

        assert reference["rows"] == 0
        assert reference["digest"] == write(store, table(0))["digest"]
        assert read(store, reference, DataFrame).collect() == []
        assert read(store, reference, pa.Table).equals(table(0))


def test_a_frame_that_fails_while_it_is_computed_leaves_nothing(
    spark: Any, store: ArtifactStore
) -> None:
    frame = uneven(spark).withColumn(
        "text",
        F.when(F.col("number") > 9000, F.raise_error(F.lit("no such flight"))).otherwise("x"),
    )

    with pytest.raises(Exception, match="no such flight"):
        write(store, frame)

    assert list(store.list()) == []
    assert os.listdir(folder_of({"uri": store.url}) / ".staging") == []
    assert spark.conf.get("spark.sql.parquet.outputTimestampType") == "INT96"


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from spark_frames import write
from pyspark.sql import SparkSession
from airflow_provider_dbnd.core.storage import folders
from airflow_provider_dbnd.core.storage.store import ArtifactStore
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
moved = []
move = folders.Folders._move
def dies(self, source, uri, part):
    move(self, source, uri, part)
    moved.append(part)
    if len(moved) == 2:
        os.kill(os.getpid(), 9)
folders.Folders._move = dies
write(ArtifactStore(sys.argv[1]), spark.range(0, 1000, 1, 6).withColumnRenamed("id", "number"))
"""


def test_a_killed_writer_leaves_no_artifact_and_the_next_one_succeeds(
    spark: Any, store: ArtifactStore, tmp_path: Path
) -> None:
    root = str(Path(__file__).parents[2])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, store.url, str(Path(__file__).parent)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    left = {info.key.rpartition("/")[0] for info in store.list()}
    assert len(left) == 1
    assert not store.exists(next(iter(left)))

    reference = write(store, spark.range(0, 1000, 1, 6).withColumnRenamed("id", "number"))

    assert store.exists(reference["uri"])
    assert numbers(read(store, reference, DataFrame)) == list(range(1000))


@pytest.mark.parametrize("type_", [DataFrame, pd.DataFrame])
@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        pytest.param(
            lambda part: part.unlink(),
            ArtifactNotFoundError,
            r"/{name} is not there: expected",
            id="gone",
        ),
        pytest.param(
            lambda part: part.write_bytes(part.read_bytes()[:-1]),
            ArtifactCorruptedError,
            r"/{name} is damaged or was changed: expected \d+ bytes, found \d+\. Delete",
            id="cut",
        ),
        pytest.param(
            lambda part: part.with_name("part-9.parquet").write_bytes(part.read_bytes()),
            ArtifactCorruptedError,
            r"expected 5 parts, found part-9.parquet besides them",
            id="one more",
        ),
        pytest.param(
            lambda part: part.with_name(LISTING).unlink(),
            ArtifactNotFoundError,
            r"is not there: expected \d+ bytes, parts:",
            id="no list",
        ),
        pytest.param(
            lambda part: part.with_name(LISTING).write_bytes(b"{}"),
            ArtifactCorruptedError,
            r"_parts.json is damaged or was changed: expected parts:\w+, found parts:",
            id="other list",
        ),
    ],
)
def test_a_damaged_folder_is_told(
    spark: Any, store: ArtifactStore, type_: Any, damage: Any, error: Any, message: str
) -> None:
    reference = write(store, uneven(spark))
    part = parts_of(reference)[2]
    damage(part)

    with pytest.raises(error, match=message.replace("{name}", part.name)):
        read(store, reference, type_)


def test_a_changed_byte_is_found_by_whoever_reads_it(spark: Any, store: ArtifactStore) -> None:
    reference = write(store, uneven(spark))
    part = parts_of(reference)[2]
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(bytes(data))

    with pytest.raises(ArtifactCorruptedError, match=f"{part.name} is damaged.*expected blake3"):
        read(store, reference, pd.DataFrame)
    with pytest.raises(Exception, match=r"CRC checksum verification failed|FAILED_READ_FILE"):
        read(store, reference, DataFrame).collect()


@pytest.mark.parametrize("format_", ["arrow", "parquet", "jsonl"])
def test_a_damaged_file_of_another_engine_is_told(
    spark: Any, store: ArtifactStore, format_: str
) -> None:
    reference = write(store, table(), format_)
    path = folder_of(reference)
    good = path.read_bytes()

    path.write_bytes(good[:-3])
    with pytest.raises(
        ArtifactCorruptedError, match=f"expected {len(good)} bytes, found {len(good) - 3}"
    ):
        read(store, reference, DataFrame)
    path.unlink()
    with pytest.raises(ArtifactNotFoundError, match=f"{path} is not there"):
        read(store, reference, DataFrame)


@pytest.mark.parametrize("format_", ["arrow", "parquet"])
def test_another_file_in_place_of_an_artifact_is_told(
    spark: Any, store: ArtifactStore, format_: str
) -> None:
    reference = write(store, table(), format_)
    other = write(store, table().slice(0, ROWS - 1).append_column("x", pa.nulls(ROWS - 1)), format_)
    path = folder_of(reference)
    path.write_bytes(folder_of(other).read_bytes())

    with pytest.raises(ArtifactCorruptedError):
        read(store, {**reference, "size": path.stat().st_size}, DataFrame)


def test_values_in_text_files_of_other_engines_are_the_same(
    spark: Any, store: ArtifactStore
) -> None:
    frame = pd.DataFrame(
        {
            "number": [1, 2],
            "half": [0.5, 1e-300],
            "text": ['a,"b"\nc', "ü\\"],
            "flag": [True, False],
        }
    )
    for format_ in ("csv", "tsv", "jsonl", "records"):
        found = read(store, write(store, frame, format_), DataFrame)

        rows = [row.asDict() for row in found.select(*frame.columns).collect()]
        assert rows == frame.to_dict("records"), format_


def test_a_format_spark_does_not_read_is_named(spark: Any, store: ArtifactStore) -> None:
    pytest.importorskip("openpyxl")
    reference = write(store, table(3), "excel")

    with pytest.raises(LookupError, match=r"format 'excel' does not hold a pyspark.sql.DataFrame"):
        read(store, reference, DataFrame)


def test_files_of_a_user_are_read_by_spark_itself(
    spark: Any, store: ArtifactStore, tmp_path: Path
) -> None:
    folder = tmp_path / "in 1"
    for day in (1, 2):
        (folder / "days" / f"day={day}").mkdir(parents=True)
        pq.write_table(table(day), folder / "days" / f"day={day}" / "a.parquet")
    pq.write_table(table(3), folder / "one.parquet")
    table(4).to_pandas().to_csv(folder / "four.csv", index=False)
    (folder / "four.csv.gz").write_bytes(gzip.compress((folder / "four.csv").read_bytes()))
    (folder / "lines.jsonl").write_text('{"number": 1}\n{"number": 2}\n')
    with pa.ipc.new_file(folder / "five.arrow", table(5).schema) as writer:
        writer.write_table(table(5))
    base = str(folder)

    def loaded(uri: Any, **options: Any) -> list[int]:
        return numbers(read(store, uri, DataFrame, base, **options))

    assert loaded("one.parquet") == [0, 1, 2]
    assert loaded("four.csv") == loaded("four.csv.gz") == [0, 1, 2, 3]
    assert loaded("lines.jsonl") == [1, 2]
    assert loaded("five.arrow") == [0, 1, 2, 3, 4]
    assert sorted(loaded(["four.csv", "four.csv.gz"])) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sorted(loaded("*.parquet")) == [0, 1, 2]
    days = read(store, "days", DataFrame, base)
    assert sorted((row.number, row.day) for row in days.collect()) == [(0, 1), (0, 2), (1, 2)]
    assert read(store, "four.csv", DataFrame, base, inferSchema=False).dtypes[0][1] == "string"
    assert read(store, "one.parquet", DataFrame, base, columns=["text"]).columns == ["text"]


def test_nanoseconds_in_files_of_a_user_are_read_too(
    spark: Any, store: ArtifactStore, tmp_path: Path
) -> None:
    """pandas 2 writes such times by default, and Spark's own reader refuses them."""
    times = pd.DatetimeIndex(["2024-07-01 12:00:00.000001"]).as_unit("ns")
    frame = pd.DataFrame({"when": times, "zoned": times.tz_localize("Europe/Berlin"), "x": ["a"]})
    for day in (1, 2):
        (tmp_path / f"day={day}").mkdir()
        frame.astype({"x": "category"}).to_parquet(tmp_path / f"day={day}" / "a.parquet")

    found = read(store, str(tmp_path), DataFrame).sort("day").collect()

    assert [(row.when, row.x, row.day) for row in found] == [(times[0], "a", 1), (times[0], "a", 2)]


def test_what_was_read_is_recorded_without_reading_it(
    spark: Any, store: ArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "in" / name).write_text("number\n1\n")

    def recorded() -> Any:
        loading = decoder(store)
        loading.load("in", "orders", DataFrame, formats_parameter(), str(tmp_path))
        return loading.inputs

    first = recorded()
    assert first == {
        "orders": [
            {
                "uri": f"file://{tmp_path}/in",
                "checksum": first["orders"][0]["checksum"],
                "size": 18,
            }
        ]
    }
    assert first["orders"][0]["checksum"].startswith("listing:")
    assert recorded() == first
    (tmp_path / "in" / "b.csv").write_text("number\n2\n3\n")
    assert recorded() != first


def formats_parameter() -> Any:
    from airflow_provider_dbnd.core.parameters import Parameter

    return Parameter()


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        pytest.param(
            "a.csv.xz", b"x", FormatError, r"Spark does not unpack .*a.csv.xz: expected no", id="xz"
        ),
        pytest.param(
            "a.parquet", b"x", FormatError, r"a.parquet is not a parquet file", id="no parquet"
        ),
        pytest.param(
            "a.arrow", b"x", FormatError, r"a.arrow is not an Arrow IPC file", id="no arrow"
        ),
        pytest.param("b.csv", b"", ArtifactNotFoundError, r"'a.csv' matches no file", id="missing"),
        pytest.param(
            "a.bin", b"", LookupError, r"does not hold a pyspark.sql.DataFrame", id="kind"
        ),
    ],
)
def test_a_bad_input_is_told(
    spark: Any,
    store: ArtifactStore,
    tmp_path: Path,
    name: str,
    content: bytes,
    error: Any,
    message: str,
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(error, match=message):
        read(store, name.replace("b.csv", "a.csv"), DataFrame, str(tmp_path))


def test_files_of_several_formats_are_told(
    spark: Any, store: ArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("number\n1\n")
    (tmp_path / "b.tsv").write_text("number\n1\n")

    with pytest.raises(FormatError) as error:
        read(store, str(tmp_path), DataFrame)

    assert str(error.value) == (
        f"Spark reads files of one format at once: file://{tmp_path}/a.csv is csv, "
        f"file://{tmp_path}/b.tsv is tsv. Name files of one by a pattern such as data/*.csv."
    )


def test_places_the_executors_do_not_reach_are_told(spark: Any) -> None:
    store = ArtifactStore("memory://spark-test")
    reference = write(store, table(3))
    arrow = write(store, table(3), "arrow")

    message = (
        r"Spark's executors do not reach memory://spark-test.*: expected s3, gs, abfs, hdfs, webhdfs "
        r"or a shared folder\. Name such a place, in \[dbnd\] store for what tasks write"
    )
    with pytest.raises(ConfigurationError, match=message):
        write(store, spark.range(3))
    with pytest.raises(ConfigurationError, match=message):
        read(store, reference, DataFrame)
    with pytest.raises(
        FormatError, match=r"Spark does not read Arrow files from memory://.*Declare ou"
    ):
        read(store, arrow, DataFrame)


def test_a_path_is_never_a_pattern(spark: Any, tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "a {store} [x] * \\ ü"))
    reference = write(store, uneven(spark))

    for each in (reference, write(store, table()), write(store, table(), "parquet")):
        assert numbers(read(store, each, DataFrame)) == list(range(ROWS))


def test_what_runs_on_executors_needs_nothing_of_this_package(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    with pa.ipc.new_file(path, table(5).schema) as writer:
        writer.write_table(table(5))
    blocks = spark_frame._blocks_of_file(str(path), [5])
    code = f"""
import pickle, sys
blocks = pickle.loads({cloudpickle.dumps(blocks)!r})
print([batch.num_rows for batch in blocks(1, 4)])
assert not [name for name in sys.modules if "airflow_provider" in name]
"""

    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout

    assert printed == "[3]\n"


def test_frames_in_lists_and_dicts_are_artifacts_each(spark: Any, store: ArtifactStore) -> None:
    frame = uneven(spark)
    encoded = write(store, {"all": frame, "some": [frame.limit(3)]})

    assert [encoded["all"]["rows"], encoded["some"][0]["rows"]] == [ROWS, 3]
    some = read(store, encoded["some"], list[DataFrame])
    assert numbers(some[0]) == [0, 1, 2]
    assert numbers(read(store, encoded["all"], Any)) == list(range(ROWS))


def test_the_compression_can_be_chosen(spark: Any, store: ArtifactStore) -> None:
    for options, expected in (({}, "ZSTD"), ({"compression": "snappy"}, "SNAPPY")):
        reference = write(store, spark.range(100), "parquet", **options)

        part = pq.ParquetFile(parts_of(reference)[0])
        assert part.metadata.row_group(0).column(0).compression == expected


def test_a_published_folder_is_replaced_as_a_whole(
    spark: Any, store: ArtifactStore, tmp_path: Path
) -> None:
    for rows in (1000, 10):
        reference = write(store, spark.range(0, rows, 1, 3).withColumnRenamed("id", "number"))
        uri = publish(store, reference, "out/mart.parquet", base=str(tmp_path), into=str(tmp_path))

        assert uri == f"file://{tmp_path}/out/mart.parquet"
        assert sorted(numbers(spark.read.parquet(uri))) == list(range(rows))
        assert pd.read_parquet(tmp_path / "out" / "mart.parquet")["number"].tolist() == list(
            range(rows)
        )


def test_frames_in_memory_become_spark_frames_but_not_the_other_way(spark: Any) -> None:
    frame = table().to_pandas()

    assert numbers(formats.convert_in_memory(frame, DataFrame)) == list(range(ROWS))
    assert formats.convert_in_memory(uneven(spark), DataFrame).count() == ROWS
    with pytest.raises(FormatError) as error:
        formats.convert_in_memory(spark.range(3), pd.DataFrame)
    assert str(error.value) == (
        "a Spark frame is not brought into the memory of this process to become a "
        "pandas.DataFrame: return it from a task and pass the result on, or call .toPandas()"
    )


def test_types_are_told_apart_by_their_public_names(spark: Any) -> None:
    pandas_on_spark = type("DataFrame", (), {"__module__": "pyspark.pandas.frame"})

    assert formats.type_name(type(spark.range(1))) == "pyspark.sql.DataFrame"
    assert formats.type_name(SparkSession) == "pyspark.sql.SparkSession"
    assert formats.is_data_type(DataFrame)
    assert formats.is_data_type(DataFrame | None)
    assert not formats.is_data_type(pandas_on_spark)
    for other in (pd.DataFrame, pa.Table, Iterator[pd.DataFrame]):
        assert formats.can_convert(other, DataFrame)
        assert formats.can_convert(DataFrame, other)
    assert not formats.can_convert(pd.Series, DataFrame)
    assert not formats.can_convert(DataFrame, int)
