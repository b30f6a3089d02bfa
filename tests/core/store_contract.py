"""What every artifact store must do; a test class inherits it and gives a ``store`` fixture."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_dbnd.core.digest import FILE_SCHEME, bytes_digest, file_checksum
from airflow_provider_dbnd.core.storage.folders import part_name
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.parts import LISTING, Listing, Part
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, ArtifactNotFoundError

MB = 2**20


def checksum_of(data: bytes) -> str:
    """Return the checksum of a file that holds *data*."""
    return FILE_SCHEME + bytes_digest(data)


def commit(store: ArtifactStore, name: str, data: bytes) -> str:
    """Write *data* the way a task's output is written."""
    with store.staging() as staged:
        Path(staged).write_bytes(data)
        return store.commit(staged, name, checksum=checksum_of(data))


def commit_elsewhere(pickled: bytes, name: str, data: bytes) -> str:
    """Commit in another process."""
    return commit(pickle.loads(pickled), name, data)


def put_elsewhere(pickled: bytes, name: str, data: bytes) -> bool:
    """Try to be the one who writes *name*."""
    try:
        pickle.loads(pickled).put_bytes(name, data)
    except ArtifactCorruptedError:
        return False
    return True


def stage(store: ArtifactStore, staged: str, name: str, data: bytes, tmp_path: Path) -> None:
    """Write a file to a staging folder the way another process would."""
    local = tmp_path / "written-elsewhere"
    local.write_bytes(data)
    store.publish(str(local), f"{staged}/{name}")


def listing_of(*parts: bytes) -> Listing:
    """Return the list of parts with these bytes."""
    checksums = [checksum_of(data) for data in parts]
    named = (
        Part(name=part_name(number, checksum, "bin"), size=len(data), checksum=checksum, rows=1)
        for number, (data, checksum) in enumerate(zip(parts, checksums, strict=True))
    )
    return Listing(parts=tuple(named), schema="")


def commit_parts(store: ArtifactStore, name: str, tmp_path: Path, *parts: bytes) -> str:
    """Write a folder of *parts* the way Spark's executors do."""
    listing = listing_of(*parts)
    sources = {}
    with store.folders.staging() as staged:
        for number, (part, data) in enumerate(zip(listing.parts, parts, strict=True)):
            sources[part.name] = f"part-{number}-written"
            stage(store, staged, sources[part.name], data, tmp_path)
        stage(store, staged, "_SUCCESS", b"", tmp_path)
        return store.folders.commit(staged, name, listing, sources=sources)


PARTS = (b"first", b"", b"x" * 100_000)


