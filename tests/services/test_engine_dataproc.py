"""Dataproc against a gRPC server that speaks the calls of the official hook (see dataproc_server.py)."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_dbnd.exceptions import ConfigurationError, EngineError
from tests.engines.cloud_contract import CloudContract
from tests.engines.dataproc_server import CLUSTER, PROJECT, REGION, Dataproc, server
from tests.engines.engine_contract import PASSWORD

dataproc = pytest.importorskip(
    "airflow.providers.google.cloud.hooks.dataproc", reason="the extra dataproc is not installed"
)


@pytest.fixture(scope="session")
def storage() -> str:
    """The GCS emulator of the service tests."""
    try:
        return os.environ["DBND_TEST_GCS"]
    except KeyError as missing:
        if os.environ.get("DBND_TEST_SERVICES"):
            raise
        pytest.skip(f"{missing} is not set: run .ci/services up and export its env file")


class TestDataproc(CloudContract):
    type = "dataproc"
    service = "Dataproc"
    provider = "airflow.providers.google"
    extra = "dataproc"
    connection = "gcp_conn_id"
    ours = "request_id"
    failed = f"ERROR: the node went away on {CLUSTER}). More is in gs://logs/work-work-"

    @pytest.fixture
    def engine_store(self, storage: str, monkeypatch: pytest.MonkeyPatch) -> str:
        import gcsfs

        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage)
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        name = f"dbnd-dataproc-{uuid.uuid4().hex[:8]}"
        gcsfs.core.GCSFileSystem(token="anon", project="p", endpoint_url=storage).mkdir(name)
        return f"gs://{name}/store"

    @pytest.fixture
    def cloud(
        self, storage: str, engine_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Dataproc]:
        cloud = Dataproc(tmp_path / "cloud", storage, dict([PASSWORD]))
        running = server()
        running.cloud = cloud
        monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", running.domain)
        monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", running.certificate)
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", running.connection())
        # The hook asks every 10 seconds, whatever it is told.
        clock = SimpleNamespace(
            sleep=lambda seconds: time.sleep(seconds / 10), monotonic=time.monotonic
        )
        monkeypatch.setattr(dataproc, "time", clock)
        yield cloud
        cloud.stop()

    @pytest.fixture
    def engine(self, cloud: Dataproc, deferrable: bool) -> str:
        return f"""
[engines.here]
type = "dataproc"
cluster_name = "{CLUSTER}"
region = "{REGION}"
polling_interval_seconds = 1
deferrable = {str(deferrable).lower()}
"""

    def test_the_calls_of_a_job(self, work: Any, cloud: Dataproc, engine_store: str) -> None:
        work(
            options={
                "conf": {"spark.sql.shuffle.partitions": 8},
                "jars": "gs://b/x.jar",
                "py_files": ["gs://b/y.zip"],
                "packages": ["org.x:y:1"],
                "job": {"labels": {"team": "ml"}, "scheduling": {"max_failures_per_hour": 1}},
            }
        )

        method, asked = cloud.calls[0]
        job = asked["job"]
        assert method == "SubmitJob"
        assert (asked["project_id"], asked["region"]) == (PROJECT, REGION)
        assert len(asked["request_id"]) == 40
        assert job["reference"]["job_id"].startswith("work-work-")
        assert job["placement"]["cluster_name"] == CLUSTER
        assert job["labels"] == {"team": "ml"}
        assert job["scheduling"]["max_failures_per_hour"] == 1
        program = job["pyspark_job"]
        assert program["main_python_file_uri"].startswith(f"{engine_store}/_code/bootstrap-")
        assert program["args"] == [f"{engine_store}/_specs/flow/run-1/work/-1/1.json"]
        assert program["properties"] == {
            "spark.sql.shuffle.partitions": "8",
            "spark.jars.packages": "org.x:y:1",
        }
        assert program["jar_file_uris"] == ["gs://b/x.jar"]
        assert program["python_file_uris"] == ["gs://b/y.zip"]
        assert {method for method, _ in cloud.calls[1:]} == {"GetJob"}

    def test_a_cluster_has_to_be_named(self, work: Any, cloud: Dataproc) -> None:
        with pytest.raises(
            ConfigurationError, match="expected cluster_name, the cluster that runs"
        ):
            work(options={"cluster_name": ""})

        assert cloud.calls == []

    def test_a_cluster_that_is_not_there_is_told(self, work: Any, cloud: Dataproc) -> None:
        with pytest.raises(EngineError) as told:
            work(options={"cluster_name": "nowhere"})

        assert "job not submitted: Dataproc did not take the job. Check the opt" in str(told.value)
        assert 'Not found: Cluster cluster_name: "nowhere"' in str(told.value)

    def test_a_service_that_does_not_answer_is_told(
        self, work: Any, cloud: Dataproc, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        domain = server().domain
        monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "localhost:9")
        connection = server().connection().replace(domain, "localhost:9")
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", connection)

        with pytest.raises(EngineError) as told:
            work(options={"retry": None, "timeout": 3})

        assert "job not submitted: Dataproc did not take the job. Check the opt" in str(told.value)
        assert "ServiceUnavailable: 503" in str(told.value)
        assert "127.0.0.1:9" in str(told.value)
