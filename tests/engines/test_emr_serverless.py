"""EMR Serverless against moto; each job run's program really runs, without Spark (see amazon.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.providers.amazon", reason="the extra emr is not installed")

from tests.engines.amazon import ROLE, EmrServerless, InBucket, job_runs_run
from tests.engines.cloud_contract import CloudContract
from tests.engines.engine_contract import PASSWORD


class TestEmrServerless(InBucket, CloudContract):
    type = "emr_serverless"
    service = "EMR Serverless"
    provider = "airflow.providers.amazon"
    extra = "emr"
    connection = "aws_conn_id"
    ours = "client_request_token"
    failed = "FAILED: the node went away in application "

    @pytest.fixture
    def cloud(
        self, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[EmrServerless]:
        cloud = EmrServerless(tmp_path / "cloud", dict([PASSWORD]))
        job_runs_run(cloud, monkeypatch)
        yield cloud
        cloud.stop()

    @pytest.fixture
    def engine(self, cloud: EmrServerless, deferrable: bool) -> str:
        return f"""
[engines.here]
type = "emr_serverless"
application_id = "{cloud.make_application()}"
execution_role_arn = "{ROLE}"
waiter_delay = 1
deferrable = {str(deferrable).lower()}
"""

    def test_options_of_spark_reach_the_job_run(
        self, work: Any, cloud: EmrServerless, bucket: str
    ) -> None:
        work(
            options={
                "conf": {"spark": {"sql": {"shuffle.partitions": 8}}, "spark.note": "a b"},
                "jars": ["s3://b/x.jar", "s3://b/y.jar"],
                "py_files": "s3://b/z.zip",
                "packages": "org.x:y:1",
                "executor_memory": "4g",
                "python": "/usr/bin/python3.11",
                "job_driver": {"sparkSubmit": {"sparkSubmitParameters": "--verbose yes"}},
            }
        )

        (run,) = cloud.job_runs()
        driver = run.job_driver["sparkSubmit"]
        assert run.name == "work.work"
        assert driver["sparkSubmitParameters"] == (
            "--verbose yes --conf spark.executor.memory=4g "
            "--conf spark.pyspark.python=/usr/bin/python3.11 --conf spark.sql.shuffle.partitions=8 "
            "--conf 'spark.note=a b' --jars s3://b/x.jar,s3://b/y.jar --py-files s3://b/z.zip "
            "--packages org.x:y:1"
        )
        assert driver["entryPoint"].startswith(f"{bucket}/store/_code/bootstrap-")
        assert driver["entryPointArguments"] == [f"{bucket}/store/_specs/flow/run-1/work/-1/1.json"]
