"""Which code travels with a task, and under which name it is kept."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.core.remote import libraries, project_files
from airflow_provider_dbnd.core.remote.bundle import (
    CODE,
    Archive,
    is_installed,
    project_archive,
    project_root,
    runner_archives,
)
from airflow_provider_dbnd.core.remote.project_files import ProjectFiles
from airflow_provider_dbnd.core.settings import Settings, load_settings
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import CodeDeliveryError, ConfigurationError

FILES = {
    "flow.py": "import helpers",
    "helpers.py": "X = 1",
    "data/rates.csv": "a,b\n",
    "team/__init__.py": "",
    "team/deep/names.py": "NAMES = []",
    "space in it/ü.txt": "ü",
}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return written(tmp_path / "project", FILES)


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@contextlib.contextmanager
def not_as_root() -> Iterator[None]:
    """Be somebody whom the file system may refuse something."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def archive(store: ArtifactStore, folder: Path, **bundle: Any) -> Archive:
    settings = Settings(base=str(folder), store=store.url, store_source="", bundle=bundle)
    return project_archive(store, str(folder), settings)


def contents(store: ArtifactStore, of: Archive) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(store.get_bytes(of.uri))) as zipped:
        return {name: zipped.read(name).decode() for name in zipped.namelist()}


def travelling(store: ArtifactStore, folder: Path, **bundle: Any) -> set[str]:
    return set(contents(store, archive(store, folder, **bundle)))


class TestWhatTravels:
    def test_modules_packages_without_init_and_data_files_do(
        self, store: ArtifactStore, project: Path
    ) -> None:
        assert contents(store, archive(store, project)) == FILES

    @pytest.mark.parametrize(
        "name",
        [
            ".env",
            ".git/config",
            "team/.secrets/key.pem",
            "team/__pycache__/x.cpython-311.pyc",
            "old.pyc",
            "node_modules/left/pad.js",
            "project.egg-info/PKG-INFO",
            "venv/pyvenv.cfg",
            "dbnd.toml",
        ],
    )
    def test_what_is_hidden_made_by_tools_or_a_setting_does_not(
        self, store: ArtifactStore, project: Path, name: str
    ) -> None:
        written(project, {name: "secret", "venv/lib/site.py": ""} if "venv" in name else {name: ""})

        assert travelling(store, project) == set(FILES)

    def test_a_settings_file_of_another_name_does_not_either(
        self, store: ArtifactStore, project: Path
    ) -> None:
        written(project, {"prod.toml": "[storage_options.s3]\nsecret = 's3cr3t'"})
        settings = load_settings(project, file=project / "prod.toml")

        found = contents(store, project_archive(store, str(project), settings))

        assert set(found) == set(FILES)

    @pytest.mark.parametrize("name", ["kept", "linked"])
    def test_the_store_itself_does_not(self, project: Path, name: str) -> None:
        (project / "kept").mkdir()
        (project / "linked").symlink_to(project / "kept")
        store = ArtifactStore(str(project / name))
        store.put_bytes("p/t/result/ab.bin", b"data")

        assert travelling(store, project) == set(FILES)

    @pytest.mark.parametrize(
        "pattern", ["data", "data/", "./data", "data/*", "*.csv", "data/rates.csv", "dat[a]"]
    )
    def test_what_a_pattern_excludes_does_not(
        self, store: ArtifactStore, project: Path, pattern: str
    ) -> None:
        assert travelling(store, project, exclude=[pattern]) == set(FILES) - {"data/rates.csv"}

    def test_linked_files_and_folders_do_as_python_would_import_them(
        self, store: ArtifactStore, project: Path, tmp_path: Path
    ) -> None:
        shared = written(tmp_path / "shared", {"lib/common.py": "", "one.py": ""})
        (project / "lib").symlink_to(shared / "lib")
        (project / "one.py").symlink_to(shared / "one.py")
        (project / "loop").symlink_to(project)
        (project / "dangling.py").symlink_to(tmp_path / "nowhere.py")

        assert travelling(store, project) == {*FILES, "lib/common.py", "one.py"}

    def test_folders_that_lead_into_each_other_do_once(
        self, store: ArtifactStore, project: Path, tmp_path: Path
    ) -> None:
        shared = written(tmp_path / "shared", {"a.py": ""})
        (project / "shared").symlink_to(shared)
        (shared / "back").symlink_to(project)

        assert travelling(store, project) == {*FILES, "shared/a.py"}

    def test_a_pipe_does_not(self, store: ArtifactStore, project: Path) -> None:
        os.mkfifo(project / "pipe")

        assert travelling(store, project) == set(FILES)


