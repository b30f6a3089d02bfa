"""Frames that are sent to S3 while they are encoded, on moto."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from moto_s3 import BUCKET, keys, uploads

from airflow_provider_dbnd import output, parameter
from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.formats.parquet import ParquetFormat
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import Decoder, Encoder
from airflow_provider_dbnd.exceptions import FormatError, StoreError
from tests.core.store_contract import checksum_of

MB = 2**20


@pytest.fixture
def store(client: Any) -> ArtifactStore:
    return ArtifactStore(f"s3://{BUCKET}/store")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """A frame of three row groups and 18 MB of parquet, in which no bytes can be saved."""
    rows = 2_300_000
    random = np.random.default_rng(1)
    return pd.DataFrame({"x": random.random(rows), "n": np.arange(rows)})


def save(store: ArtifactStore, value: Any, **options: Any) -> Artifact:
    encoder = Encoder(store=store, pipeline="p", task_id="t")
    return encoder.save(value, "result", output(save_options=options), type(value))


def load(store: ArtifactStore, artifact: Artifact, scratch: Path) -> pd.DataFrame:
    decoder = Decoder(store=store, scratch=str(scratch))
    found: pd.DataFrame = decoder.load(artifact.to_json(), "x", pd.DataFrame, parameter(), "")
    return found


def test_parts_arrive_before_the_file_is_complete(
    store: ArtifactStore, client: Any, tmp_path: Path
) -> None:
    local, data = tmp_path / "f", os.urandom(20 * MB + 5)
    with open(local, "wb", buffering=0) as file, store.sending(str(local), "a.bin") as sending:
        file.write(data[: 9 * MB])
        sending.grown(9 * MB)
        until = time.monotonic() + 30
        while not (parts := [p for u in uploads(client) for p in _parts(client, u)]):
            assert time.monotonic() < until
            time.sleep(0.02)
        file.write(data[9 * MB :])

        assert [part["Size"] for part in parts] == [8 * MB]
        assert not store.exists("a.bin")
        sending.grown(len(data))

    assert sending.done
    assert store.get_bytes("a.bin") == data


def _parts(client: Any, upload: Any) -> list[Any]:
    where = {"Bucket": BUCKET, "Key": upload["Key"], "UploadId": upload["UploadId"]}
    found: list[Any] = client.list_parts(**where).get("Parts", [])
    return found


def test_a_large_frame_comes_back_as_its_reference_says(
    store: ArtifactStore, client: Any, frame: pd.DataFrame, tmp_path: Path
) -> None:
    artifact = save(store, frame)

    assert keys(client) == [artifact.uri.removeprefix(f"s3://{BUCKET}/")]
    stored = store.get_bytes(artifact.uri)
    assert (len(stored), checksum_of(stored)) == (artifact.size, artifact.checksum)
    pd.testing.assert_frame_equal(load(store, artifact, tmp_path), frame)
    assert not uploads(client)


def test_the_same_frame_again_is_not_sent_again(
    store: ArtifactStore, client: Any, frame: pd.DataFrame
) -> None:
    first = save(store, frame)
    written = client.head_object(Bucket=BUCKET, Key=keys(client)[0])["LastModified"]

    assert save(store, frame) == first
    assert len(keys(client)) == 1
    assert client.head_object(Bucket=BUCKET, Key=keys(client)[0])["LastModified"] == written


def test_other_options_make_another_object(
    store: ArtifactStore, client: Any, frame: pd.DataFrame, tmp_path: Path
) -> None:
    first, second = save(store, frame), save(store, frame, compression="snappy")

    assert first.digest == second.digest
    assert first.uri != second.uri
    assert len(keys(client)) == 2
    pd.testing.assert_frame_equal(load(store, second, tmp_path), frame)


@pytest.mark.parametrize("change", ["longer", "as long"])
def test_other_bytes_under_the_name_stay_and_are_not_taken_for_these(
    store: ArtifactStore, client: Any, frame: pd.DataFrame, change: str, tmp_path: Path
) -> None:
    """Another build of the compression library may have made them."""
    first = save(store, frame)
    data = bytearray(store.get_bytes(first.uri))
    data[-20] ^= 1
    other = bytes(data) + (b"!" if change == "longer" else b"")
    client.put_object(Bucket=BUCKET, Key=keys(client)[0], Body=other)

    second = save(store, frame)

    assert second.uri != first.uri
    assert replace(second, uri=first.uri) == first
    assert store.get_bytes(first.uri) == other
    pd.testing.assert_frame_equal(load(store, second, tmp_path), frame)
    assert save(store, frame) == second


def test_a_failure_while_it_is_written_leaves_nothing(
    store: ArtifactStore, client: Any, tmp_path: Path
) -> None:
    local = tmp_path / "f"
    local.write_bytes(os.urandom(30 * MB))

    def write() -> None:
        with store.sending(str(local), "a") as sending:
            sending.grown(30 * MB)
            raise FormatError("too bad")

    with pytest.raises(FormatError, match="too bad"):
        write()

    assert not keys(client)
    assert not uploads(client)


def test_a_failure_while_the_upload_is_begun_leaves_nothing(
    store: ArtifactStore, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "f"
    local.write_bytes(bytes(30 * MB))
    fs = store.filesystem(store.url)
    call, begun = fs._call_s3, threading.Event()

    async def slowly(method: str, **words: Any) -> Any:
        answer = await call(method, **words)
        if method == "create_multipart_upload":
            begun.set()
            await asyncio.sleep(0.2)  # the answer is on its way
        return answer

    monkeypatch.setattr(fs, "_call_s3", slowly)

    def write() -> None:
        with store.sending(str(local), "a") as sending:
            sending.grown(30 * MB)
            assert begun.wait(30)
            raise FormatError("too bad")

    with pytest.raises(FormatError, match="too bad"):
        write()

    assert not uploads(client)


def test_where_sending_and_writing_fail_the_writer_is_heard_alone(
    client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ArtifactStore("s3://no-such-bucket/store")

    def write() -> None:
        with store.sending(str(tmp_path / "f"), "a") as sending:
            sending.grown(30 * MB)
            assert sending._ended.wait(30)
            raise FormatError("too bad")

    with pytest.raises(FormatError, match="too bad"):
        write()
    gc.collect()

    assert "never retrieved" not in caplog.text


def test_what_could_not_be_sent_is_told_and_leaves_nothing(
    store: ArtifactStore, client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with store.sending(str(tmp_path / "missing"), "a") as sending:
        sending.grown(20 * MB)

    assert (sending.tried, sending.done) == (True, False)
    assert "sending/store/a was not sent while it was written: [Errno 2]" in caplog.text
    assert not keys(client)
    assert not uploads(client)


def test_what_is_too_small_for_parts_is_left_to_a_plain_upload(
    store: ArtifactStore, client: Any, tmp_path: Path
) -> None:
    local = tmp_path / "f"
    local.write_bytes(b"x" * 8 * MB)
    with store.sending(str(local), "a") as sending:
        sending.grown(8 * MB)
    assert (sending.tried, sending.done, keys(client)) == (False, False, [])

    small = pd.DataFrame({"a": [1, 2]})
    artifact = save(store, small)

    assert keys(client) == [artifact.uri.removeprefix(f"s3://{BUCKET}/")]
    pd.testing.assert_frame_equal(load(store, artifact, tmp_path), small)


def test_a_large_file_may_be_the_first_that_a_store_is_asked_for(
    store: ArtifactStore, client: Any, tmp_path: Path
) -> None:
    local = tmp_path / "f"
    local.write_bytes(b"x" * 9 * MB)

    uri = store.publish(str(local), f"s3://{BUCKET}/published.bin")

    assert store.get_bytes(uri) == local.read_bytes()


def test_a_frame_in_pieces_is_stored_as_well(
    store: ArtifactStore, frame: pd.DataFrame, tmp_path: Path
) -> None:
    encoder = Encoder(store=store, pipeline="p", task_id="t")
    parts = (frame.iloc[at : at + 500_000] for at in range(0, len(frame), 500_000))

    artifact = encoder.save(parts, "result", output(), Iterator[pd.DataFrame])

    pd.testing.assert_frame_equal(load(store, artifact, tmp_path), frame)
    assert artifact.digest == save(store, frame).digest


def test_a_missing_bucket_is_told_as_by_a_plain_upload(
    client: Any,
    frame: pd.DataFrame,
) -> None:
    with pytest.raises(StoreError, match=r"cannot write s3://no-such-bucket/.*parquet"):
        save(ArtifactStore("s3://no-such-bucket/store"), frame)


def test_kill_9_while_it_is_sent_leaves_no_object(
    store: ArtifactStore, client: Any, tmp_path: Path
) -> None:
    script = f"""
