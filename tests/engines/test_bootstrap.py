"""A job starts on any Python, or leaves word of why it cannot."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.core.remote import bootstrap
from airflow_provider_dbnd.core.remote.bootstrap import (
    NOT_STARTED,
    digest_of,
    failure_uri,
    python_tag,
    without_connection,
)
from airflow_provider_dbnd.core.remote.job import Job
from tests.engines.elsewhere import DATA, Elsewhere, command, python_with

PLUS_ONE = "@task\ndef f(n: int = 1) -> int:\n    return n + 1\n"
FRAME = """
from pandas import DataFrame

@task
def f(rows: DataFrame) -> DataFrame:
    return rows.assign(n=rows["n"] * 2)
"""

Change = Callable[[dict[str, Any]], None]


def sent(elsewhere: Elsewhere, source: str = PLUS_ONE, **values: Any) -> Job:
    elsewhere.write("flow.py", source)
    return elsewhere.send(elsewhere.task(), values)


def changed(elsewhere: Elsewhere, job: Job, change: Change) -> None:
    """Change the spec as somebody else would have written it."""
    path = Path(job.spec.removeprefix("file://"))
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def archive_of(elsewhere: Elsewhere, job: Job, kind: str) -> dict[str, Any]:
    document = json.loads(elsewhere.store.get_bytes(job.spec))
    found: dict[str, Any] = next(
        each for each in document["code"]["archives"] if kind in (each["kind"], each["module"])
    )
    return found


def path_of(archive: dict[str, Any]) -> Path:
    return Path(archive["uri"].removeprefix("file://"))


class TestStarts:
    def test_on_a_python_with_nothing_installed(self, elsewhere: Elsewhere) -> None:
        job = sent(elsewhere, n=4)

        done = elsewhere.run(job)

        manifest = elsewhere.result(job)
        assert done.returncode == 0, done.stderr
        assert manifest is not None
        assert manifest.outputs == {"result": 5}
        assert manifest.engine["name"] == "there"

    def test_on_one_with_the_libraries_of_the_data_alone(
        self, elsewhere: Elsewhere, tmp_path: Path
    ) -> None:
        import pandas as pd

        elsewhere.python = python_with(tmp_path / "data", *DATA)
        elsewhere.write("flow.py", FRAME)

        found = elsewhere.outcome(elsewhere.task(), {"rows": pd.DataFrame({"n": [1, 2]})})

        assert (found["rows"], found["schema"]) == (2, {"n": "int64"})

    def test_with_the_images_own_library_where_it_has_one(
        self, elsewhere: Elsewhere, tmp_path: Path
    ) -> None:
        job = sent(elsewhere)
        path_of(archive_of(elsewhere, job, "blake3")).unlink()

        assert elsewhere.run(job, python_with(tmp_path / "own", "blake3")).returncode == 0
        assert elsewhere.run(job).returncode == NOT_STARTED

    def test_with_all_that_pydantic_needs_where_the_image_has_some_of_it_too_old(
        self, elsewhere: Elsewhere, tmp_path: Path
    ) -> None:
        python = python_with(tmp_path / "old")
        (Path(python).parent / "typing_extensions.py").write_text("OLD = True\n")
        source = "import datetime as dt\n@task\ndef f(n: dt.date) -> str:\n    return str(n)\n"
        job = sent(elsewhere, source, n="2026-01-02")

        assert elsewhere.run(job, python).returncode == 0

    def test_where_the_package_is_installed_by_its_module(self, elsewhere: Elsewhere) -> None:
        job = sent(elsewhere)
        root = str(Path(bootstrap.__file__).parents[2])

        done = subprocess.run(
            [sys.executable, "-m", "airflow_provider_dbnd.core.execute", *job.arguments()],
            cwd="/",
            env={"PYTHONPATH": root},
            capture_output=True,
            text=True,
        )

        assert done.returncode == 0, done.stderr
        assert elsewhere.result(job) is not None

    def test_and_leaves_no_files_behind(self, elsewhere: Elsewhere, tmp_path: Path) -> None:
        job = sent(elsewhere)
        (tmp_path / "tmp").mkdir()

        elsewhere.run(job, TMPDIR=str(tmp_path / "tmp"))

        assert list((tmp_path / "tmp").iterdir()) == []


class TestDoesNotStart:
    def refused(self, elsewhere: Elsewhere, job: Job, python: str | None = None) -> str:
        """Run a job that cannot start, and return the reason that the worker reads."""
        done = elsewhere.run(job, python)
        reason = elsewhere.failure(job)
        assert done.returncode == NOT_STARTED, done.stderr
        assert elsewhere.result(job) is None
        assert reason is not None, done.stderr
        assert f"dbnd: the task left no result: {reason}" in done.stderr
        return reason

    @pytest.mark.parametrize(
        ("damage", "found"),
        [
            (lambda data: data[: len(data) // 2], "BadZipFile"),
            (lambda data: b"", "BadZipFile"),
            (lambda data: b"<html>not found</html>", "BadZipFile"),
            (lambda data: data.replace(b"PK\x01\x02", b"PK\x01\x03", 1), ""),
            (lambda data: bytes(b ^ (n == 45) for n, b in enumerate(data)), ""),
        ],
        ids=["truncated", "empty", "a page", "a wrong entry", "a flipped bit"],
    )
    def test_from_a_damaged_archive(
        self, elsewhere: Elsewhere, damage: Callable[[bytes], bytes], found: str
    ) -> None:
        job = sent(elsewhere)
        archive = archive_of(elsewhere, job, "project")
        path = path_of(archive)
        path.write_bytes(damage(path.read_bytes()))

        reason = self.refused(elsewhere, job)

        assert f"{archive['uri']} is damaged: expected content {archive['digest']}, found" in reason
        assert found in reason
        assert reason.endswith("Delete it and run the task again")

    @pytest.mark.parametrize("extra", [{"extra.py": ""}, {"flow.py": PLUS_ONE + "#"}])
    def test_from_an_archive_of_other_files(
        self, elsewhere: Elsewhere, extra: dict[str, str]
    ) -> None:
        job = sent(elsewhere)
        archive = archive_of(elsewhere, job, "project")
        with zipfile.ZipFile(path_of(archive), "w") as zipped:
            for name, text in {"flow.py": PLUS_ONE, **extra}.items():
                zipped.writestr(name, text)

        assert "is damaged" in self.refused(elsewhere, job)

    def test_without_an_archive(self, elsewhere: Elsewhere) -> None:
        job = sent(elsewhere)
        path_of(archive_of(elsewhere, job, "runner")).unlink()

        assert "FileNotFoundError" in self.refused(elsewhere, job)

    @pytest.mark.parametrize("text", ["", '{"code"', "[]", '{"dbnd_spec": 1}', "\x00\x01"])
    def test_from_what_is_no_spec(self, elsewhere: Elsewhere, text: str) -> None:
        job = sent(elsewhere)
        Path(job.spec.removeprefix("file://")).write_text(text)

        reason = self.refused(elsewhere, job)

        assert f"{job.spec} is not the spec of a task" in reason
        assert "Run the task again" in reason

    def test_without_a_spec(self, elsewhere: Elsewhere) -> None:
        job = sent(elsewhere)
        elsewhere.store.delete(job.spec.removeprefix(elsewhere.store.url + "/"))

        assert "FileNotFoundError" in self.refused(elsewhere, job)

    def test_with_libraries_for_another_python(self, elsewhere: Elsewhere, tmp_path: Path) -> None:
        job = sent(elsewhere)

        def of_another_python(document: dict[str, Any]) -> None:
            for each in document["code"]["archives"]:
                each["python"] = each["python"] and "cpython-399-x86_64-linux-gnu"

        changed(elsewhere, job, of_another_python)
        reason = self.refused(elsewhere, job)

        assert reason.startswith(
            "pydantic, blake3, xxhash of the worker (cpython-399-x86_64-linux-gnu) cannot be loaded by the "
            f"Python here ({python_tag()}). Install pydantic, blake3, xxhash in the image"
        )
        assert "blake3, xxhash of the worker" in self.refused(
            elsewhere,
            job,
            python_with(
                tmp_path / "some",
                *("pydantic", "pydantic_core", "annotated_types", "typing_extensions.py"),
            ),
        )

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"dbnd_spec": 99}, "is of version 99, and airflow-provider-dbnd {own} here reads"),
            ({"dbnd": "9.9"}, "the worker has airflow-provider-dbnd 9.9, and where the task runs"),
        ],
    )
    def test_where_another_version_of_the_package_is_installed(
        self, elsewhere: Elsewhere, change: dict[str, Any], reason: str
    ) -> None:
        from airflow_provider_dbnd import __version__

        job = sent(elsewhere)
        changed(elsewhere, job, lambda document: document.update(change))

        assert reason.format(own=__version__) in self.refused(elsewhere, job)

    def test_with_a_library_that_is_too_old(self, elsewhere: Elsewhere, tmp_path: Path) -> None:
        python = python_with(tmp_path / "old", "typing_extensions.py")
        site = Path(python).parent
        (site / "pydantic.py").write_text("__version__ = '1.10.2'\n")
        (site / "pydantic-1.10.2.dist-info").mkdir()
        (site / "pydantic-1.10.2.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: pydantic\nVersion: 1.10.2\n"
        )

        reason = self.refused(elsewhere, sent(elsewhere), python)

        assert "where the task runs pydantic is 1.10.2: expected 2.8 or newer" in reason
        assert "take it out: the worker's travels with the task" in reason

    def test_and_tells_the_log_where_the_store_cannot_be_written(
        self, elsewhere: Elsewhere
    ) -> None:
        job = sent(elsewhere)
        path_of(archive_of(elsewhere, job, "runner")).unlink()
        Path(failure_uri(job.spec).removeprefix("file://")).mkdir()

        done = elsewhere.run(job)

        assert done.returncode == NOT_STARTED
        assert "FileNotFoundError" in done.stderr
        assert "failure.json cannot be written: IsADirectoryError" in done.stderr

    def test_on_a_python_that_is_too_old(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(sys, "version_info", (3, 9, 1))
        monkeypatch.setattr(sys, "version", "3.9.1 (main)")

        with pytest.raises(bootstrap.StartError) as error:
            bootstrap.prepare([], str(tmp_path), {})

        assert str(error.value) == "Python 3.9.1 is too old: expected 3.10 or newer in the image"


class TestItsText:
    source = inspect.getsource(bootstrap)

    def test_can_be_read_by_a_python_that_is_too_old(self) -> None:
        ast.parse(self.source, feature_version=(3, 7))

    def test_imports_python_s_own_modules_and_the_rest_only_when_they_are_there(self) -> None:
        names = {
            name
            for node in ast.parse(self.source).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
            )
        }

        assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names}

    def test_and_the_command_stay_far_below_what_a_system_takes(self, elsewhere: Elsewhere) -> None:
        job = sent(elsewhere, n=[1] * 10**5)

        assert sum(map(len, command(job, "python3"))) < 2**14


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("s3://conn_id@bucket/a@b", "s3://bucket/a@b"),
        ("s3://conn_id@my.bucket/a", "s3://my.bucket/a"),
        ("gs://conn.id@my.bucket/a", "gs://my.bucket/a"),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
        (
            "abfss://conn_id@box@account.dfs.core.windows.net/a",
            "abfss://box@account.dfs.core.windows.net/a",
        ),
        ("abfs://conn_id@box/a", "abfs://box/a"),
        ("webhdfs://user@host:9870/a", "webhdfs://user@host:9870/a"),
        ("hdfs://conn_id@/a", "hdfs:///a"),
    ],
)
def test_a_connection_is_left_out_of_a_url(uri: str, plain: str) -> None:
    assert without_connection(uri) == plain


@pytest.mark.parametrize(
    ("uri", "options", "expected"),
    [
        ("s3://b/k", {"s3": {"anon": True}}, {"anon": True}),
        ("s3a://b/k", {"s3": {"anon": True}}, {"anon": True}),
        ("s3a://b/k", {"s3": {"anon": True}, "s3a": {"anon": False}}, {"anon": False}),
        ("gcs://b/k", {"gs": {"project": "p"}}, {"project": "p"}),
        ("memory://b/k", {}, {}),
    ],
)
def test_options_are_those_of_the_scheme_and_of_its_other_names(
    monkeypatch: pytest.MonkeyPatch, uri: str, options: Any, expected: Any
) -> None:
    import fsspec

    seen: dict[str, Any] = {}

    def url_to_fs(url: str, **given: Any) -> tuple[None, str]:
        seen.update(given)
        return None, url

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    bootstrap.filesystem(uri, options)

    assert seen == expected


def test_a_store_of_any_file_system_is_read_and_written() -> None:
    bootstrap.write("memory://job/a.json", b"data", {})

    assert bootstrap.read("memory://job/a.json", {}) == b"data"


def test_the_digest_of_content_follows_names_and_hashes_in_any_order() -> None:
    assert digest_of({"a": "1", "b": "2"}) == digest_of({"b": "2", "a": "1"})
    assert digest_of({"a": "1", "b": "2"}) != digest_of({"a": "2", "b": "1"})
