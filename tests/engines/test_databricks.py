"""Databricks against a server that speaks the calls of the official hook (see databricks_server.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.exceptions import ConfigurationError, EngineError
from tests.engines.amazon import InBucket
from tests.engines.cloud_contract import CloudContract
from tests.engines.databricks_server import Databricks
from tests.engines.engine_contract import PASSWORD

pytest.importorskip("airflow.providers.databricks", reason="the extra databricks is not installed")


class TestDatabricks(InBucket, CloudContract):
    type = "databricks"
    service = "Databricks"
    provider = "airflow.providers.databricks"
    extra = "databricks"
    connection = "databricks_conn_id"
    ours = "idempotency_token"
    failed = "FAILED: Workload failed, see run output for details: the node went away"

    @pytest.fixture
    def cloud(
        self, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Databricks]:
        cloud = Databricks(tmp_path / "cloud", dict([PASSWORD]))
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", cloud.connection())
        yield cloud
        cloud.stop()

    @pytest.fixture
    def engine(self, cloud: Databricks, deferrable: bool) -> str:
        return f"""
[engines.here]
type = "databricks"
existing_cluster_id = "0923-164208-meows279"
polling_period_seconds = 1
databricks_retry_limit = 1
deferrable = {str(deferrable).lower()}
"""

    def test_the_calls_of_a_run(self, work: Any, cloud: Databricks, bucket: str) -> None:
        work()

        assert cloud.calls[0] == (
            "POST",
            "/api/2.2/jobs/runs/submit",
            {
                "tasks": [
                    {
                        "task_key": "work",
                        "spark_python_task": {
                            "python_file": cloud.calls[0][2]["tasks"][0]["spark_python_task"][
                                "python_file"
                            ],
                            "parameters": [f"{bucket}/store/_specs/flow/run-1/work/-1/1.json"],
                        },
                        "existing_cluster_id": "0923-164208-meows279",
                    }
                ],
                "run_name": "work.work",
                "idempotency_token": cloud.calls[0][2]["idempotency_token"],
            },
        )
        (task,) = cloud.calls[0][2]["tasks"]
        python_file = task["spark_python_task"]["python_file"]
        assert python_file.startswith(f"{bucket}/store/_code/bootstrap-")
        assert len(cloud.calls[0][2]["idempotency_token"]) == 64
        polled = {"run_id": cloud.jobs[0]}
        assert set(map(repr, cloud.calls[1:])) == {repr(("GET", "/api/2.2/jobs/runs/get", polled))}

    def test_a_run_on_a_new_cluster_or_serverless(self, work: Any, cloud: Databricks) -> None:
        cloud.behaviour = "fail"
        cluster = {"spark_version": "16.4.x-scala2.13", "num_workers": 2, "spark_conf": {"a": "b"}}
        libraries = [{"pypi": {"package": "s3fs"}}]
        environments = [{"environment_key": "one", "spec": {"client": "1"}}]
        for options in (
            {"existing_cluster_id": None, "new_cluster": cluster, "libraries": libraries},
            {"existing_cluster_id": None, "environments": environments, "json": {"queue": {}}},
        ):
            with pytest.raises(EngineError):
                work(options=options)

        first, second = (given for method, path, given in cloud.calls if path.endswith("submit"))
        (task,) = first["tasks"]
        # The hook sends numbers as text, which Databricks reads.
        assert task["new_cluster"] == {**cluster, "num_workers": "2"}
        assert task["libraries"] == libraries
        assert "new_cluster" not in first
        assert second["tasks"][0]["environment_key"] == "one"
        assert second["environments"] == environments
        assert second["queue"] == {}

    def test_what_runs_the_task_has_to_be_said(self, work: Any, cloud: Databricks) -> None:
        with pytest.raises(ConfigurationError) as told:
            work(options={"existing_cluster_id": None})

        assert str(told.value) == (
            "engine 'here' (databricks): expected new_cluster, existing_cluster_id or environments, "
            "which say what runs the tasks, got none of them. Set one in the options of the engine."
        )
        assert cloud.calls == []

    def test_a_token_that_is_refused_is_told(
        self, work: Any, cloud: Databricks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", cloud.connection(password="wrong"))

        with pytest.raises(EngineError) as told:
            work()

        assert "job not submitted: Databricks did not take the job. Check the" in str(told.value)
        assert "Invalid access token." in str(told.value)

    def test_a_service_that_does_not_answer_is_told(
        self, work: Any, cloud: Databricks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", cloud.connection(port=9))

        with pytest.raises(EngineError) as told:
            work()

        assert "job not submitted: Databricks did not take the job. Check the" in str(told.value)
        assert "127.0.0.1" in str(told.value)
        assert "Connection refused" in str(told.value)
