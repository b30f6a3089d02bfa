"""EMR against moto, with the real spark-submit of the service tests running each step's command.

Real: the calls of Airflow's operator and trigger, the step as EMR gets it, spark-submit and its options,
the program, store and manifest. Not real: the cluster is Spark in this machine (`--master local`), and
the program is downloaded first, since s3:// is read by EMR's own file system.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.exceptions import EngineError
from tests.engines.amazon import Emr, InBucket, steps_run
from tests.engines.cloud_contract import CloudContract
from tests.engines.engine_contract import PASSWORD

pytest.importorskip("airflow.providers.amazon", reason="the extra emr is not installed")


@pytest.fixture(scope="session")
def spark() -> str:
    """The spark-submit of the service tests."""
    try:
        return os.environ["DBND_TEST_SPARK_VENV"] + "/bin/spark-submit"
    except KeyError as missing:
        if os.environ.get("DBND_TEST_SERVICES"):
            raise
        pytest.skip(f"{missing} is not set: run .ci/services up and export its env file")


class TestEmr(InBucket, CloudContract):
    type = "emr"
    service = "EMR"
    provider = "airflow.providers.amazon"
    extra = "emr"
    connection = "aws_conn_id"
    ours = "steps"
    failed = "FAILED: the node went away on cluster j-"

    @pytest.fixture
    def cloud(
        self, bucket: str, spark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Emr]:
        java = {name: os.environ[name] for name in ("JAVA_HOME",) if name in os.environ}
        # The spark-submit of a pyspark from PyPI finds Spark by its Python.
        python = {"PYSPARK_PYTHON": os.path.join(os.path.dirname(spark), "python")}
        cloud = Emr(tmp_path / "cloud", {**dict([PASSWORD]), **java, **python})
        cloud.command = lambda program, arguments, options: [
            *(spark, "--master", "local[1]", "--conf", "spark.ui.enabled=false"),
            *options,
            program,
            *arguments,
        ]
        steps_run(cloud, monkeypatch)
        yield cloud
        cloud.stop()

    @pytest.fixture
    def engine(self, cloud: Emr, deferrable: bool) -> str:
        return f"""
[engines.here]
type = "emr"
job_flow_id = "{cloud.make_cluster()}"
waiter_delay = 1
python = "{sys.executable}"
deferrable = {str(deferrable).lower()}
"""

    def test_options_of_spark_reach_the_step(self, work: Any, cloud: Emr, bucket: str) -> None:
        cloud.behaviour = "fail"
        with pytest.raises(EngineError):
            work(
                options={
                    "deploy_mode": "cluster",
                    "action_on_failure": "CANCEL_AND_WAIT",
                    "conf": {"spark.sql": {"shuffle.partitions": 8, "adaptive.enabled": True}},
                    "jars": ["s3://b/x.jar"],
                    "py_files": "s3://b/y.zip, s3://b/z.zip",
                    "packages": ["org.x:y:1"],
                    "num_executors": 3,
                }
            )

        (step,) = cloud.steps()
        assert re.fullmatch(r"work\.work [0-9a-f]{12}", step.name)
        assert step.action_on_failure == "CANCEL_AND_WAIT"
        *options, program, spec = step.args
        assert " ".join(options) == (
            "spark-submit --deploy-mode cluster --conf spark.executor.instances=3 "
            f"--conf spark.pyspark.python={sys.executable} --conf spark.sql.shuffle.partitions=8 "
            "--conf spark.sql.adaptive.enabled=true --jars s3://b/x.jar "
            "--py-files s3://b/y.zip,s3://b/z.zip --packages org.x:y:1"
        )
        assert program.startswith(f"{bucket}/store/_code/bootstrap-")
        assert spec == f"{bucket}/store/_specs/flow/run-1/work/-1/1.json"

    def test_a_cluster_may_be_named(self, work: Any, cloud: Emr) -> None:
        options = {"job_flow_id": None, "job_flow_name": "cluster-of-nobody"}

        with pytest.raises(EngineError, match="there is no cluster 'cluster-of-nobody'"):
            work(options=options)

        assert cloud.jobs == []

    def test_a_cluster_that_is_not_there_is_told(self, work: Any, cloud: Emr) -> None:
        with pytest.raises(EngineError) as told:
            work(options={"job_flow_id": "j-NOWHERE"})

        assert "job not submitted: EMR did not take the job. Check the options" in str(told.value)
        assert "Cluster id 'j-NOWHERE' is not valid" in str(told.value)

    def test_a_service_that_does_not_answer_is_told(
        self, work: Any, cloud: Emr, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EMR", "http://127.0.0.1:9")

        with pytest.raises(EngineError) as told:
            work()

        assert "job not submitted: EMR did not take the job. Check the options" in str(told.value)
        assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9/"' in str(told.value)

    def test_a_step_that_runs_on_when_the_operator_gives_up_is_followed_by_the_next_try(
        self, work: Any, cloud: Emr
    ) -> None:
        with pytest.raises(
            EngineError,
            match="EMR says that the job runs still, but its operator gave up. The next try takes it "
            r"up \(RUNNING on cluster .*; WaiterMaxAttemptsError: Waiter error: max attempts",
        ):
            work(options={"waiter_max_attempts": 1}, arguments={"seconds": 3})

        assert work(try_number=2, arguments={"seconds": 3}).outputs["result"] == 42
        assert len(cloud.jobs) == 1

    def test_a_function_gets_a_spark_session_of_the_step(
        self, folder: Path, work: Any, spark: str
    ) -> None:
        (folder / "work.py").write_text(
            "from pyspark.sql import SparkSession\n"
            "from airflow_provider_dbnd import task\n\n\n"
            "@task\n"
            "def work(spark: SparkSession) -> int:\n"
            "    return spark.range(5).count()\n"
        )

        # This Python may have another pyspark than that of spark-submit.
        python = os.path.join(os.path.dirname(spark), "python")
        assert work(options={"python": python}).outputs["result"] == 5
