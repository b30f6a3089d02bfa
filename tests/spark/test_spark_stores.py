"""Stores that the executors reach by Hadoop's own file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")

from pyspark.sql import DataFrame
from spark_frames import read, write

from airflow_provider_dbnd.core.spark.session import hadoop_options, hadoop_url, literal
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, ConfigurationError

BUCKET = "dbnd-spark"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server of this process."""
    server = pytest.importorskip("moto.server")
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def s3_options(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What reaches the server: nothing of it is in the environment or in Spark's settings."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="AK",
        aws_secret_access_key="SK",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    return {"endpoint_url": endpoint, "key": "AK", "secret": "SK"}


@pytest.fixture
def s3(spark: Any, s3_options: dict[str, Any]) -> ArtifactStore:
    if "DBND_TEST_SPARK_JARS" not in os.environ:
        pytest.skip("DBND_TEST_SPARK_JARS does not name the folder of hadoop-aws and its libraries")
    if not spark.version.startswith("3."):
        pytest.skip("the libraries are those of Spark 3")
    return ArtifactStore(f"s3://{BUCKET}/{os.urandom(4).hex()}", storage_options={"s3": s3_options})


def table(rows: int = 5000) -> pa.Table:
    number = pa.array(range(rows))
    return pa.table({"number": number, "text": number.cast(pa.string())})


def frame(spark: Any, parts: int = 3) -> Any:
    return spark.range(0, 5000, 1, parts).selectExpr("id AS number", "CAST(id AS STRING) AS text")


def test_spark_and_pandas_share_a_bucket(spark: Any, s3: ArtifactStore, tmp_path: Path) -> None:
    ours = write(s3, table())
    theirs = write(s3, frame(spark))

    assert ours["uri"].endswith(".parquet")
    assert theirs["uri"].startswith(f"s3://{BUCKET}/")
    assert theirs["digest"] == ours["digest"]
    assert s3.exists(theirs["uri"])
    for reference in (ours, theirs):
        found = read(s3, reference, DataFrame)
        assert [row.number for row in found.collect()] == list(range(5000))
        assert read(s3, reference, pa.Table).equals(table())
        assert len(read(s3, reference, pd.DataFrame)) == 5000
        assert write(s3, found)["digest"] == ours["digest"]
    assert write(s3, frame(spark)) == theirs
    left = s3.filesystem(s3.url).find(f"{s3.url[5:]}/.staging")
    assert left == []
    folders = [f"{theirs['uri']}/", ours["uri"]]
    assert all(
        f"{s3.url}/{info.key}".startswith(tuple(folders)) or "t/result" in info.key
        for info in s3.list()
    )


def test_a_changed_part_in_a_bucket_is_told(spark: Any, s3: ArtifactStore) -> None:
    reference = write(s3, frame(spark))
    name = sorted(s3.folders.files(reference["uri"]))[1]
    s3.put_bytes(f"{reference['uri'][len(s3.url) + 1 :]}/{name}", b"x", overwrite=True)

    for type_ in (DataFrame, pd.DataFrame):
        with pytest.raises(
            ArtifactCorruptedError, match=f"{name} is damaged .* expected .*, found 1"
        ):
            read(s3, reference, type_)


def test_inputs_in_a_bucket_are_read_by_spark(
    spark: Any, s3: ArtifactStore, tmp_path: Path
) -> None:
    table(3).to_pandas().to_parquet(tmp_path / "a.parquet")
    for day in (1, 2):
        s3.publish(str(tmp_path / "a.parquet"), f"{s3.url}/in/day={day}/a.parquet")
    (tmp_path / "a.csv").write_text("number\n1\n2\n")
    s3.publish(str(tmp_path / "a.csv"), f"{s3.url}/in/a.csv")

    days = read(s3, f"{s3.url}/in/day=1", DataFrame).collect()
    assert [row.number for row in days] == [0, 1, 2]
    assert read(s3, "a.csv", DataFrame, f"{s3.url}/in").count() == 2
    assert read(s3, f"{s3.url}/in/*/*.parquet", DataFrame).count() == 6


def test_a_published_folder_in_a_bucket_is_replaced(
    spark: Any, s3: ArtifactStore, tmp_path: Path
) -> None:
    from airflow_provider_dbnd.core.values import publish

    for rows in (100, 10):
        reference = write(s3, spark.range(0, rows, 1, 2))
        publish(s3, reference, f"{s3.url}/out/mart.parquet", base="", into=str(tmp_path))

        assert read(s3, f"{s3.url}/out/mart.parquet", DataFrame).count() == rows


def test_hdfs_is_reached_as_it_is(spark: Any) -> None:
    if not os.environ.get("DBND_TEST_WEBHDFS") or not spark.version.startswith("3."):
        pytest.skip(
            "DBND_TEST_WEBHDFS does not say where the server is, or Spark is too new for it"
        )
    address = os.environ["DBND_TEST_WEBHDFS"].removeprefix("http://")
    store = ArtifactStore(f"webhdfs://root@{address}/dbnd-spark/{os.urandom(4).hex()}")

    ours, theirs = write(store, table()), write(store, frame(spark))

    assert theirs["digest"] == ours["digest"]
    for reference in (ours, theirs):
        assert read(store, reference, DataFrame).count() == 5000
        assert read(store, reference, pa.Table).equals(table())


class FileSystem:
    """What is asked of an fsspec file system here."""

    account_name = "account"
    storage_options = {"host": "namenode", "port": 50070}


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a/b", "s3a://bucket/a/b"),
        ("s3://conn_id@bucket/a", "s3a://bucket/a"),
        ("s3a://bucket/a", "s3a://bucket/a"),
        ("gs://conn_id@bucket/a", "gs://bucket/a"),
        ("gcs://bucket/a", "gs://bucket/a"),
        ("abfs://box/a", "abfss://box@account.dfs.core.windows.net/a"),
        ("az://conn_id@box/a", "abfss://box@account.dfs.core.windows.net/a"),
        ("abfss://box@acc.dfs.core.windows.net/a", "abfss://box@acc.dfs.core.windows.net/a"),
        (
            "abfs://conn_id@box@acc.dfs.core.windows.net/a",
            "abfss://box@acc.dfs.core.windows.net/a",
        ),
        ("hdfs://node:8020/a", "hdfs://node:8020/a"),
        ("hdfs://conn_id@/a", "hdfs://namenode:50070/a"),
        ("webhdfs://user@node:50070/a", "webhdfs://node:50070/a"),
        ("file:///a b/c", "file:///a b/c"),
    ],
)
def test_urls_are_written_as_hadoop_does(uri: str, expected: str) -> None:
    assert hadoop_url(uri, FileSystem()) == expected


