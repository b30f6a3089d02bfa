"""EMR against moto; each step's program really runs, without Spark (see amazon.py)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.providers.amazon", reason="the extra emr is not installed")

from airflow_provider_dbnd.engines.emr import EmrStepTrigger, EmrTask
from airflow_provider_dbnd.exceptions import TaskFailedError
from tests.engines.amazon import Emr, InBucket, steps_run
from tests.engines.attempt import WORK, attempt


class DiedError(BaseException):
    """What ends a worker at once, before it can record anything."""


def attempt_that_dies_in(method: str, project: str, **given: Any) -> None:
    """Make an attempt whose worker dies when it calls a method of the operator."""

    def dies(*_: Any) -> None:
        raise DiedError

    with pytest.MonkeyPatch.context() as worker:
        worker.setattr(EmrTask, method, dies)
        with pytest.raises(DiedError):
            attempt(project, **given)


class TestEmr(InBucket):
    @pytest.fixture
    def cloud(self, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emr]:
        cloud = Emr(tmp_path / "cloud", {})
        steps_run(cloud, monkeypatch)
        yield cloud
        cloud.stop()

    @pytest.fixture
    def project(self, cloud: Emr, engine_store: str, tmp_path: Path) -> str:
        """A project of one task, and a cluster for it."""
        folder = tmp_path / "project"
        folder.mkdir()
        cluster = cloud.make_cluster()
        (folder / "dbnd.toml").write_text(
            f'store = "{engine_store}"\nengine = "here"\n[engines.here]\ntype = "emr"\n'
            f'job_flow_id = "{cluster}"\nwaiter_delay = 1\n'
        )
        (folder / "work.py").write_text(WORK)
        return str(folder)

    def test_a_step_whose_id_the_worker_could_not_record_is_taken_up_and_not_added_twice(
        self, cloud: Emr, project: str, tmp_path: Path
    ) -> None:
        arguments = {"seconds": 3, "flag": str(tmp_path / "flag")}
        attempt_that_dies_in("started", project, arguments=arguments)

        manifest = attempt(project, arguments=arguments, try_number=2)

        assert manifest.outputs["result"] == 42
        assert (tmp_path / "flag").read_text() == "ran\n"
        assert len(cloud.steps()) == 1

    def test_a_worker_that_dies_before_it_adds_the_step_leaves_that_to_the_next_try(
        self, cloud: Emr, project: str
    ) -> None:
        attempt_that_dies_in("launch", project)

        assert attempt(project, try_number=2).outputs["result"] == 42
        assert len(cloud.steps()) == 1

    def test_a_try_after_one_that_failed_adds_a_step_of_its_own(
        self, cloud: Emr, project: str
    ) -> None:
        with pytest.raises(TaskFailedError, match="not today"):
            attempt(project, arguments={"fail": "not today"})

        with pytest.raises(TaskFailedError, match="not today"):
            attempt(project, arguments={"fail": "not today"}, try_number=2)

        first, second = cloud.steps()
        assert first.name != second.name

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
