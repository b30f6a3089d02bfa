"""What holds on every engine of a cloud service, besides the contract of all engines."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.engines.registry import operator_class
from airflow_provider_dbnd.exceptions import (
    ConfigurationError,
    EngineError,
    MissingDependencyError,
    TaskFailedError,
)
from tests.engines.attempt import RUN, WORK, attempt, start
from tests.engines.cloud import Cloud
from tests.engines.engine_contract import EngineContract

Attempt = Callable[..., Any]


class CloudContract(EngineContract):
    """Subclasses give fixtures ``engine``, ``engine_store`` and ``cloud``, and what is below."""

    #: Type of the engine, what it is called, the module of its provider and what installs it.
    type: str
    service: str
    provider: str
    extra: str
    #: Option of the connection, an option that every task sets, and an example of another.
    connection: str
    ours: str
    #: What the service says of a job that failed.
    failed: str

    @pytest.fixture
    def deferrable(self) -> bool:
        """Whether tasks defer; ``engine`` says so to the operator."""
        return False

    @pytest.fixture
    def folder(self, tmp_path: Path, engine: str, engine_store: str) -> Path:
        """The project of one task."""
        folder = tmp_path / "project"
        folder.mkdir()
        (folder / "dbnd.toml").write_text(f'store = "{engine_store}"\nengine = "here"\n{engine}')
        (folder / "work.py").write_text(WORK)
        return folder

    @pytest.fixture
    def work(self, folder: Path, cloud: Cloud) -> Attempt:
        """``work(options=..., arguments=..., try_number=...)`` makes an attempt in this process."""
        return lambda **given: attempt(str(folder), **given)

    def test_a_job_that_the_service_fails_is_told_with_its_reason(
        self, work: Attempt, cloud: Cloud
    ) -> None:
        cloud.behaviour = "fail"

        with pytest.raises(EngineError) as told:
            work()

        assert str(told.value).startswith(
            f"engine 'here' ({self.type}), job {cloud.jobs[0]}: {self.service} says that the job "
            f"failed ({self.failed}"
        )
        assert "/_specs/flow/run-1/work/-1/1.json" in str(told.value)

    def test_a_job_that_left_no_result_is_not_a_success(self, work: Attempt, cloud: Cloud) -> None:
        cloud.behaviour = "succeed"

        with pytest.raises(EngineError) as told:
            work()

        assert f"({self.type}), job {cloud.jobs[0]}: " in str(told.value)
        assert "says that the job succeeded, but it left no result in the store" in str(told.value)

    def test_a_job_that_somebody_cancels_is_told(
        self, work: Attempt, cloud: Cloud, tmp_path: Path
    ) -> None:
        _when_it_runs(cloud, tmp_path / "flag", cloud.cancel)

        with pytest.raises(EngineError, match=r"somebody cancelled the job\. Run the task again"):
            work(arguments={"seconds": 60, "flag": str(tmp_path / "flag")})

    def test_a_job_that_the_service_forgets_is_lost(
        self, work: Attempt, cloud: Cloud, tmp_path: Path
    ) -> None:
        _when_it_runs(cloud, tmp_path / "flag", cloud.lose)

        with pytest.raises(
            EngineError, match=f"{self.service} does not know the job any more, so it is lost"
        ):
            work(arguments={"seconds": 60, "flag": str(tmp_path / "flag")})

    def test_a_connection_that_is_not_there_is_named(self, work: Attempt, cloud: Cloud) -> None:
        with pytest.raises(EngineError) as told:
            work(options={self.connection: "nowhere"})

        assert str(told.value).startswith(
            f"engine 'here' ({self.type}), job not submitted: connection 'nowhere' is not defined. "
            "Define it, or name another in the options of the engine. Its spec is "
        )
        assert cloud.jobs == []

    def test_a_store_on_this_machine_is_refused_before_anything_is_submitted(
        self, work: Attempt, cloud: Cloud, folder: Path, tmp_path: Path
    ) -> None:
        config = folder / "dbnd.toml"
        engine = config.read_text().partition("\n")[2]
        config.write_text(f'store = "{tmp_path}/local"\n{engine}')

        with pytest.raises(ConfigurationError) as told:
            work()

        assert str(told.value).startswith(
            f"engine 'here' ({self.type}): {self.service} does not see the store file://{tmp_path}"
            "/local: expected "
        )
        assert cloud.jobs == []
        assert not (tmp_path / "local").exists()

    def test_what_a_task_sets_by_itself_cannot_be_an_option(
        self, work: Attempt, cloud: Cloud
    ) -> None:
        with pytest.raises(ConfigurationError, match=f"{self.ours}=.*Leave it out"):
            work(options={self.ours: "mine"})

    def test_a_missing_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        module = operator_class(self.type).__module__
        monkeypatch.delitem(sys.modules, module)
        for name in [n for n in sys.modules if n.startswith(self.provider)]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, self.provider, None)

        with pytest.raises(
            MissingDependencyError,
            match=rf"'{self.type}'.*pip install 'airflow-provider-dbnd\[{self.extra}\]'",
        ):
            operator_class(self.type)

    def test_a_worker_that_dies_leaves_the_job_to_the_next(
        self, work: Attempt, cloud: Cloud, folder: Path, tmp_path: Path
    ) -> None:
        flag = tmp_path / "flag"
        arguments = {"seconds": 8, "flag": str(flag)}
        worker = start(str(folder), arguments=arguments)
        cloud.wait_for_job(flag)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()

        manifest = work(arguments=arguments, try_number=2)

        assert manifest.outputs["result"] == 42
        assert len(cloud.jobs) == 1
        assert flag.read_text() == "ran\n"

    def test_a_job_that_ended_while_no_worker_was_there_does_not_run_twice(
        self, work: Attempt, cloud: Cloud, folder: Path, tmp_path: Path
    ) -> None:
        flag = tmp_path / "flag"
        arguments = {"seconds": 2, "flag": str(flag)}
        worker = start(str(folder), arguments=arguments)
        job = cloud.wait_for_job(flag)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        cloud.processes[job].wait(60)

        manifest = work(arguments=arguments, try_number=2)

        assert manifest.outputs["result"] == 42
        assert len(cloud.jobs) == 1

    def test_a_job_that_was_cancelled_while_no_worker_was_there_is_submitted_again(
        self, work: Attempt, cloud: Cloud, folder: Path, tmp_path: Path
    ) -> None:
        flag = tmp_path / "flag"
        worker = start(str(folder), arguments={"seconds": 5, "flag": str(flag)})
        job = cloud.wait_for_job(flag)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        cloud.cancel(job)

        manifest = work(arguments={"seconds": 5, "flag": str(flag)}, try_number=2)

        assert manifest.outputs["result"] == 42
        assert len(set(cloud.jobs)) == 2

    def test_killing_the_task_kills_the_job(
        self, cloud: Cloud, folder: Path, tmp_path: Path, engine_store: str
    ) -> None:
        flag = tmp_path / "flag"
        worker = start(str(folder), arguments={"seconds": 60, "flag": str(flag)})
        job = cloud.wait_for_job(flag)

        worker.send_signal(signal.SIGINT)
        worker.communicate(timeout=60)

        assert cloud.processes[job].wait(10) == -signal.SIGKILL
        assert list(ArtifactStore(engine_store).list(f"_jobs/flow/{RUN}")) == []

    def test_a_failing_function_shows_its_traceback_and_may_be_tried_again(
        self, work: Attempt, cloud: Cloud
    ) -> None:
        with pytest.raises(TaskFailedError, match="in work\n") as told:
            work(arguments={"fail": "not today"})
        assert f"task 'work' failed in job {cloud.jobs[0]}: ValueError: not today" in str(
            told.value
        )

        assert work(try_number=2).outputs["result"] == 42

    @pytest.mark.parametrize("deferrable", [True])
    def test_a_deferred_task_gets_its_result(
        self, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class_ = operator_class(self.type)
        resumed: list[str] = []
        monkeypatch.setattr(
            class_,
            "resumed",
            lambda task, *given, then=class_.resumed: (
                resumed.append(task.task_id) or then(task, *given)
            ),
        )

        left = run("contract_hidden")

        assert left.states() == {"login": "success"}
        assert resumed == ["login"]

    @pytest.mark.parametrize("deferrable", [True])
    def test_a_deferred_task_tells_why_the_job_failed(
        self, run: Any, cloud: Cloud, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cloud.behaviour = "fail"

        left = run("contract_hidden")

        assert left.states() == {"login": "failed"}
        log = capsys.readouterr().out
        assert f"job {cloud.jobs[0]}: {self.service} says that the job failed" in log, log


def _when_it_runs(cloud: Cloud, flag: Path, do: Callable[[str], None]) -> None:
    def wait() -> None:
        do(cloud.wait_for_job(flag))

    threading.Thread(target=wait).start()