@pytest.mark.parametrize("uri", ["memory://store/a", "https://host/a.csv", "sftp://host/a"])
def test_places_hadoop_does_not_reach_are_told(uri: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"Spark's executors do not reach {uri}: expected"
    ):
        hadoop_url(uri, FileSystem())


def test_a_literal_path_has_no_patterns() -> None:
    assert literal("file:///a [b]/{c}*?\\d") == "file:///a \\[b\\]/\\{c\\}\\*\\?\\\\d"


def test_only_what_is_known_of_a_bucket_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    given = {"s3": {"key": "AK", "secret": "SK", "token": "T", "endpoint_url": "http://h:1"}}

    ambient, known = ArtifactStore("s3://b"), ArtifactStore("s3://b", storage_options=given)

    assert hadoop_options("s3://b/x", ambient.filesystem("s3://b/x")) == {}
    assert hadoop_options("file:///x", ambient.filesystem("file:///x")) == {}
    assert hadoop_options("s3://b/x", known.filesystem("s3://b/x")) == {
        "fs.s3a.bucket.b.endpoint": "http://h:1",
        "fs.s3a.bucket.b.path.style.access": "true",
        "fs.s3a.bucket.b.access.key": "AK",
        "fs.s3a.bucket.b.secret.key": "SK",
        "fs.s3a.bucket.b.session.token": "T",
        "fs.s3a.bucket.b.aws.credentials.provider": (
            "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider"
        ),
    }
