"""The spec that goes out, how the function is found again, and the result that comes back."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.manifest import Identity, Manifest, write_manifest
from airflow_provider_dbnd.core.remote import bootstrap
from airflow_provider_dbnd.core.remote.bootstrap import NOT_STARTED, STOPPED
from airflow_provider_dbnd.core.remote.function_reference import (
    FunctionReference,
    find_definition,
)
from airflow_provider_dbnd.core.remote.job import (
    Job,
    Place,
    forget,
    read_failure,
    read_result,
    recall,
    remember,
    send,
    was_stopped,
)
from airflow_provider_dbnd.core.settings import load_settings
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    CodeDeliveryError,
    EngineError,
    ParameterError,
)
from tests.engines.elsewhere import Elsewhere, command, python_with

ISOLATED = Place(engine="box", type="docker")
SHARED = Place(engine="there", type="process", shares_disk=True)

PLUS_ONE = "@task\ndef f(n: int = 1) -> int:\n    return n + 1\n"

STOPPED_TASK = """
import os, signal, time

@task
def f() -> bytes:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    except Exception:
        time.sleep(60)
"""

PARENT = """
import multiprocessing, time

@task
def f() -> int:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    time.sleep(0.5)
    child.terminate()
    child.join()
    return child.exitcode
"""


def reason_of(elsewhere: Elsewhere, definition: Definition) -> str:
    """Send and run a task whose code does not load there; return what the worker reads."""
    job = elsewhere.send(definition)
    done = elsewhere.run(job)
    reason = elsewhere.failure(job)
    assert done.returncode == NOT_STARTED, done.stdout
    assert reason is not None, done.stderr
    return reason


class TestTheFunctionIsFound:
    def test_with_helpers_and_data_beside_its_file(self, elsewhere: Elsewhere) -> None:
        elsewhere.write(
            "helpers.py",
            "from pathlib import Path\ndef rate() -> int:\n"
            "    return int((Path(__file__).parent / 'data' / 'rate.txt').read_text())\n",
        )
        elsewhere.write("data/rate.txt", "7")
        elsewhere.write(
            "flow.py",
            "@task\ndef f() -> int:\n    from helpers import rate\n    return rate()\n",
        )

        assert elsewhere.outcome(elsewhere.task()) == 7

    def test_in_a_subfolder_of_the_dags_folder_with_modules_below_that(
        self, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "path", [*sys.path, str(elsewhere.folder)])
        elsewhere.write("team/helpers.py", "X = 3\n")
        elsewhere.write(
            "team/flows/flow.py",
            "from team.helpers import X\n@task\ndef f() -> int:\n    return X\n",
        )

        assert elsewhere.outcome(elsewhere.task(file="team/flows/flow.py")) == 3

    def test_below_a_dbnd_toml_from_modules_beside_the_file(
        self, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(elsewhere.folder / "flows"))
        elsewhere.write("dbnd.toml", "[parameters]\n")
        elsewhere.write("flows/beside.py", "X = 4\n")
        elsewhere.write(
            "flows/flow.py", "from beside import X\n@task\ndef f() -> int:\n    return X\n"
        )

        assert elsewhere.outcome(elsewhere.task(file="flows/flow.py")) == 4

    def test_in_a_module_that_imports_relative_to_its_package(self, elsewhere: Elsewhere) -> None:
        elsewhere.write(
            "pkg/__init__.py", "@task\ndef f() -> int:\n    from .numbers_ import X\n    return X\n"
        )
        elsewhere.write("pkg/numbers_.py", "X = 5\n")

        assert elsewhere.outcome(elsewhere.task(file="pkg/__init__.py")) == 5

    @pytest.mark.parametrize("name", ["json", "blake3", "airflow_provider_dbnd", "my-flow", "a.b"])
    def test_in_a_file_that_is_called_like_a_library(self, elsewhere: Elsewhere, name: str) -> None:
        elsewhere.write(
            f"{name}.py",
            "@task\ndef f() -> str:\n    import json, blake3\n    return json.dumps([1])\n",
        )

        assert elsewhere.outcome(elsewhere.task(file=f"{name}.py")) == "[1]"

    @pytest.mark.parametrize(("first", "expected"), [(True, "project"), (False, "library")])
    def test_with_modules_in_the_order_of_the_worker_s_path(
        self,
        elsewhere: Elsewhere,
        tmp_path: Path,
        first: bool,
        expected: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder = str(elsewhere.folder)
        monkeypatch.setattr(sys, "path", [folder, *sys.path] if first else [*sys.path, folder])
        elsewhere.python = python_with(tmp_path / "image")
        (Path(elsewhere.python).parent / "common.py").write_text("WHOSE = 'library'\n")
        elsewhere.write("common.py", "WHOSE = 'project'\n")
        elsewhere.write(
            "flow.py", "@task\ndef f() -> str:\n    import common\n    return common.WHOSE\n"
        )

        assert elsewhere.outcome(elsewhere.task()) == expected

    def test_whose_name_is_that_of_a_library_in_a_folder_that_is_called_alike(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project, libraries = tmp_path / "project", tmp_path / "project-libraries"
        for folder, text in ((project, PLUS_ONE), (libraries, "WHOSE = 'library'\n")):
            folder.mkdir()
            head = "from airflow_provider_dbnd import task\n"
            (folder / "called_alike.py").write_text(head + text)
        monkeypatch.setattr(sys, "path", [*sys.path, str(libraries)])
        reference = FunctionReference(name="f", file="called_alike.py", first=False)

        definition = find_definition(reference, str(project))

        assert definition.function(1) == 2
        assert importlib.import_module("called_alike").WHOSE == "library"

    def test_under_the_name_that_its_module_gives_the_task(self, elsewhere: Elsewhere) -> None:
        elsewhere.write(
            "flow.py",
            "@task\ndef unused() -> int: return 0\n"
            "def f(n: int = 1) -> int:\n    return n\n"
            "one = task(n=parameter(default=10))(f)\n"
            "two = task(n=parameter(default=20))(f)\n",
        )

        assert elsewhere.outcome(elsewhere.task("two"), {}) == 1
        assert elsewhere.outcome(elsewhere.task("one"), {"n": 3}) == 3
        document = json.loads(elsewhere.store.get_bytes(elsewhere.send(elsewhere.task("two")).spec))
        assert document["function"]["name"] == "two"

    def test_after_its_options_were_overridden(self, elsewhere: Elsewhere) -> None:
        elsewhere.write("flow.py", PLUS_ONE)
        definition = elsewhere.task().with_options(retries=3).renamed("g")

        assert elsewhere.outcome(definition, {"n": 1}) == 2

    def test_in_a_task_that_another_file_imports(
        self, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "path", [*sys.path, str(elsewhere.folder)])
        elsewhere.write("imported_tasks_of_ours.py", PLUS_ONE)
        elsewhere.write(
            "flow.py", "from airflow.sdk import DAG\nfrom imported_tasks_of_ours import f\n"
        )

        assert elsewhere.outcome(elsewhere.task()) == 2

    def test_in_an_installed_library(
        self, elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere.python = python_with(tmp_path / "image")
        for site in (Path(elsewhere.python).parent, tmp_path / "site-packages"):
            (site / "lib_of_tasks").mkdir(parents=True)
            text = "from airflow_provider_dbnd import task\n" + PLUS_ONE
            (site / "lib_of_tasks" / "__init__.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
        import lib_of_tasks  # type: ignore[import-not-found]

        job = elsewhere.send(lib_of_tasks.f.definition)
        document = json.loads(elsewhere.store.get_bytes(job.spec))

        assert document["function"]["module"] == "lib_of_tasks"
        assert "project" not in {each["kind"] for each in document["code"]["archives"]}
        assert elsewhere.outcome(lib_of_tasks.f.definition) == 2

    def test_in_an_editable_install_whose_sources_travel(
        self, elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere.folder = tmp_path / "src"
        elsewhere.write("editable_of_ours/__init__.py", "X = 6\n")
        elsewhere.write(
            "editable_of_ours/tasks.py",
            "from editable_of_ours import X\n@task\ndef f() -> int:\n    return X\n",
        )
        monkeypatch.syspath_prepend(str(tmp_path / "src"))  # as a .pth file does
        from editable_of_ours.tasks import f  # type: ignore[import-not-found]

        assert elsewhere.outcome(f.definition) == 6

    def test_where_everything_is_installed_in_the_image(
        self, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(elsewhere.folder))
        elsewhere.place = dataclasses.replace(elsewhere.place, code="image")
        elsewhere.write("pkg_in_image/tasks.py", PLUS_ONE)
        job = elsewhere.send(elsewhere.task(file="pkg_in_image/tasks.py"))

        def run(*path: Path) -> int:
            return subprocess.run(
                [sys.executable, "-m", "airflow_provider_dbnd.core.execute", *job.arguments()],
                env={"PYTHONPATH": ":".join(map(str, (Path(__file__).parents[2], *path)))},
                cwd="/",
            ).returncode

        assert run(elsewhere.folder) == 0
        result = elsewhere.result(job)
        assert result is not None
        assert result.outputs == {"result": 2}
        assert not list(elsewhere.store.list("_code"))
        assert run() == NOT_STARTED
        assert "pkg_in_image.tasks cannot be imported where the task runs" in str(
            elsewhere.failure(job)
        )


class TestTheFunctionIsNotFound:
    @pytest.mark.parametrize(
        ("source", "reason", "remedy"),
        [
            (
                "import nothing_there\n",
                "ModuleNotFoundError: No module named 'nothing_there'",
                "Install what is missing there, put it into the project's folder, or import it inside",
            ),
            (
                "from airflow.sdk import DAG\n",
                "ModuleNotFoundError: No module named 'airflow'",
                "Airflow is not needed there if the tasks are in a module of their own",
            ),
            ("import broken\n", "SyntaxError: ", "Install what is missing"),
            ("raise RuntimeError('at import')\n", "RuntimeError: at import", "Install what"),
        ],
    )
    def test_because_its_file_cannot_be_imported_there(
        self, elsewhere: Elsewhere, source: str, reason: str, remedy: str
    ) -> None:
        elsewhere.write("flow.py", PLUS_ONE)
        definition = elsewhere.task()
        elsewhere.write("broken.py", "def (:\n")
        elsewhere.write("flow.py", source + PLUS_ONE)

        found = reason_of(elsewhere, definition)

        assert found.startswith(f"flow.py cannot be imported where the task runs: {reason}")
        assert remedy in found

    def test_because_its_file_ends_the_program(self, elsewhere: Elsewhere) -> None:
        elsewhere.write("flow.py", PLUS_ONE)
        definition = elsewhere.task()
        elsewhere.write("flow.py", "import sys\nsys.exit(0)\n" + PLUS_ONE)

        assert reason_of(elsewhere, definition) == "SystemExit: 0"

    def test_because_it_has_another_name_there(self, elsewhere: Elsewhere) -> None:
        elsewhere.write("flow.py", PLUS_ONE)
        definition = elsewhere.task()
        elsewhere.write("flow.py", PLUS_ONE.replace("def f(", "def ff("))

        assert reason_of(elsewhere, definition) == (
            "flow.py has no task 'f' where the task runs; did you mean 'ff'?"
        )

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (
                "def make():\n    @task\n    def f() -> None: ...\n    return f\nKEPT = [make()]\n",
                "is defined inside a function. Define it at the top of a module",
            ),
            (
                "class Tasks:\n    @task\n    def f() -> None: ...\nKEPT = [Tasks.f]\n",
                "no name of module unusual_prefix_",
            ),
        ],
        ids=["in a function", "in a class"],
    )
    def test_and_sending_says_so(self, elsewhere: Elsewhere, source: str, message: str) -> None:
        elsewhere.write("flow.py", source)
        definition = elsewhere.module().KEPT[0].definition

        with pytest.raises(CodeDeliveryError, match=re.escape(message)):
            elsewhere.send(definition)

    def test_since_it_was_typed_into_an_interpreter(self, elsewhere: Elsewhere) -> None:
        names: dict[str, Any] = {}
        exec("from airflow_provider_dbnd import task\n@task\ndef f() -> None: ...\n", names)

        with pytest.raises(CodeDeliveryError, match=r"is in no file \(<string>\)"):
            elsewhere.send(names["f"].definition)


class TestTheEndOfATask:
    def end(self, elsewhere: Elsewhere, line: str) -> tuple[Job, subprocess.CompletedProcess[str]]:
        elsewhere.write("flow.py", f"import os, signal, sys\n@task\ndef f() -> int:\n    {line}\n")
        job = elsewhere.send(elsewhere.task())
        return job, elsewhere.run(job)

    @pytest.mark.parametrize(
        ("line", "type_", "message"),
        [
            ("raise ValueError('no')", "ValueError", "no"),
            ("sys.exit(0)", "SystemExit", "0"),
            ("sys.exit('bye')", "SystemExit", "bye"),
            ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
            ("return open", "ResultError", None),
        ],
    )
    def test_by_an_error_is_a_failure_with_a_manifest(
        self, elsewhere: Elsewhere, line: str, type_: str, message: str | None
    ) -> None:
        job, done = self.end(elsewhere, line)

        manifest = elsewhere.result(job)

        assert done.returncode == 1
        assert manifest is not None
        assert manifest.error is not None
        assert (manifest.status, manifest.error["type"]) == ("failed", type_)
        assert message is None or manifest.error["message"] == message

    def test_by_skipping_is_no_failure(self, elsewhere: Elsewhere) -> None:
        job, done = self.end(
            elsewhere,
            "class AirflowSkipException(Exception): ...\n    raise AirflowSkipException('not today')",
        )

        manifest = elsewhere.result(job)

        assert done.returncode == 0
        assert manifest is not None
        assert (manifest.status, (manifest.error or {})["message"]) == ("skipped", "not today")

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            ("os._exit(3)", 3),
            ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ],
    )
    def test_by_a_kill_leaves_no_manifest(self, elsewhere: Elsewhere, line: str, code: int) -> None:
        job, done = self.end(elsewhere, line)

        assert done.returncode == code
        assert elsewhere.result(job) is None
        assert elsewhere.failure(job) is None

    def test_by_sigterm_leaves_a_manifest_and_no_files(
        self, elsewhere: Elsewhere, tmp_path: Path
    ) -> None:
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        elsewhere.write("flow.py", STOPPED_TASK)
        job = elsewhere.send(elsewhere.task())

        done = elsewhere.run(job, TMPDIR=str(temporary))

        manifest = elsewhere.result(job)
        assert done.returncode == STOPPED
        assert elsewhere.failure(job) is None
        assert manifest is not None
        assert manifest.error is not None
        assert manifest.status == "failed"
        assert manifest.error["message"] == "the job was told to stop (SIGTERM)"
        assert was_stopped(manifest)
        assert list(temporary.iterdir()) == []

    def test_by_sigterm_comes_also_where_the_task_catches_everything(
        self, elsewhere: Elsewhere, tmp_path: Path
    ) -> None:
        program = inspect.getsource(bootstrap).replace("_PATIENCE = 8", "_PATIENCE = 0.5")
        elsewhere.write("flow.py", STOPPED_TASK.replace("Exception", "BaseException"))
        job = elsewhere.send(elsewhere.task())

        done = subprocess.run(
            [elsewhere.python, "-c", program, *job.arguments()],
            env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
            timeout=30,
        )

        assert done.returncode == STOPPED
        assert not list(tmp_path.glob("dbnd-job-*"))

    def test_is_not_that_of_a_child_which_it_stops(self, elsewhere: Elsewhere) -> None:
        elsewhere.write("flow.py", PARENT)

        assert elsewhere.outcome(elsewhere.task()) == -signal.SIGTERM

    def test_where_the_store_cannot_be_written_is_told(self, elsewhere: Elsewhere) -> None:
        elsewhere.write("flow.py", PLUS_ONE)
        job = elsewhere.send(elsewhere.task())
        Path(elsewhere.store.url.removeprefix("file://"), "_runs").write_text("in the way")

        done = elsewhere.run(job)

        assert done.returncode == NOT_STARTED
        reason = str(elsewhere.failure(job))
        assert reason.startswith(f"cannot write {elsewhere.store.url}/_runs/p/r/f/-1/1.json")
        assert "NotADirectoryError" in reason


class TestTracebacks:
    SOURCE = """
    def inner(n):
        return 1 / n

    @task
    def f(password: str = parameter(hidden=True, default="s3cr3t-9")) -> int:
        try:
            return inner(0)
        except ZeroDivisionError as exc:
            raise ValueError(f"cannot use {password}") from exc
    """

    def error(self, elsewhere: Elsewhere, source: str, **values: Any) -> dict[str, str]:
        import textwrap

        elsewhere.write("flow.py", textwrap.dedent(source))
        job = elsewhere.send(elsewhere.task(), values)
        done = elsewhere.run(job)
        manifest = elsewhere.result(job)
        assert manifest is not None, done.stderr
        assert manifest.error is not None
        return dict(manifest.error)

    def test_show_the_users_frames_and_what_led_to_the_error(self, elsewhere: Elsewhere) -> None:
        secret = elsewhere.value("s3cr3t-9", source="default")
        error = self.error(elsewhere, self.SOURCE, password=secret)

        trace = error["traceback"]
        assert "airflow_provider_dbnd" not in trace
        assert trace.startswith('  File "')
        assert "ZeroDivisionError: division by zero" in trace
        assert "The above exception was the direct cause" in trace
        assert "in inner\n    return 1 / n" in trace
        assert trace.rstrip().endswith("ValueError: cannot use ***")
        assert error["message"] == "cannot use ***"
        assert "s3cr3t-9" not in trace

    def test_of_our_own_errors_are_their_message(self, elsewhere: Elsewhere) -> None:
        error = self.error(elsewhere, "@task\ndef f(n: int) -> int:\n    return n\n", n="many")

        assert (
            error["traceback"]
            .rstrip()
            .splitlines()[-1]
            .startswith(
                "airflow_provider_dbnd.exceptions.ParameterError: parameter 'n' of task 'f': expected int"
            )
        )
        assert "File" not in error["traceback"]

    def test_stay_short_when_a_function_calls_itself_for_ever(self, elsewhere: Elsewhere) -> None:
        error = self.error(
            elsewhere, "@task\ndef f() -> int:\n    return g()\ndef g():\n    return g()\n"
        )

        assert error["type"] == "RecursionError"
        assert len(error["traceback"]) < 3000


class TestSecrets:
    def test_are_nowhere_but_in_the_jobs_own_environment(
        self, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret = "s3cr3t-of-nobody"
        elsewhere.write(".env", f"PASSWORD={secret}")
        elsewhere.write(
            "dbnd.toml",
            f'[parameters]\n"f.password" = "{secret}"\n[storage_options.s3]\nkey = "{secret}"\n',
        )
        elsewhere.write(
            "flow.py",
            "@task\ndef f(password: str = parameter(hidden=True, default='')) -> list[str]:\n"
            "    print('running with', len(password))\n"
            "    argv = open('/proc/self/cmdline').read()\n"
            "    environ = open('/proc/self/environ').read()\n"
            "    parent = open(f'/proc/{__import__(\"os\").getppid()}/cmdline').read()\n"
            "    return [str(password in each) for each in (argv, parent, environ)]\n",
        )

        job = elsewhere.send(elsewhere.task(), {"password": elsewhere.value(secret, hidden=True)})
        remember(elsewhere.store, Identity(pipeline="p", run_id="r", task_id="f"), job)
        done = elsewhere.run(job, DBND__F__PASSWORD=secret)

        manifest = elsewhere.result(job)
        assert manifest is not None, done.stderr
        assert manifest.outputs["result"] == ["False", "False", "True"]
        assert secret not in done.stdout + done.stderr
        assert secret not in " ".join(command(job, "python3"))
        assert holding(elsewhere.store, secret) == []

    def test_that_the_function_prints_are_its_own_affair_but_not_in_errors(
        self, elsewhere: Elsewhere
    ) -> None:
        elsewhere.write(
            "flow.py", PLUS_ONE.replace("n: int = 1", "n: int = parameter(hidden=True, default=0)")
        )
        job = elsewhere.send(elsewhere.task(), {"n": elsewhere.value(5, hidden=True)})

        done = elsewhere.run(job, DBND__F__N="not-a-number-but-a-secret")

        manifest = elsewhere.result(job)
        assert manifest is not None
        assert (
            "parameter 'n' of task 'f': expected int, got ***" in (manifest.error or {})["message"]
        )
        assert "not-a-number-but-a-secret" not in done.stdout + done.stderr
        assert holding(elsewhere.store, "not-a-number-but-a-secret") == []

    def test_that_are_missing_there_are_a_clear_error(self, elsewhere: Elsewhere) -> None:
        elsewhere.write(
            "flow.py", PLUS_ONE.replace("n: int = 1", "n: int = parameter(hidden=True, default=0)")
        )
        job = elsewhere.send(elsewhere.task(), {"n": elsewhere.value(5)})

        elsewhere.run(job)

        assert str(elsewhere.failure(job)).startswith(
            "parameter 'n' of task 'f' is hidden, so its value does not travel. Give it where the task "
            "runs as environment variable DBND__F__N"
        )

    @pytest.mark.parametrize(
        ("options", "kept"),
        [
            ({"key": "A", "secret": "S", "token": "T", "anon": False}, {"anon": False}),
            (
                {
                    "client_kwargs": {
                        "endpoint_url": "http://h",
                        "aws_secret_access_key": "S",
                        "aws_access_key_id": "A",
                        "aws_session_token": "T",
                        "region_name": "eu",
                    }
                },
                {"client_kwargs": {"endpoint_url": "http://h", "region_name": "eu"}},
            ),
            (
                {
                    "account_name": "n",
                    "account_key": "S",
                    "sas_token": "S",
                    "connection_string": "S",
                    "client_secret": "S",
                    "tenant_id": "t",
                    "credential": "S",
                },
                {"account_name": "n", "tenant_id": "t"},
            ),
            ({"password": "S", "user": "me", "kerberos": True}, {"user": "me", "kerberos": True}),
            (
                {"headers": {"Authorization": "S", "X-Api-Key": "S", "Cookie": "S", "Accept": "a"}},
                {"headers": {"Accept": "a"}},
            ),
            (
                {
                    "config_kwargs": {
                        "proxies": {"http": "http://me:S@proxy:1", "https": "http://p:1"}
                    }
                },
                {"config_kwargs": {"proxies": {"https": "http://p:1"}}},
            ),
            ({"hosts": ["http://me:S@h"], "endpoint_url": "https://h/?sig=S"}, {}),
            (
                {
                    "passphrase": "S",
                    "private_key": "S",
                    "pkey": "S",
                    "apikey": "S",
                    "auth": ["a", "S"],
                },
                {},
            ),
        ],
    )
    def test_among_storage_options_stay_here(
        self, elsewhere: Elsewhere, options: dict[str, Any], kept: dict[str, Any]
    ) -> None:
        elsewhere.write("flow.py", PLUS_ONE)
        definition = elsewhere.task()
        settings = dataclasses.replace(
            load_settings(elsewhere.folder), storage_options={"s3": options, "token": {"a": 1}}
        )

        job = send(elsewhere.spec(definition), definition, settings, elsewhere.place)

        assert job.options == {"s3": kept}
        assert json.loads(elsewhere.store.get_bytes(job.spec))["storage_options"] == {"s3": kept}
        assert '"S"' not in json.dumps(job.arguments())


def holding(store: ArtifactStore, text: str) -> list[str]:
    """Return the files of a store that hold *text*, archives unpacked."""
    import io
    import zipfile

    found = []
    for each in store.list():
        data = store.get_bytes(each.key)
        if each.key.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(data)) as zipped:
                data = b"".join(map(zipped.read, zipped.namelist()))
        if text.encode() in data:
            found.append(each.key)
    return found


class TestSending:
    @pytest.fixture
    def job(self, elsewhere: Elsewhere) -> Job:
        elsewhere.write("flow.py", PLUS_ONE)
        return elsewhere.send(elsewhere.task(), {"n": 1})

    def test_again_after_nothing_changed_is_known(self, elsewhere: Elsewhere, job: Job) -> None:
        elsewhere.write("dbnd.toml", "[parameters]\nx = 1\n")
        elsewhere.write(".hidden", "new")
        time.sleep(0.01)

        again = elsewhere.send(elsewhere.task(), {"n": 1}, try_number=2)

        assert again.fingerprint == job.fingerprint
        assert (again.spec, again.manifest, again.checksum) != (
            job.spec,
            job.manifest,
            job.checksum,
        )

    @pytest.mark.parametrize(
        "change",
        [
            {"values": {"n": 2}},
            {"values": {}},
            {"code": PLUS_ONE + "#"},
            {"helper": "X = 1"},
            {"place": Place(engine="other", type="process")},
            {"place": Place(engine="there", type="docker")},
            {"place": dataclasses.replace(SHARED)},
            {"place": Place(engine="there", type="process", code="image")},
        ],
        ids=repr,
    )
    def test_again_after_a_change_is_another_job(
        self, elsewhere: Elsewhere, job: Job, change: dict[str, Any]
    ) -> None:
        if "code" in change:
            elsewhere.write("flow.py", change["code"])
        if "helper" in change:
            elsewhere.write("helper.py", change["helper"])
        elsewhere.place = change.get("place", elsewhere.place)

        again = elsewhere.send(elsewhere.task(), change.get("values", {"n": 1}))

        assert again.fingerprint != job.fingerprint

    def test_names_a_place_of_its_own_for_each_run_and_map_index(
        self, elsewhere: Elsewhere, job: Job
    ) -> None:
        others = [
            elsewhere.send(elsewhere.task(), {"n": 1}, **identity)
            for identity in (
                {"run_id": "r2"},
                {"map_index": 0},
                {"map_index": 1},
                {"pipeline": "q"},
                {"task_id": "g"},
                {"run_id": "r/f"},
            )
        ]

        for name in ("spec", "manifest", "failure"):
            assert len({getattr(each, name) for each in (job, *others)}) == 7

    def test_takes_away_the_reason_of_an_earlier_failure(
        self, elsewhere: Elsewhere, job: Job
    ) -> None:
        elsewhere.store.put_bytes(job.failure, b'{"reason": "old"}')
        assert elsewhere.failure(job) == "old"

        assert elsewhere.failure(elsewhere.send(elsewhere.task(), {"n": 1})) is None

    @pytest.mark.parametrize(
        ("path", "values", "goes"),
        [
            ("out.csv", {}, "out.csv"),
            ("/data/{n}.csv", {}, "/data/{n}.csv"),
            ("{where}/{n}.csv", {"where": "/data"}, "/data"),
            ("{where}/{n}.csv", {"where": "s3://b"}, None),
            ("{store}/out/{n}.csv", {}, None),
            ("s3://b/{n}.csv", {}, None),
        ],
    )
    def test_an_output_to_the_workers_disk_is_refused_where_that_is_not_seen(
        self, elsewhere: Elsewhere, path: str, values: dict[str, Any], goes: str | None
    ) -> None:
        elsewhere.write(
            "flow.py",
            f"@task(result=output(path={path!r}))\n"
            "def f(n: int = 1, where: str = '.') -> int:\n    return n\n",
        )
        definition = elsewhere.task()
        elsewhere.place = ISOLATED
        if goes is None:
            elsewhere.send(definition, values)
            return

        with pytest.raises(EngineError) as error:
            elsewhere.send(definition, values)

        assert str(error.value) == (
            f"output 'result' of task 'f' goes to {goes!r} on this machine's disk, which engine 'box' "
            "(docker) does not see. Give a URL, or '{store}/...'."
        )
        elsewhere.place = SHARED
        elsewhere.send(definition, values)

    def test_a_relative_output_path_starts_beside_the_file_where_the_disk_is_shared(
        self, elsewhere: Elsewhere
    ) -> None:
        elsewhere.write(
            "flow.py",
            "@task(result=output(path='out/{n}.json'))\ndef f(n: int) -> dict:\n    return {'n': n}\n",
        )
        elsewhere.place = SHARED

        elsewhere.outcome(elsewhere.task(), {"n": 7})

        assert json.loads((elsewhere.folder / "out" / "7.json").read_text()) == {"n": 7}

    def test_to_a_store_in_memory_is_refused(self, elsewhere: Elsewhere) -> None:
        elsewhere.write("flow.py", PLUS_ONE)
        elsewhere.store = ArtifactStore("memory://jobs")

        with pytest.raises(EngineError, match="is in the memory of this process"):
            elsewhere.send(elsewhere.task())

    def test_a_number_too_long_for_json_is_named(self, elsewhere: Elsewhere) -> None:
        elsewhere.write("flow.py", "@task\ndef f(m: int, n: int) -> int:\n    return n\n")

        with pytest.raises(
            ParameterError, match=r"parameter 'n' of task 'f' cannot travel .*digits"
        ):
            elsewhere.send(elsewhere.task(), {"m": 1, "n": 10**5000})


IDENTITY = Identity(pipeline="p", run_id="r", task_id="f")


def manifest(spec: str, **more: Any) -> Manifest:
    return Manifest(
        **{
            "identity": IDENTITY,
            "status": "success",
            "started": "",
            "seconds": 0.0,
            "function": {},
            "environment": {},
            "engine": {"spec": spec},
            **more,
        }
    )


class TestTheResult:
    @pytest.fixture
    def job(self, elsewhere: Elsewhere) -> Job:
        elsewhere.write("flow.py", PLUS_ONE)
        return elsewhere.send(elsewhere.task())

    def test_is_the_manifest_of_that_very_spec(self, elsewhere: Elsewhere, job: Job) -> None:
        assert elsewhere.result(job) is None

        write_manifest(elsewhere.store, manifest("another"))
        assert elsewhere.result(job) is None
        write_manifest(elsewhere.store, manifest("", engine={}))
        assert elsewhere.result(job) is None
        write_manifest(elsewhere.store, manifest(job.checksum, outputs={"result": 3}))

        found = elsewhere.result(job)
        assert found is not None
        assert found.outputs == {"result": 3}

    @pytest.mark.parametrize("text", ["", '{"identity": {"pipe', "[]", "{}"])
    def test_that_is_cut_short_is_an_error_with_its_place(
        self, elsewhere: Elsewhere, job: Job, text: str
    ) -> None:
        elsewhere.store.put_bytes(job.manifest, text.encode())

        with pytest.raises(ArtifactCorruptedError, match=re.escape(job.manifest)):
            elsewhere.result(job)

    @pytest.mark.parametrize("text", ["", "{}", '{"reason"', "[]"])
    def test_a_reason_that_is_cut_short_is_an_error_with_its_place(
        self, elsewhere: Elsewhere, job: Job, text: str
    ) -> None:
        elsewhere.store.put_bytes(job.failure, text.encode())

        with pytest.raises(ArtifactCorruptedError, match=r"1\.failure\.json cannot be read"):
            read_failure(elsewhere.store, job)

    def test_names_the_spec_it_came_from(self, elsewhere: Elsewhere, job: Job) -> None:
        elsewhere.run(job)

        found = read_result(elsewhere.store, job.manifest, job.checksum)

        assert found is not None
        assert found.engine == {
            "name": "there",
            "type": "process",
            "job": os.uname().nodename,
            "spec": job.checksum,
        }

    def test_names_the_job_as_the_engine_does(self, elsewhere: Elsewhere, job: Job) -> None:
        elsewhere.run(job, DBND_JOB="pod-1")

        found = read_result(elsewhere.store, job.manifest, job.checksum)

        assert found is not None
        assert found.engine["job"] == "pod-1"


class TestTheRecord:
    def test_is_there_until_it_is_forgotten(self, elsewhere: Elsewhere) -> None:
        elsewhere.write("flow.py", PLUS_ONE)
        job = dataclasses.replace(
            elsewhere.send(elsewhere.task()), name="job-1", options={"s3": {}}
        )
        assert recall(elsewhere.store, IDENTITY) is None

        remember(elsewhere.store, IDENTITY, job)

        later = dataclasses.replace(IDENTITY, try_number=3)
        assert recall(elsewhere.store, later) == job
        assert recall(elsewhere.store, dataclasses.replace(IDENTITY, run_id="r2")) is None
        assert recall(elsewhere.store, dataclasses.replace(IDENTITY, map_index=0)) is None
        forget(elsewhere.store, later)
        forget(elsewhere.store, later)
        assert recall(elsewhere.store, IDENTITY) is None

    @pytest.mark.parametrize("text", ["", "[]", '{"spec": ', '{"dbnd": "OWN", "x": 1}', "{}"])
    def test_that_cannot_be_read_is_an_error_with_its_place_and_remedy(
        self, elsewhere: Elsewhere, text: str
    ) -> None:
        from airflow_provider_dbnd import __version__

        elsewhere.store.put_bytes("_jobs/p/r/f/-1.json", text.replace("OWN", __version__).encode())

        with pytest.raises(ArtifactCorruptedError) as error:
            recall(elsewhere.store, IDENTITY)

        assert "_jobs/p/r/f/-1.json cannot be read" in str(error.value)
        assert "see that the job is over, delete it, and run the task again" in str(error.value)

    def test_of_another_version_is_not_taken_up(self, elsewhere: Elsewhere) -> None:
        record = {"dbnd": "0.0.1", "something": "else"}
        elsewhere.store.put_bytes("_jobs/p/r/f/-1.json", json.dumps(record).encode())

        assert recall(elsewhere.store, IDENTITY) is None