class TestRefused:
    def test_too_large_a_project_names_its_largest_files(
        self, store: ArtifactStore, project: Path
    ) -> None:
        for size in range(1, 8):
            (project / f"frame{size}.bin").write_bytes(bytes(size * 2**18))

        with pytest.raises(CodeDeliveryError) as error:
            archive(store, project, max_mb=2)

        assert "expected at most 2 MB, got 7.0 MB. The largest files are frame7.bin (1.8 MB), " in (
            str(error.value)
        )
        assert "frame2.bin" not in str(error.value)
        assert "[bundle] exclude of dbnd.toml, or raise [bundle] max_mb" in str(error.value)

    @pytest.mark.parametrize("name", ["data", "flow.py"])
    def test_what_may_not_be_read_is_named(self, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:  # tmp_path is its owner's alone
            project = written(Path(folder), FILES)
            project.chmod(0o755)
            (project / name).chmod(0)
            settings = Settings(base=folder, store="", store_source="")
            files = ProjectFiles(folder, settings, ArtifactStore("memory://s"))

            with not_as_root(), pytest.raises(CodeDeliveryError) as error:
                files.contents()

            (project / name).chmod(0o755)
        assert f"/{name} in the project's folder {folder} cannot be read: Permission denied" in (
            str(error.value)
        )

    def test_what_an_operating_system_refuses_to_read_is_named(
        self, store: ArtifactStore, project: Path
    ) -> None:
        # Reading its start fails, for anybody.
        (project / "memory.py").symlink_to("/proc/self/mem")

        with pytest.raises(
            CodeDeliveryError, match=r"memory.py in .*: Input/output error.*exclude"
        ):
            archive(store, project)

    def test_a_name_that_is_not_utf8_is_named(self, store: ArtifactStore, project: Path) -> None:
        with open(os.fsencode(project) + b"/\xff.py", "w"):
            pass

        with pytest.raises(CodeDeliveryError, match=r"'\\udcff.py'.* has a name that is not UTF-8"):
            archive(store, project)

    @pytest.mark.parametrize(
        "bundle", [{"exclude": "data"}, {"exclude": [1]}, {"max_mb": "50"}, {"excludes": []}]
    )
    def test_wrong_settings_say_what_is_expected(
        self, store: ArtifactStore, project: Path, bundle: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"expected exclude \(a list of patterns\)"):
            archive(store, project, **bundle)


class TestFilesThatComeAndGo:
    def test_a_file_that_vanishes_while_it_is_read_is_left_out(
        self, store: ArtifactStore, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = project_files.read_all
        temporary = [project / f"temporary{number}~" for number in range(2)]
        for path in temporary:
            path.write_text("x")

        def read_late(paths: Any) -> Any:
            if temporary:
                temporary.pop().unlink()
            return read(paths)

        monkeypatch.setattr(project_files, "read_all", read_late)

        assert travelling(store, project) == set(FILES)

    def test_a_file_that_is_away_for_a_moment_travels(
        self, store: ArtifactStore, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = project_files.read_all
        flow = project / "flow.py"
        code = flow.read_text()

        def read_late(paths: Any) -> Any:
            if not pauses:
                flow.unlink()
            return read(paths)

        def sleep(seconds: float) -> None:
            if seconds:
                pauses.append(seconds)
                flow.write_text(code)

        pauses: list[float] = []
        monkeypatch.setattr(project_files, "read_all", read_late)
        monkeypatch.setattr(time, "sleep", sleep)

        assert travelling(store, project) == set(FILES)

    def test_a_project_that_never_holds_still_is_refused(
        self, store: ArtifactStore, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = project_files.read_all

        def read_late(paths: Any) -> Any:
            (project / "flow.py").unlink(missing_ok=True)
            return read(paths)

        def listed_again(self: Any) -> Any:
            (project / "flow.py").write_text("")
            return files(self)

        files = project_files.ProjectFiles._files
        monkeypatch.setattr(project_files, "read_all", read_late)
        monkeypatch.setattr(project_files.ProjectFiles, "_files", listed_again)

        with pytest.raises(CodeDeliveryError, match=r"does not hold still: .*flow.py vanished"):
            archive(store, project)


class TestTheNameOfAnArchive:
    def test_is_the_same_for_the_same_files_on_any_day_in_any_folder(
        self, store: ArtifactStore, project: Path, tmp_path: Path
    ) -> None:
        other = written(tmp_path / "elsewhere" / "copy", dict(reversed(FILES.items())))
        for path in other.rglob("*"):
            os.utime(path, (1_000_000_000, 1_000_000_000))
            path.chmod(0o755)

        assert archive(store, other) == archive(store, project)

    @pytest.mark.parametrize(
        "change",
        [{"helpers.py": "X = 2"}, {"new.py": ""}, {"data/rates.csv": "a,c\n"}],
    )
    def test_is_another_for_other_files(
        self, store: ArtifactStore, project: Path, change: dict[str, str]
    ) -> None:
        before = archive(store, project)
        written(project, change)

        assert archive(store, project).digest != before.digest

    def test_is_another_for_other_bytes_of_one_size_and_time(
        self, store: ArtifactStore, project: Path
    ) -> None:
        path = project / "helpers.py"
        os.utime(path, (1, 1))
        before = archive(store, project)
        path.write_text("X = 3")
        os.utime(path, (1, 1))

        assert archive(store, project).digest != before.digest

    def test_tells_a_renamed_file_and_moved_content_apart(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        pairs = [{"a": "1", "b": "2"}, {"a": "2", "b": "1"}, {"ab": "1", "b": "2"}, {"a": "1\nb"}]
        digests = {
            archive(store, written(tmp_path / str(n), files)).digest
            for n, files in enumerate(pairs)
        }

        assert len(digests) == len(pairs)

    def test_stays_with_what_is_stored_already(self, store: ArtifactStore, project: Path) -> None:
        archive(store, project)
        list(runner_archives(store))
        before = {each.key: each.mtime for each in store.list(CODE)}

        archive(store, project)
        list(runner_archives(store))

        assert {each.key: each.mtime for each in store.list(CODE)} == before


class TestOurOwnCode:
    def test_travels_with_what_it_needs_and_no_airflow(self, store: ArtifactStore) -> None:
        found = {each.module or each.kind: each for each in runner_archives(store)}

        assert set(found) >= {"runner", "pydantic", "blake3", "xxhash", "fsspec"}
        assert (found["runner"].python, found["fsspec"].python) == (None, None)
        assert "cpython" in str(found["pydantic"].python)
        names = {name.partition("/")[0] for name in read_names(store, found["pydantic"])}
        assert {"pydantic", "pydantic_core", "typing_extensions.py"} <= names
        assert {n.partition("/")[0] for n in read_names(store, found["runner"])} == {
            "airflow_provider_dbnd"
        }

    def test_is_read_again_where_a_library_was_changed_after_it_was_installed(
        self, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = written(
            tmp_path / "site-packages",
            {
                "blake3.py": "ONE = 1",
                "blake3-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: blake3\nVersion: 1.0",
                "blake3-1.0.dist-info/RECORD": "blake3.py,sha256=AAAA,7\n"
                "blake3-1.0.dist-info/METADATA,,\n",
            },
        )
        monkeypatch.setattr(libraries, "LIBRARIES", {"blake3": ("blake3",)})
        monkeypatch.setattr("airflow_provider_dbnd.core.remote.bundle.LIBRARIES", {"blake3": 0})
        monkeypatch.syspath_prepend(str(site))
        libraries.library_files.cache_clear()
        try:
            (library,) = [each for each in runner_archives(store) if each.module == "blake3"]
        finally:
            libraries.library_files.cache_clear()

        assert contents(store, library)["blake3.py"] == "ONE = 1"

    def test_says_which_library_has_no_list_of_its_files(
        self, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(libraries.LIBRARIES, "blake3", ("no-such-library",))  # type: ignore[arg-type]
        libraries.library_files.cache_clear()
        try:
            with pytest.raises(CodeDeliveryError, match=r"library 'no-such-library' cannot travel"):
                list(runner_archives(store))
        finally:
            libraries.library_files.cache_clear()


def read_names(store: ArtifactStore, of: Archive) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(store.get_bytes(of.uri))) as zipped:
        return zipped.namelist()


class TestTheProjectsFolder:
    def root(self, file: Path, start: Path | None = None) -> str:
        return project_root(str(file), load_settings(start or file.parent))

    def test_is_that_of_dbnd_toml_above_the_file(self, tmp_path: Path) -> None:
        written(tmp_path, {"dbnd.toml": "", "dags/team/flow.py": ""})

        assert self.root(tmp_path / "dags" / "team" / "flow.py") == str(tmp_path)

    def test_is_the_dags_folder_for_a_file_in_a_subfolder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written(tmp_path, {"dags/team/flow.py": "", "dags/team/__init__.py": ""})
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "dags")])

        assert self.root(tmp_path / "dags" / "team" / "flow.py") == str(tmp_path / "dags")

    def test_is_where_a_package_starts_that_is_on_no_path(self, tmp_path: Path) -> None:
        written(tmp_path, {"src/pkg/__init__.py": "", "src/pkg/sub/__init__.py": ""})

        assert self.root(tmp_path / "src" / "pkg" / "sub" / "flow.py") == str(tmp_path / "src")

    def test_is_the_same_behind_a_link_as_git_sync_makes_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written(tmp_path, {"rev1/dags/flow.py": ""})
        (tmp_path / "current").symlink_to(tmp_path / "rev1")
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "current" / "dags")])

        assert self.root(tmp_path / "current" / "dags" / "flow.py") == str(tmp_path / "rev1/dags")

    def test_is_not_that_of_settings_that_lie_elsewhere(self, tmp_path: Path) -> None:
        written(tmp_path, {"etc/dbnd.toml": "", "dags/flow.py": ""})
        settings = load_settings(tmp_path / "dags", file=tmp_path / "etc" / "dbnd.toml")

        assert project_root(str(tmp_path / "dags/flow.py"), settings) == str(tmp_path / "dags")


@pytest.mark.parametrize(
    ("file", "installed"),
    [
        (os.__file__, True),
        (pytest.__file__, True),
        ("/home/me/.local/lib/python3.11/site-packages/lib/tasks.py", True),
        ("/usr/lib/python3/dist-packages/lib/tasks.py", True),
        ("/opt/project/tasks.py", False),
        (__file__, False),
    ],
)
def test_installed_code_is_told_from_a_project(file: str, installed: bool) -> None:
    assert is_installed(file) is installed
