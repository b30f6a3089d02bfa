"""EMR against moto; each step's program really runs, without Spark (see amazon.py)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.providers.amazon", reason="the extra emr is not installed")

from airflow_provider_dbnd.engines.emr import EmrStepTrigger
from tests.engines.amazon import Emr, InBucket, steps_run


class TestEmr(InBucket):
    @pytest.fixture
    def cloud(self, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emr]:
        cloud = Emr(tmp_path / "cloud", {})
        steps_run(cloud, monkeypatch)
        yield cloud
        cloud.stop()

    def test_killing_a_deferred_task_cancels_the_step_and_does_not_hold_up_the_triggerer(
        self, cloud: Emr, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from botocore.session import Session

        cluster, client = cloud.make_cluster(), cloud.client("emr")
        program = tmp_path / "program.py"
        program.write_text("import time\ntime.sleep(60)\n")
        cloud.client("s3").upload_file(str(program), bucket.removeprefix("s3://"), "program.py")
        step = {"Jar": "command-runner.jar", "Args": ["spark-submit", f"{bucket}/program.py"]}
        (added,) = client.add_job_flow_steps(
            JobFlowId=cluster, Steps=[{"Name": "x", "HadoopJarStep": step}]
        )["StepIds"]
        trigger = EmrStepTrigger(
            job_flow_id=cluster, step_ids=[added], waiter_delay=1, waiter_max_attempts=9
        )
        module, given = trigger.serialize()
        assert module == "airflow_provider_dbnd.engines.emr.EmrStepTrigger"
        made_in: list[threading.Thread] = []

        def create_client(*args: Any, then: Any = Session.create_client, **kwargs: Any) -> Any:
            made_in.append(threading.current_thread())
            return then(*args, **kwargs)

        monkeypatch.setattr(Session, "create_client", create_client)

        asyncio.run(EmrStepTrigger(**given).on_kill())

        assert cloud.steps()[0].state == "CANCELLED"
        assert made_in
        assert threading.main_thread() not in made_in
