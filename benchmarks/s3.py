"""A frame through S3 as far away as a real one: 15 ms a request, 80 MB/s a connection.

The server is moto behind ``slow_proxy.py``, both started here; ``DBND_TEST_S3_CEPH`` adds another,
the endpoint of a Ceph gateway.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import child, interleaved, timed
from benchmarks.options import Options
from benchmarks.table import Row, seconds

BUCKET = "bench"
CEPH = "DBND_TEST_S3_CEPH"


def rows(options: Options) -> Iterator[Row]:
    """Measure half the largest size on every server there is."""
    megabytes = options.size / 2
    with _moto() as moto:
        servers = {"moto": moto} | ({"Ceph": os.environ[CEPH]} if CEPH in os.environ else {})
        for name, server in servers.items():
            with _slowed(server) as endpoint:
                times = child(
                    "s3:times",
                    megabytes=megabytes,
                    endpoint=endpoint,
                    rounds=options.rounds,
                    is_ceph=name == "Ceph",
                )
            yield Row(
                subject="s3",
                what=f'{megabytes:g} MB frame, S3 ({name}), against to_parquet("s3://") + read_parquet',
                value=times["ours"] / times["parquet"],
                must=options.target(0.6),
                aim=options.target(0.4),
                detail=f"{seconds(times['ours'])} / {seconds(times['parquet'])}",
            )


def times(megabytes: float, endpoint: str, rounds: int, *, is_ceph: bool) -> dict[str, float]:
    """Hand the same frame over both ways; runs in a process of its own."""
    os.environ.update(
        AWS_ENDPOINT_URL_S3=endpoint,
        AWS_ENDPOINT_URL=endpoint,
        AWS_ACCESS_KEY_ID="AK",
        AWS_SECRET_ACCESS_KEY="SK",
        AWS_DEFAULT_REGION="us-east-1",
    )
    if is_ceph:
        # It refuses what the AWS SDK in pyarrow sends by default: checksums behind a chunked body.
        os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
    import boto3
    import pandas as pd

    from benchmarks import frames
    from benchmarks.ways import Ours, Parquet

    client = boto3.client("s3", endpoint_url=endpoint)
    with contextlib.suppress(
        client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
    ):
        client.create_bucket(Bucket=BUCKET)
    ways = {"ours": Ours, "parquet": Parquet}

    def hand_over(name: str, frame: pd.DataFrame, expected: object) -> float:
        # A new place each time: what is there already would not be sent.
        way = ways[name](f"s3://{BUCKET}/{name}-{time.time_ns()}")
        found: list[object] = []
        took = timed(lambda: found.append(way.consume(way.produce(frame))))
        assert found == [expected], f"{name} changed the data"
        _empty(client)
        return took

    for name in ways:  # connections and first calls
        small = frames.mixed(0.1)
        hand_over(name, small, frames.touch(small))
    frame = frames.mixed(megabytes)
    expected = frames.touch(frame)
    return interleaved({n: partial(hand_over, n, frame, expected) for n in ways}, rounds)


def _empty(client: Any) -> None:
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])


@contextlib.contextmanager
def _moto() -> Iterator[str]:
    port = _free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(words, f"http://127.0.0.1:{port}/moto-api/"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _slowed(server: str) -> Iterator[str]:
    port = _free_port()
    proxy = str(Path(__file__).with_name("slow_proxy.py"))
    words = [sys.executable, proxy, str(port), server.partition("://")[2].rstrip("/")]
    with _running(words, f"http://127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _running(words: list[str], url: str) -> Iterator[None]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                # Any answer will do, also that this is forbidden.
                with contextlib.suppress(urllib.error.HTTPError):
                    urllib.request.urlopen(url, timeout=5).close()
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