import time
from airflow_provider_dbnd.core.storage.store import ArtifactStore
with ArtifactStore({store.url!r}).sending({str(tmp_path / "f")!r}, "a") as sending:
    sending.grown(17 * 2**20)
    time.sleep(60)
"""
    (tmp_path / "f").write_bytes(os.urandom(20 * MB))
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        until = time.monotonic() + 30
        while not [part for upload in uploads(client) for part in _parts(client, upload)]:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.kill()

    assert not store.exists("a")
    local = tmp_path / "again"
    local.write_bytes(b"y" * 9 * MB)
    with store.sending(str(local), "a") as sending:
        sending.grown(9 * MB)
    assert sending.done
    assert store.get_bytes("a") == local.read_bytes()


def test_a_name_covers_what_the_bytes_depend_on() -> None:
    frame = pd.DataFrame({"a": [1.5, 2.5], "s": pd.array(["x", "y"], "str")})
    wider = frame.astype({"s": "string"})

    def stem(value: pd.DataFrame, **options: Any) -> str | None:
        return ParquetFormat().draft(value, options=options).stem

    assert stem(frame) == stem(frame.copy())
    names = {
        stem(frame),
        stem(wider),
        stem(frame.iloc[::-1]),
        stem(frame, compression="gzip"),
        stem(frame, row_group_size=1),
    }
    assert len(names) == 5


def test_what_a_draft_tells_is_written_stays_as_it_is(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "f"
    seen: list[tuple[int, str]] = []

    def grown(size: int) -> None:
        seen.append((size, checksum_of(path.read_bytes()[:size])))

    written = ParquetFormat().draft(frame, options={}).write(str(path), grown)

    data = path.read_bytes()
    assert [checksum_of(data[:size]) for size, _ in seen] == [found for _, found in seen]
    sizes = [size for size, _ in seen]
    assert sizes == sorted(set(sizes))
    assert len(sizes) == 4  # three row groups, and the footer
    assert sizes[-1] == len(data)
    assert data[-written.tail :].startswith(b"\x15")  # thrift: the version of the footer
    assert sizes[-2] == len(data) - written.tail
