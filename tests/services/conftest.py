"""Servers of the service tests: `.ci/services up` starts them, `$SVC/env` says where they are."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.celery_topology import CONNECTION, CeleryTopology, Servers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def servers() -> Servers:
    """The servers, or a skip; with DBND_TEST_SERVICES a missing one is an error instead."""
    try:
        return Servers.from_environment()
    except KeyError as missing:
        if os.environ.get("DBND_TEST_SERVICES"):
            raise
        pytest.skip(f"{missing} is not set: run .ci/services up and export its env file")


@pytest.fixture(scope="session")
def bucket(servers: Servers) -> str:
    """An empty bucket on the S3 server that checks credentials."""
    import boto3

    name = f"dbnd-celery-{uuid.uuid4().hex[:8]}"
    boto3.client(
        "s3",
        endpoint_url=servers.s3,
        aws_access_key_id=servers.key,
        aws_secret_access_key=servers.secret,
        region_name="us-east-1",
    ).create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def celery(
    servers: Servers, bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CeleryTopology]:
    """Airflow with two Celery workers, its store in `bucket`, `dags_examples` in its dags folder."""
    base = tmp_path_factory.mktemp("celery")
    shutil.copytree(
        ROOT / "dags_examples", base / "dags", ignore=shutil.ignore_patterns("__pycache__")
    )
    topology = CeleryTopology(servers=servers, base=base, store=f"s3://{CONNECTION}@{bucket}/store")
    topology.start()
    yield topology
    topology.stop()
