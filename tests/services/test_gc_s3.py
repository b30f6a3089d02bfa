"""A clean-up and a check of a store on an S3 server."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from airflow_provider_dbnd.cli.main import main
from airflow_provider_dbnd.core.gc import Policy, Report, collect
from airflow_provider_dbnd.core.gc import sweep as sweeping
from airflow_provider_dbnd.core.past.fsck import check
from airflow_provider_dbnd.core.storage import claims, filesystem
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from tests.services.test_stores import s3_environment, server

PIPELINE = """
from pandas import DataFrame
from airflow_provider_dbnd import pipeline, task

@task(reuse=True)
def make(n: int = 3) -> DataFrame:
    return DataFrame({"x": range(n)})

@pipeline
def daily(n: int = 3):
    return make(n)
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    """A store in a bucket of its own; seconds there are half hours elsewhere."""
    import boto3

    endpoint = server("DBND_TEST_S3_MOTO")
    s3_environment(monkeypatch, endpoint)
    name = f"dbnd-gc-{uuid.uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    monkeypatch.setenv("DBND_STORE", f"s3://{name}/store")
    monkeypatch.setattr(claims, "FRESH", 1.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "daily.py").write_text(PIPELINE)
    yield ArtifactStore(f"s3://{name}/store")
    filesystem.register_connection_options(None)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    sys.modules.pop("daily", None)


def names(store: ArtifactStore, folder: str = "") -> set[str]:
    return {info.key for info in store.list(folder)}


def run(run_id: str, n: int) -> None:
    assert main(["run", "daily.py:daily", "-q", "--run-id", run_id, "--set", f"n={n}"]) == 0


def clean(store: ArtifactStore) -> Report:
    return collect(store, Policy(keep_last=1, grace="2s"), delete=True)  # type: ignore[arg-type]


def test_old_runs_go_and_the_store_is_consistent(store: ArtifactStore) -> None:

    run("old", 2)
    time.sleep(3)
    run("new", 3)

    report = clean(store)

    assert (report.runs_live, report.runs_dead) == (1, 1)
    assert {n.split("/")[2] for n in names(store, "_runs")} == {"new"}
    assert len(names(store, "daily")) == 1
    assert list(check(store, full=True)) == []


def test_an_object_made_again_while_it_is_about_to_go_stays(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:

    run("old", 2)
    time.sleep(1.1)  # S3 tells times in seconds
    run("other", 3)
    time.sleep(3)
    condemned = claims.condemned
    turns = iter(range(9))

    def race(where: ArtifactStore, keys: list[str]) -> object:
        print("TURN", keys)
        if next(turns) == 1:  # manifests are gone, objects come now
            run("again", 2)
        return condemned(where, keys)

    monkeypatch.setattr(sweeping.claims, "condemned", race)

    report = clean(store)

    assert report.spared == 1
    assert [each for each in check(store, full=True) if each.level == "problem"] == []
    assert "again" in {n.split("/")[2] for n in names(store, "_runs")}