class StoreContract:
    #: Sizes of one piece, of exactly one piece, and of several parts.
    sizes: tuple[int, ...] = (0, 1, 8 * MB, 8 * MB + 1, 20 * MB + 7)
    writers = 8
    across_processes = True

    def test_bytes_come_back_whatever_the_size(self, store: ArtifactStore, tmp_path: Path) -> None:
        for size in self.sizes:
            data = os.urandom(size)

            uri = commit(store, key("p", "t", f"{size}.bin"), data)
            path = store.fetch(uri, size=size, checksum=checksum_of(data), into=str(tmp_path))

            assert Path(path).read_bytes() == data, size
            assert uri == f"{store.url}/p/t/{size}.bin"

    @pytest.mark.parametrize(
        "data",
        [b"\r", b"a\n", b"a\r\n", b"\r\n\r\n", b"a\n--==0==\nb", b"a\r\n--==0==--", b"--==0==--"],
    )
    def test_bytes_that_look_like_a_clients_framing_come_back(
        self, store: ArtifactStore, data: bytes, tmp_path: Path
    ) -> None:
        """gcsfs sends small objects as MIME parts: https://www.rfc-editor.org/rfc/rfc2046#section-5.1."""
        uri = commit(store, "a.bin", data)
        path = store.fetch(uri, size=len(data), checksum=checksum_of(data), into=str(tmp_path))

        assert Path(path).read_bytes() == data
        store.put_bytes("b", data)
        assert store.get_bytes("b") == data

    def test_fetch_needs_neither_size_nor_checksum(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = commit(store, "a.bin", b"x" * 1000)

        assert Path(store.fetch(uri, into=str(tmp_path))).read_bytes() == b"x" * 1000

    def test_a_second_fetch_leaves_a_mapped_first_one_alone(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = commit(store, "a.bin", b"x" * 10_000)
        path = store.fetch(uri, into=str(tmp_path))

        with open(path, "rb") as first, mmap.mmap(first.fileno(), 0, access=mmap.ACCESS_READ) as m:
            again = store.fetch(uri, into=str(tmp_path))

            assert m[:] == b"x" * 10_000
        assert Path(again).read_bytes() == b"x" * 10_000
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]

    def test_the_same_content_again_is_success(self, store: ArtifactStore) -> None:
        for data in (b"small", os.urandom(9 * MB)):
            name = f"{len(data)}.bin"

            assert commit(store, name, data) == commit(store, name, data)
            assert store.put_bytes("again", b"x") == store.put_bytes("again", b"x")

    def test_other_content_under_a_key_is_refused_and_changes_nothing(
        self, store: ArtifactStore
    ) -> None:
        uri = commit(store, "a.bin", b"first")

        with pytest.raises(ArtifactCorruptedError) as error:
            commit(store, "a.bin", b"second, longer")

        assert str(error.value) == (
            f"{uri} is damaged or was changed: expected 14 bytes, found 5. "
            f"Delete it and run the task that makes it again"
        )
        assert store.get_bytes("a.bin") == b"first"

    def test_put_bytes_creates_once_and_overwrites_on_request(self, store: ArtifactStore) -> None:
        uri = store.put_bytes("m.json", b"{}")

        with pytest.raises(ArtifactCorruptedError, match="exists with other content"):
            store.put_bytes("m.json", b"[]")
        assert store.get_bytes(uri) == b"{}"

        store.put_bytes("m.json", b"[1]", overwrite=True)
        assert store.get_bytes("m.json") == b"[1]"

    def test_any_name_makes_an_object_of_its_own(self, store: ArtifactStore) -> None:
        names = ["..", ".", "a/b", "a b", "a:b", "a%20b", "ü", "~", "*?[x]", ".staging", "#", "a\n"]
        for number, name in enumerate(names):
            store.put_bytes(key("names", name), bytes([number]))

        assert {store.get_bytes(key("names", name)) for name in names} == {
            bytes([number]) for number in range(len(names))
        }
        assert {info.key for info in store.list("names")} == {key("names", name) for name in names}

    @pytest.mark.parametrize(
        "name", ["", "..", "../a", "a/../../b", "a//b", "/a", "a/.", "a b", "ü"]
    )
    def test_what_is_not_a_key_is_refused(self, store: ArtifactStore, name: str) -> None:
        with pytest.raises(ValueError, match="is not a key; make one of names with"):
            store.put_bytes(name, b"")

    def test_list_gives_each_object_below_a_folder(self, store: ArtifactStore) -> None:
        commit(store, "a/1.bin", b"1")
        commit(store, "a/b/22.bin", b"22")
        commit(store, "ab/3.bin", b"3")

        assert {(info.key, info.size) for info in store.list("a")} == {
            ("a/1.bin", 1),
            ("a/b/22.bin", 2),
        }
        assert {info.key for info in store.list()} == {"a/1.bin", "a/b/22.bin", "ab/3.bin"}
        assert list(store.list("nothing/here")) == []
        assert all(info.mtime > 1.6e9 for info in store.list())

    def test_delete_removes_and_may_be_repeated(self, store: ArtifactStore) -> None:
        commit(store, "a.bin", b"1")

        store.delete("a.bin")
        store.delete("a.bin")

        assert not store.exists("a.bin")
        assert list(store.list()) == []

    def test_a_folder_is_not_an_object(self, store: ArtifactStore) -> None:
        commit(store, "a/b.bin", b"1")

        assert store.exists("a/b.bin")
        assert not store.exists("a")

    def test_missing_object_is_named_with_what_was_expected(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = store.uri("p/none.bin")

        with pytest.raises(ArtifactNotFoundError) as error:
            store.fetch(uri, size=3, checksum="blake3:00", into=str(tmp_path))
        with pytest.raises(ArtifactNotFoundError):
            store.get_bytes("p/none.bin")

        assert str(error.value).startswith(
            f"{uri} is not there: expected 3 bytes, blake3:00, found nothing. "
        )
        assert "run the task that makes it again" in str(error.value)

    @pytest.mark.parametrize("change", [-1000, -1, 1, 1000])
    def test_truncated_or_longer_object_is_never_handed_out(
        self, store: ArtifactStore, tmp_path: Path, change: int
    ) -> None:
        data = os.urandom(2000)
        uri = commit(store, "a.bin", data)
        store.put_bytes("a.bin", (data + bytes(1000))[: 2000 + change], overwrite=True)

        with pytest.raises(ArtifactCorruptedError) as error:
            store.fetch(uri, size=2000, into=str(tmp_path))

        assert f"expected 2000 bytes, found {2000 + change}" in str(error.value)

    def test_large_object_cut_at_a_part_is_noticed(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = commit(store, "a.bin", bytes(8 * MB))

        with pytest.raises(ArtifactCorruptedError, match="found 8388608"):
            store.fetch(uri, size=24 * MB, into=str(tmp_path))

    def test_tampered_object_of_the_same_size_is_noticed(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = commit(store, "a.bin", b"original")
        store.put_bytes("a.bin", b"tampered", overwrite=True)

        with pytest.raises(ArtifactCorruptedError) as error:
            store.fetch(uri, size=8, checksum=checksum_of(b"original"), into=str(tmp_path))

        assert f"expected {checksum_of(b'original')}" in str(error.value)
        assert f"found {checksum_of(b'tampered')}" in str(error.value)

    def test_threads_writing_the_same_content_all_succeed(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        for size in (100, 9 * MB):
            data = os.urandom(size)
            start = threading.Barrier(self.writers)

            def write(_: int, data: bytes = data, start: threading.Barrier = start) -> str:
                start.wait()
                return commit(store, f"{len(data)}.bin", data)

            with ThreadPoolExecutor(self.writers) as pool:
                uris = set(pool.map(write, range(self.writers)))

            assert len(uris) == 1
            path = store.fetch(uris.pop(), size=size, into=str(tmp_path))
            assert file_checksum(path) == checksum_of(data)

    def test_of_threads_writing_other_content_one_wins(self, store: ArtifactStore) -> None:
        pickled = pickle.dumps(store)
        for attempt in range(3):
            start = threading.Barrier(self.writers)

            def write(
                number: int, name: str = f"m{attempt}", start: threading.Barrier = start
            ) -> bool:
                start.wait()
                return put_elsewhere(pickled, name, b"%d" % number)

            with ThreadPoolExecutor(self.writers) as pool:
                won = list(pool.map(write, range(self.writers)))

            assert sum(won) == 1
            assert store.get_bytes(f"m{attempt}") == b"%d" % won.index(True)

    def test_processes_writing_the_same_content_all_succeed(self, store: ArtifactStore) -> None:
        if not self.across_processes:
            pytest.skip("this store lives in one process")
        data = os.urandom(9 * MB)
        store.exists("connected.before")

        with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
            tasks = [
                pool.submit(commit_elsewhere, pickle.dumps(store), "a.bin", data) for _ in range(3)
            ]
            assert {task.result(timeout=60) for task in tasks} == {store.uri("a.bin")}

        assert store.get_bytes("a.bin") == data

    def test_a_failed_write_leaves_nothing(self, store: ArtifactStore) -> None:
        with store.staging() as staged:
            Path(staged).write_bytes(b"half")

        assert not os.path.exists(staged)
        assert list(store.list()) == []

    def test_publish_overwrites_in_one_step(self, store: ArtifactStore, tmp_path: Path) -> None:
        local = tmp_path / "report.csv"
        uri = f"{store.url}/out/report 1.csv"
        for data in (b"old and longer", b"new"):
            local.write_bytes(data)

            assert store.publish(str(local), uri) == uri
            assert store.get_bytes(uri) == data

        assert local.exists()
        assert store.expand(f"{store.url}/out", "") == [uri]

    def test_inputs_are_files_lists_folders_and_globs(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        empty = tmp_path / "empty"
        empty.write_bytes(b"1")
        for name in ("b.csv", "a 1.csv", "sub/c.csv", "_SUCCESS", ".hidden.csv", "d.txt"):
            store.publish(str(empty), f"{store.url}/in/{name}")
        base = f"{store.url}/in"

        assert store.expand("b.csv", base) == [f"{base}/b.csv"]
        assert store.expand(["b.csv", f"{base}/a 1.csv"], base) == [
            f"{base}/b.csv",
            f"{base}/a 1.csv",
        ]
        assert store.expand(base, "/") == [
            f"{base}/{name}" for name in ("a 1.csv", "b.csv", "d.txt", "sub/c.csv")
        ]
        assert store.expand("*.csv", base) == [f"{base}/a 1.csv", f"{base}/b.csv"]
        assert store.expand(f"{base}/**/*.csv", base)[-1] == f"{base}/sub/c.csv"

    @pytest.mark.parametrize("pattern", ["nothing.csv", "*.nothing", "no/folder"])
    def test_inputs_that_match_nothing_are_named(self, store: ArtifactStore, pattern: str) -> None:
        with pytest.raises(ArtifactNotFoundError) as error:
            store.expand(pattern, store.url)

        assert str(error.value) == (
            f"{pattern!r} matches no file: expected a file, a folder with files or a pattern at "
            f"{store.url}/{pattern}. Relative paths start from {store.url}"
        )

    def test_an_input_is_fetched_with_its_checksum(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = commit(store, "in.csv", b"a,b\n")

        fetched = store.fetch_input(uri, str(tmp_path))

        assert Path(fetched.path).read_bytes() == b"a,b\n"
        assert fetched.path.endswith(".csv")
        assert (fetched.size, fetched.checksum) == (4, checksum_of(b"a,b\n"))

    def test_an_input_that_is_replaced_while_it_is_read_comes_whole(
        self, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "old").write_bytes(b"a" * 9 * MB)
        (tmp_path / "new").write_bytes(b"b" * 11 * MB)
        uri = store.publish(str(tmp_path / "old"), f"{store.url}/in/x.csv")
        fs = store.filesystem(uri)
        info, versions = fs.info, [str(tmp_path / "new")]

        def replaced_when_looked_at(path: str) -> object:
            found = info(path)
            if versions:
                store.publish(versions.pop(), uri)
            return found

        monkeypatch.setattr(fs, "info", replaced_when_looked_at)

        fetched = store.fetch_input(uri, str(tmp_path / "into"))

        expected = b"b" * 11 * MB if store.medium == "remote" else b"a" * 9 * MB
        assert Path(fetched.path).read_bytes() == expected

    def test_store_survives_a_fork(self, store: ArtifactStore) -> None:
        """Airflow's executors fork; a connection made before must not be shared."""
        commit(store, "before.bin", b"1")
        reading, writing = os.pipe()

        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing, store.get_bytes("before.bin"))
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(pid, 0)

        assert answer == b"1"

    def test_repr_shows_the_url_only(self, store: ArtifactStore) -> None:
        assert repr(store) == f"ArtifactStore({store.url!r})"

    def test_a_folder_comes_back_whole(self, store: ArtifactStore, tmp_path: Path) -> None:
        listing = listing_of(*PARTS)

        uri = commit_parts(store, "p/t/a.parquet", tmp_path, *PARTS)
        folder = store.fetch(
            uri, size=listing.size, checksum=listing.checksum, into=str(tmp_path / "into")
        )

        assert uri == f"{store.url}/p/t/a.parquet"
        assert [Path(folder, part.name).read_bytes() for part in listing.parts] == list(PARTS)
        assert Path(folder, LISTING).read_bytes() == listing.to_bytes()
        assert store.exists("p/t/a.parquet")
        assert store.exists(uri)
        assert store.folders.listing(uri, checksum=listing.checksum) == listing
        names = {info.key for info in store.list()}
        assert names == {f"p/t/a.parquet/{name}" for name in store.folders.files(uri)}
        assert names == {f"p/t/a.parquet/{part.name}" for part in listing.parts} | {
            f"p/t/a.parquet/{LISTING}"
        }

    def test_a_folder_given_as_an_input_is_its_parts(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = commit_parts(store, "a.parquet", tmp_path, *PARTS)

        parts = [f"{uri}/{part.name}" for part in listing_of(*PARTS).parts]
        assert store.expand(uri, "") == parts
        survey = store.survey("a.parquet", store.url)
        assert (survey.uri, list(survey.uris), survey.folder) == (uri, parts, True)
        assert survey.size == listing_of(*PARTS).size
        assert store.survey(parts[0], "").folder is False

    def test_an_input_that_changes_has_another_survey(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        store.put_bytes("in.csv", b"a,b\n")
        before = store.survey("in.csv", store.url)

        assert store.survey("in.csv", store.url) == before
        store.put_bytes("in.csv", b"a,b,c\n", overwrite=True)
        assert store.survey("in.csv", store.url).checksum != before.checksum

    def test_what_is_staged_is_no_object_and_is_gone_at_the_end(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        commit(store, "a.bin", b"1")
        with store.folders.staging() as staged:
            stage(store, staged, "part-0", b"half", tmp_path)

            assert staged.startswith(f"{store.url}/")
            assert store.folders.files(staged) == {"part-0": 4}
            assert [info.key for info in store.list()] == ["a.bin"]

        assert store.expand(store.url, "") == [f"{store.url}/a.bin"]
        with pytest.raises(ArtifactNotFoundError):
            store.folders.files(staged)

    def test_local_files_of_a_folder_come_one_at_a_time(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = commit_parts(store, "a.parquet", tmp_path, *PARTS)
        names = [part.name for part in listing_of(*PARTS).parts]

        seen = [
            (name, Path(path).read_bytes())
            for name, path in store.folders.local_files(uri, names, str(tmp_path / "into"))
        ]

        assert seen == list(zip(names, PARTS, strict=True))
        assert not list((tmp_path / "into").glob("*"))

    def test_two_writers_of_one_folder_agree(self, store: ArtifactStore, tmp_path: Path) -> None:
        folders = [tmp_path / str(number) for number in range(4)]
        for folder in folders:
            folder.mkdir()
        start = threading.Barrier(len(folders))

        def write(folder: Path) -> str:
            start.wait()
            return commit_parts(store, "a.parquet", folder, *PARTS)

        with ThreadPoolExecutor(len(folders)) as pool:
            uris = set(pool.map(write, folders))

        listing = listing_of(*PARTS)
        assert uris == {store.uri("a.parquet")}
        assert commit_parts(store, "a.parquet", tmp_path, *PARTS) in uris
        store.fetch(uris.pop(), checksum=listing.checksum, into=str(tmp_path / "into"))

    def test_a_folder_is_not_there_before_its_list_is(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        """The leftovers of a writer that was killed are completed by the next one."""
        listing = listing_of(*PARTS)
        commit(store, f"a.parquet/{listing.parts[0].name}", PARTS[0])

        assert not store.exists("a.parquet")
        with pytest.raises(
            ArtifactNotFoundError, match=rf"a\.parquet is not there: .*{listing.checksum}"
        ):
            store.fetch(store.uri("a.parquet"), checksum=listing.checksum, into=str(tmp_path / "i"))

        uri = commit_parts(store, "a.parquet", tmp_path, *PARTS)
        store.fetch(uri, checksum=listing.checksum, into=str(tmp_path / "into"))

    def test_another_folder_under_a_key_is_refused_and_changes_nothing(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = commit_parts(store, "a.parquet", tmp_path, *PARTS)

        with pytest.raises(ArtifactCorruptedError) as error:
            commit_parts(store, "a.parquet", tmp_path, b"other")

        assert f"{uri}/{LISTING} is damaged or was changed: expected parts:" in str(error.value)
        store.fetch(uri, checksum=listing_of(*PARTS).checksum, into=str(tmp_path / "into"))

    def test_a_missing_part_is_named(self, store: ArtifactStore, tmp_path: Path) -> None:
        listing = listing_of(*PARTS)
        uri = commit_parts(store, "a.parquet", tmp_path, *PARTS)
        store.delete(f"a.parquet/{listing.parts[2].name}")

        with pytest.raises(ArtifactNotFoundError) as error:
            store.fetch(uri, checksum=listing.checksum, into=str(tmp_path / "into"))

        assert str(error.value) == (
            f"{uri}/{listing.parts[2].name} is not there: expected 100000 bytes, "
            f"{listing.parts[2].checksum}, found nothing. Delete the folder and run the task that "
            "makes it again"
        )

    @pytest.mark.parametrize("data", [b"firs", b"first!", b"wrong"], ids=["cut", "longer", "other"])
    def test_a_damaged_part_is_named(
        self, store: ArtifactStore, tmp_path: Path, data: bytes
    ) -> None:
        listing = listing_of(*PARTS)
        uri = commit_parts(store, "a.parquet", tmp_path, *PARTS)
        store.put_bytes(f"a.parquet/{listing.parts[0].name}", data, overwrite=True)

        with pytest.raises(ArtifactCorruptedError, match=listing.parts[0].name):
            store.fetch(uri, checksum=listing.checksum, into=str(tmp_path / "into"))
        if len(data) != len(PARTS[0]):
            with pytest.raises(
                ArtifactCorruptedError, match=rf"expected 5 bytes, found {len(data)}"
            ):
                store.folders.listing(uri, checksum=listing.checksum)

    def test_a_part_too_many_is_named(self, store: ArtifactStore, tmp_path: Path) -> None:
        listing = listing_of(*PARTS)
        uri = commit_parts(store, "a.parquet", tmp_path, *PARTS)
        commit(store, "a.parquet/part-9.bin", b"1")

        with pytest.raises(
            ArtifactCorruptedError, match=r"expected 3 parts, found part-9\.bin besides"
        ):
            store.folders.listing(uri, checksum=listing.checksum)

    def test_a_changed_list_of_parts_is_named(self, store: ArtifactStore, tmp_path: Path) -> None:
        listing = listing_of(*PARTS)
        uri = commit_parts(store, "a.parquet", tmp_path, *PARTS)
        other = listing_of(*PARTS[:2])
        for data in (other.to_bytes(), b"", b"{}"):
            store.put_bytes(f"a.parquet/{LISTING}", data, overwrite=True)

            with pytest.raises(
                ArtifactCorruptedError, match=f"expected {listing.checksum}, found parts:"
            ):
                store.folders.listing(uri, checksum=listing.checksum)
        store.put_bytes(f"a.parquet/{LISTING}", other.to_bytes(), overwrite=True)
        with pytest.raises(
            ArtifactCorruptedError, match=rf"expected {listing.size} bytes, found 5 in"
        ):
            store.folders.listing(uri, checksum=other.checksum, size=listing.size)

    def test_publishing_a_folder_replaces_the_one_before(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        target = f"{store.url}/out/mart 1.parquet"
        for parts in (PARTS, (b"first", b"new")):
            uri = commit_parts(store, f"{len(parts)}.parquet", tmp_path, *parts)
            listing = listing_of(*parts)

            assert store.folders.publish(uri, listing, target) == target
            assert store.expand(target, "") == [f"{target}/{part.name}" for part in listing.parts]
            assert store.fetch(target, checksum=listing.checksum, into=str(tmp_path / "into"))

    def test_a_folder_was_written_when_its_list_was(self, store: ArtifactStore) -> None:
        assert store.written("folder") is None

        store.put_bytes("folder/part-00000-000000000000.bin", b"x")
        assert store.written("folder") is None
        assert not store.exists("folder")

        store.put_bytes(f"folder/{LISTING}", b"{}")
        assert store.exists("folder")
        assert store.written("folder") == store.written(f"folder/{LISTING}")

    def test_a_file_is_sent_while_it_is_written(self, store: ArtifactStore, tmp_path: Path) -> None:
        if not store.takes_parts:
            pytest.skip("this store takes whole objects only")
        data, other = os.urandom(20 * MB), os.urandom(20 * MB)
        for name, content in (("f", data), ("g", other)):
            (tmp_path / name).write_bytes(content)
            with store.sending(str(tmp_path / name), "a.bin") as sending:
                sending.grown(9 * MB)
                sending.grown(20 * MB)
            assert sending.done == (name == "f")

        assert store.get_bytes("a.bin") == data
        assert store.has_end("a.bin", str(tmp_path / "f"), MB)
        assert not store.has_end("a.bin", str(tmp_path / "g"), MB)

    def test_ranges_are_read_of_an_open_object(self, store: ArtifactStore) -> None:
        uri = commit(store, "a.bin", bytes(range(200)))

        with store.open(uri, size=200) as file:
            file.seek(100)
            assert file.read(3) == bytes([100, 101, 102])
        with pytest.raises(ArtifactCorruptedError, match="expected 199 bytes, found 200"):
            store.open(uri, size=199)
        with pytest.raises(ArtifactNotFoundError, match="is not there: expected 1 bytes"):
            store.open(store.uri("none"), size=1)
