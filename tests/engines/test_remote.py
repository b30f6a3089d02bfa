"""What happens between a worker and its job when either of them dies, with real processes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.manifest import Manifest, read_manifest
from airflow_provider_dbnd.core.remote.job import JOBS, recall, remember
from airflow_provider_dbnd.core.settings import load_settings
from airflow_provider_dbnd.engines.launch import _context, launch
from airflow_provider_dbnd.engines.selection import Engine
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    EngineError,
    TaskFailedError,
)
from tests.engines.elsewhere import Elsewhere

#: Leaves a line each time it runs, waits until it may go on, and returns what only it knows.
FLOW = """
import os, time
from pathlib import Path

@task
def f(folder: str, n: int = 1) -> dict:
    with open(Path(folder, "runs"), "a") as runs:
        runs.write(f"{os.getpid()}\\n")
    while not Path(folder, "go").exists():
        time.sleep(0.02)
    return {"n": n, "pid": os.getpid()}
"""

_PATIENCE = 120

pytestmark = pytest.mark.usefixtures("process_engine")


@dataclasses.dataclass(kw_only=True)
class Desk:
    """Where workers sit: each attempt is made by a process of its own, or by this one."""

    elsewhere: Elsewhere
    folder: Path
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def spec(self, definition: Definition, number: int, **more: Any) -> TaskSpec:
        identity = {k: more.pop(k) for k in ("run_id", "map_index", "task_id") if k in more}
        values = (
            {"folder": str(self.folder), **more}
            if "folder" in definition.signature.inputs
            else more
        )
        return self.elsewhere.spec(definition, values, try_number=number, **identity)

    def attempt(
        self,
        number: int = 1,
        started: Callable[[Any], None] | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Manifest:
        """Make one attempt in this process, as a worker does."""
        definition = self.elsewhere.task()
        spec = self.spec(definition, number, **more)
        given = {"python": self.elsewhere.python, "env": self.environment, **(options or {})}
        engine = Engine(name="there", type="process", options=given)
        settings = load_settings(self.elsewhere.folder)
        return launch(
            spec, definition, engine, settings, context=_context(spec.identity), started=started
        )

    def worker(self, *args: Any, **kwargs: Any) -> multiprocessing.process.BaseProcess:
        """Make one attempt in a process that can be killed."""

        def work() -> None:
            os.setsid()
            self.attempt(*args, **kwargs)

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        return process

    def runs(self) -> list[str]:
        """Return the processes that ran the function."""
        path = self.folder / "runs"
        return path.read_text().splitlines() if path.exists() else []

    def go(self) -> None:
        """Let the functions that wait go on."""
        (self.folder / "go").touch()

    def records(self) -> list[str]:
        return [each.key for each in self.elsewhere.store.list(JOBS)]

    def until(self, there: Callable[[], Any]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not there():
            assert time.monotonic() < deadline, "it did not come"
            time.sleep(0.02)

    def ended(self, number: int = 1) -> bool:
        """Tell whether a job of this try left its manifest."""
        definition = self.elsewhere.task()
        return self.elsewhere.store.exists(self.spec(definition, number).identity.key())


@pytest.fixture
def desk(elsewhere: Elsewhere, tmp_path: Path) -> Iterator[Desk]:
    elsewhere.write("flow.py", FLOW)
    folder = tmp_path / "seen"
    folder.mkdir()
    made = Desk(elsewhere=elsewhere, folder=folder)
    yield made
    made.go()
    for pid in map(int, made.runs()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill(worker: multiprocessing.process.BaseProcess) -> None:
    """Kill a worker as the kernel does when memory ends: it cannot say goodbye."""
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(_PATIENCE)


class TestAWorkerThatIsKilled:
    def test_while_its_job_runs_loses_nothing_and_nothing_runs_twice(self, desk: Desk) -> None:
        worker = desk.worker()
        desk.until(desk.runs)
        kill(worker)
        assert desk.records()
        desk.go()
        desk.until(desk.ended)

        manifest = desk.attempt(2)

        assert [str(manifest.outputs["result"]["pid"])] == desk.runs()
        assert manifest.identity.try_number == 1
        assert desk.records() == []

    def test_before_its_job_was_submitted_is_followed_by_one_that_submits(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import process_engine  # type: ignore[import-not-found]

        desk.go()
        with monkeypatch.context() as patch:
            patch.setattr(process_engine.ProcessTask, "launch", lambda *_: os._exit(9))
            desk.worker().join(_PATIENCE)
        assert (desk.runs(), len(desk.records())) == ([], 1)

        manifest = desk.attempt(2)

        assert len(desk.runs()) == 1
        assert manifest.identity.try_number == 2

    def test_after_it_read_the_result_and_before_it_said_so_costs_no_second_run(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk.go()
        with monkeypatch.context() as patch:
            patch.setattr("airflow_provider_dbnd.engines.remote.forget", lambda *_: os._exit(9))
            desk.worker().join(_PATIENCE)
        assert (len(desk.runs()), len(desk.records())) == (1, 1)

        manifest = desk.attempt(2)

        assert [str(manifest.outputs["result"]["pid"])] == desk.runs()
        assert desk.records() == []

    @pytest.mark.parametrize("change", ["parameters", "code"])
    def test_is_followed_by_a_run_of_its_own_where_something_changed(
        self, desk: Desk, change: str
    ) -> None:
        worker = desk.worker(n=1)
        desk.until(desk.runs)
        kill(worker)
        desk.go()
        desk.until(desk.ended)
        if change == "code":
            desk.elsewhere.write("flow.py", FLOW.replace('"n": n,', '"n": n + 10,'))

        manifest = desk.attempt(2, n=2 if change == "parameters" else 1)

        assert len(desk.runs()) == 2
        assert manifest.identity.try_number == 2
        assert manifest.outputs["result"]["n"] == {"parameters": 2, "code": 11}[change]

    def test_whose_job_still_runs_is_followed_by_a_job_that_it_cannot_disturb(
        self, desk: Desk
    ) -> None:
        worker = desk.worker()
        desk.until(desk.runs)
        kill(worker)
        retry = desk.worker(2)
        desk.until(lambda: len(desk.runs()) == 2)
        desk.go()
        retry.join(_PATIENCE)
        desk.until(lambda: desk.ended(1) and desk.ended(2))

        first, second = desk.runs()
        store, definition = desk.elsewhere.store, desk.elsewhere.task()
        found = [
            read_manifest(store, desk.spec(definition, number).identity.key()) for number in (1, 2)
        ]
        assert retry.exitcode == 0
        assert [str(each.outputs["result"]["pid"]) for each in found] == [first, second]
        assert len({each.engine["spec"] for each in found}) == 2
        assert desk.records() == []

    def test_whose_job_failed_meanwhile_is_followed_by_one_that_runs_again(
        self, desk: Desk
    ) -> None:
        desk.elsewhere.write(
            "flow.py",
            FLOW.replace(
                "    return", "    if not Path(folder, 'well').exists(): 1 / 0\n    return"
            ),
        )
        worker = desk.worker()
        desk.until(desk.runs)
        kill(worker)
        desk.go()
        desk.until(desk.ended)
        (desk.folder / "well").touch()

        assert desk.attempt(2).status == "success"
        assert len(desk.runs()) == 2

    def test_whose_job_skipped_itself_is_followed_by_one_that_does(self, desk: Desk) -> None:
        from airflow.providers.common.compat.sdk import AirflowSkipException

        desk.elsewhere.write(
            "flow.py",
            FLOW.replace(
                "    return",
                "    class AirflowSkipException(Exception): ...\n"
                "    raise AirflowSkipException('not today')\n    return",
            ),
        )
        worker = desk.worker()
        desk.until(desk.runs)
        kill(worker)
        desk.go()
        desk.until(desk.ended)

        with pytest.raises(AirflowSkipException, match="not today"):
            desk.attempt(2)
        assert (len(desk.runs()), desk.records()) == (1, [])

    def test_whose_job_could_not_start_is_followed_by_one_that_sends_another(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import process_engine

        monkeypatch.setattr(process_engine.ProcessTask, "follows", lambda *_: True)
        desk.go()
        definition = desk.elsewhere.task()
        spec = desk.spec(definition, 1)
        desk.elsewhere.place = dataclasses.replace(desk.elsewhere.place, shares_disk=True)
        job = desk.elsewhere.send(definition, {"folder": str(desk.folder)})
        remember(desk.elsewhere.store, spec.identity, job)
        desk.elsewhere.store.put_bytes(job.failure, b'{"reason": "no disk"}')

        assert desk.attempt(2).identity.try_number == 2

    @pytest.mark.parametrize("text", ["", '{"identity"'])
    def test_whose_job_left_half_a_manifest_is_followed_by_one_that_runs_again(
        self, desk: Desk, text: str
    ) -> None:
        worker = desk.worker()
        desk.until(desk.runs)
        kill(worker)
        desk.go()
        desk.until(desk.ended)
        key = desk.spec(desk.elsewhere.task(), 1).identity.key()
        desk.elsewhere.store.put_bytes(key, text.encode(), overwrite=True)

        assert desk.attempt(2).identity.try_number == 2
        assert len(desk.runs()) == 2


class TestARecord:
    def test_that_cannot_be_read_stops_the_task_and_says_what_to_do(self, desk: Desk) -> None:
        desk.elsewhere.store.put_bytes("_jobs/p/r/f/-1.json", b'{"spec": ')

        with pytest.raises(
            ArtifactCorruptedError, match=r"_jobs/p/r/f/-1.json .*the job is over, delete"
        ):
            desk.attempt()

        assert desk.runs() == []

    def test_of_another_version_does_not(self, desk: Desk) -> None:
        desk.go()
        desk.elsewhere.store.put_bytes("_jobs/p/r/f/-1.json", b'{"dbnd": "0.0.1"}')

        assert desk.attempt().status == "success"
        assert desk.records() == []

    def test_is_not_left_by_a_task_whose_engine_is_configured_wrongly(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import process_engine

        def refuse(*_: Any) -> None:
            raise ValueError("no such option")

        monkeypatch.setattr(process_engine.ProcessTask, "configure", refuse)
        with pytest.raises(ValueError, match="no such option"):
            desk.attempt()

        assert desk.records() == []


class TestSeveral:
    def test_runs_and_mapped_instances_at_once_do_not_mix(self, desk: Desk) -> None:
        each = [
            {"run_id": run, "map_index": index, "n": 10 * position + index}
            for position, run in enumerate(("r1", "r2"))
            for index in range(2)
        ]
        workers = [desk.worker(**one) for one in each]
        desk.until(lambda: len(desk.runs()) == len(each))
        assert len(desk.records()) == len(each)
        for worker in workers[:2]:
            kill(worker)
        desk.go()
        for worker in workers[2:]:
            worker.join(_PATIENCE)
        store, definition = desk.elsewhere.store, desk.elsewhere.task()
        keys = [desk.spec(definition, 1, **one).identity.key() for one in each]
        desk.until(lambda: all(map(store.exists, keys)))

        found = [desk.attempt(2, **one) for one in each[:2]]

        assert [one.outputs["result"]["n"] for one in found] == [0, 1]
        assert [worker.exitcode for worker in workers[2:]] == [0, 0]
        assert (len(desk.runs()), desk.records()) == (4, [])

    def test_a_task_that_finished_runs_anew_when_it_is_sent_again(self, desk: Desk) -> None:
        desk.go()

        one, other = desk.attempt(1), desk.attempt(2)

        assert len(desk.runs()) == 2
        assert one.outputs["result"]["pid"] != other.outputs["result"]["pid"]


class TestAJobThatDies:
    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("os._exit(3)", "exit code 3"),
            ("os.kill(os.getpid(), 9)", "exit code -9"),
            ("os.kill(os.getpid(), 15)", "exit code 143"),
        ],
    )
    def test_fails_the_task_with_engine_job_and_spec_and_leaves_no_record(
        self, desk: Desk, line: str, reason: str
    ) -> None:
        desk.elsewhere.write("flow.py", FLOW.replace("    while", f"    {line}\n    while"))

        with pytest.raises(EngineError) as error:
            desk.attempt()

        text = str(error.value)
        assert f"engine 'there' (process), job {desk.runs()[0]}: RuntimeError: {reason}" in text
        assert f"Its spec is {desk.elsewhere.store.url}/_specs/p/r/f/-1/1.json" in text
        assert desk.records() == []

    def test_is_not_covered_by_a_manifest_that_was_there_before(self, desk: Desk) -> None:
        desk.go()
        assert desk.attempt().status == "success"
        desk.elsewhere.write("flow.py", FLOW.replace("    while", "    os._exit(3)\n    while"))

        with pytest.raises(EngineError, match="exit code 3"):
            desk.attempt()

    def test_after_it_left_half_a_manifest_is_an_error_and_no_hindrance(self, desk: Desk) -> None:
        key = desk.spec(desk.elsewhere.task(), 1).identity.key()
        path = desk.elsewhere.store.uri(key).removeprefix("file://")
        half = f"    os.makedirs(os.path.dirname({path!r}), exist_ok=True)\n    open({path!r}, 'w').write('half')\n    os._exit(3)\n"
        desk.elsewhere.write("flow.py", FLOW.replace("    while", half + "    while"))

        with pytest.raises(ArtifactCorruptedError, match="Delete it and run the task again"):
            desk.attempt()

        assert desk.records() == []

    def test_before_it_could_start_says_why(self, desk: Desk) -> None:
        desk.elsewhere.write("flow.py", FLOW)
        definition = desk.elsewhere.task()
        desk.elsewhere.write("flow.py", "import nothing_there\n" + FLOW)
        desk.elsewhere.task = lambda *_: definition  # type: ignore[method-assign]

        with pytest.raises(EngineError) as error:
            desk.attempt()

        assert (
            "flow.py cannot be imported where the task runs: ModuleNotFoundError: No module named"
            in (str(error.value))
        )
        assert desk.records() == []

    def test_with_the_worker_when_the_task_is_killed(self, desk: Desk) -> None:
        operators: list[Any] = []

        def attempt() -> None:
            with pytest.raises(EngineError):
                desk.attempt(started=operators.append)

        thread = threading.Thread(target=attempt)
        thread.start()
        desk.until(desk.runs)
        assert desk.records()

        operators[0].on_kill()

        thread.join(_PATIENCE)
        with pytest.raises(ProcessLookupError):
            os.kill(int(desk.runs()[0]), 0)
        assert desk.records() == []


class TestAFunctionThatFails:
    def failing(self, desk: Desk, body: str) -> BaseException:
        desk.go()
        desk.elsewhere.write("flow.py", f"import os\n@task\ndef f() -> int:\n    {body}\n")
        with pytest.raises(TaskFailedError) as error:
            desk.attempt()
        assert desk.records() == []
        return error.value

    def test_fails_the_task_with_its_message_first_and_its_own_traceback(self, desk: Desk) -> None:
        error = self.failing(desk, "raise ValueError('no rows')")

        head, *trace = str(error).splitlines()
        assert head.startswith("task 'f' failed in job ")
        assert head.endswith(": ValueError: no rows")
        assert trace[0].endswith('/project/flow.py", line 5, in f')
        assert trace[-1] == "ValueError: no rows"
        assert "airflow_provider_dbnd" not in str(error)
        assert error.__cause__ is None

    def test_may_ask_not_to_be_tried_again_as_in_the_worker(self, desk: Desk) -> None:
        from airflow.providers.common.compat.sdk import AirflowFailException

        error = self.failing(
            desk,
            "class AirflowFailException(Exception): ...\n    raise AirflowFailException('never')",
        )

        assert isinstance(error, AirflowFailException)
        assert not isinstance(self.failing(desk, "1 / 0"), AirflowFailException)

    def test_masks_what_is_hidden(self, desk: Desk) -> None:
        desk.environment = {"DBND__F__PASSWORD": "s3cr3t-of-f"}
        desk.elsewhere.write(
            "flow.py",
            "@task\ndef f(password: str = parameter(hidden=True, default='')) -> int:\n"
            "    raise ValueError('bad: ' + password)\n",
        )

        with pytest.raises(TaskFailedError) as error:
            desk.attempt(password=desk.elsewhere.value("s3cr3t-of-f", hidden=True))

        assert "ValueError: bad: ***" in str(error.value)
        assert "s3cr3t-of-f" not in str(error.value)


def test_an_exit_code_that_an_engine_takes_for_skipping_skips(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import process_engine
    from airflow.providers.common.compat.sdk import AirflowSkipException

    def skip(*_: Any) -> None:
        raise AirflowSkipException("exit code 99")

    monkeypatch.setattr(process_engine.ProcessTask, "launch", skip)

    with pytest.raises(AirflowSkipException, match="exit code 99"):
        desk.attempt()
    assert desk.records() == []


def test_an_engine_that_follows_jobs_takes_up_the_same_spec(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import process_engine

    monkeypatch.setattr(process_engine.ProcessTask, "follows", lambda *_: True)
    worker = desk.worker()
    desk.until(desk.runs)
    kill(worker)
    record = recall(desk.elsewhere.store, desk.spec(desk.elsewhere.task(), 1).identity)
    seen: list[Any] = []
    monkeypatch.setattr(
        process_engine.ProcessTask, "launch", lambda self, _: seen.append(self._job)
    )

    with pytest.raises(EngineError):
        desk.attempt(2)

    assert seen == [record]
