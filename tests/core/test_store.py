from __future__ import annotations

import functools
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.register_assert_rewrite("tests.core.store_contract")

from airflow_provider_dbnd.core.digest import file_checksum  # noqa: E402
from airflow_provider_dbnd.core.storage.keys import key  # noqa: E402
from airflow_provider_dbnd.core.storage.store import ArtifactStore  # noqa: E402
from airflow_provider_dbnd.exceptions import (  # noqa: E402
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ConfigurationError,
    StoreError,
)
from tests.core.store_contract import MB, StoreContract, checksum_of, commit  # noqa: E402


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ArtifactStore:
        return ArtifactStore(str(tmp_path / "a store"))

    def test_fetch_gives_the_object_itself(self, store: ArtifactStore, tmp_path: Path) -> None:
        uri = commit(store, "a.bin", b"x")

        path = store.fetch(uri, size=1, into=str(tmp_path / "unused"))

        assert f"file://{path}" == uri
        assert not (tmp_path / "unused").exists()

    def test_missing_file_tells_that_a_local_store_is_not_shared(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        with pytest.raises(
            ArtifactNotFoundError, match=r"set \[dbnd\] store to a bucket or a shar"
        ):
            store.fetch(store.uri("a.bin"), into=str(tmp_path))

    def test_a_folder_of_which_another_deletes_files_meanwhile_is_gone(
        self, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "staged"
        folder.mkdir()
        for number in range(5):
            (folder / f"{number}.bin").touch()
        unlink, theirs = os.unlink, iter([False, True])

        def after_another(path: str, **options: Any) -> None:
            if next(theirs, False):
                unlink(path, **options)
            unlink(path, **options)

        monkeypatch.setattr(os, "unlink", after_another)

        store.locate(store.url)[0].delete_folder(str(folder))

        assert not folder.exists()

    def test_a_folder_that_cannot_be_deleted_is_told(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(NotADirectoryError):
            store.locate(store.url)[0].delete_folder(str(tmp_path / "file"))

    def test_file_staged_on_another_file_system_is_copied(self, store: ArtifactStore) -> None:
        elsewhere = Path("/dev/shm") / f"dbnd-test-{os.getpid()}"
        if not elsewhere.parent.is_dir():
            pytest.skip("needs a second file system")
        elsewhere.write_bytes(b"from elsewhere")

        store.commit(str(elsewhere), "a.bin", checksum=checksum_of(b"from elsewhere"))

        assert store.get_bytes("a.bin") == b"from elsewhere"
        assert not elsewhere.exists()

    def test_same_size_other_content_is_refused(self, store: ArtifactStore) -> None:
        commit(store, "a.bin", b"original")

        with pytest.raises(ArtifactCorruptedError, match=r"expected blake3:.*, found blake3:"):
            commit(store, "a.bin", b"replaced")

    def test_leftovers_of_a_killed_process_tell_who_left_them(self, store: ArtifactStore) -> None:
        with store.staging(".parquet") as staged:
            host, pid, seconds, _, extension = Path(staged).name.rsplit(".", 4)

            assert (int(pid), extension) == (os.getpid(), "parquet")
            assert host
            assert abs(int(seconds) - time.time()) < 5
            assert list(store.list()) == []


class TestMemoryStore(StoreContract):
    across_processes = False

    @pytest.fixture
    def store(self) -> Iterator[ArtifactStore]:
        name = os.urandom(4).hex()
        yield ArtifactStore(f"memory://store/{name}")
        memory = fsspec.filesystem("memory")
        if memory.exists(f"/store/{name}"):
            memory.rm(f"/store/{name}", recursive=True)


WRITER = """
import os, sys
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.digest import FILE_SCHEME, bytes_digest
store = ArtifactStore(sys.argv[1])
print("ready", flush=True)
while True:
    data = os.urandom(1 + int.from_bytes(os.urandom(3), "big") // 8)
    checksum = FILE_SCHEME + bytes_digest(data)
    with store.staging() as staged:
        with open(staged, "wb") as target:
            target.write(data)
        store.commit(staged, f"big/{checksum[7:]}", checksum=checksum)
    store.put_bytes("small/" + checksum[7:], data[:500])
    store.put_bytes("latest", data[:500] * 100, overwrite=True)
"""


def test_killed_writer_never_leaves_a_half_written_object(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    for milliseconds in (0, 3, 11, 29, 47, 83):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(milliseconds / 1000)
            writer.send_signal(signal.SIGKILL)

    objects = list(store.list("big"))
    for info in objects:
        assert file_checksum(tmp_path / info.key) == "blake3:" + info.key.partition("/")[2]
        assert commit(store, info.key, store.get_bytes(info.key)) == store.uri(info.key)
    assert objects
    assert store.get_bytes("latest")


FOLDER_WRITER = """
import os, sys
from airflow_provider_dbnd.core.storage.folders import part_name
from airflow_provider_dbnd.core.digest import FILE_SCHEME, bytes_digest
from airflow_provider_dbnd.core.storage.parts import Listing, Part
from airflow_provider_dbnd.core.storage.store import ArtifactStore
store = ArtifactStore(sys.argv[1])
print("ready", flush=True)
while True:
    parts = []
    with store.folders.staging() as staged:
        os.makedirs(staged[7:])
        for number in range(20):
            data = os.urandom(500)
            checksum = FILE_SCHEME + bytes_digest(data)
            parts.append(Part(name=part_name(number, checksum, "bin"), size=500, checksum=checksum, rows=1))
            with open(staged[7:] + f"/{number}", "wb") as target:
                target.write(data)
        listing = Listing(parts=tuple(parts), schema="")
        sources = {part.name: str(number) for number, part in enumerate(parts)}
        store.folders.commit(staged, listing.checksum[6:], listing, sources=sources)
"""


def test_killed_writer_never_leaves_half_a_folder(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    for milliseconds in (0, 3, 11, 29, 47, 83):
        with subprocess.Popen(
            [sys.executable, "-c", FOLDER_WRITER, str(tmp_path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(milliseconds / 1000)
            writer.send_signal(signal.SIGKILL)

    found = {info.key.partition("/")[0] for info in store.list()}
    complete = {name for name in found if store.exists(name)}
    for name in complete:
        store.fetch(store.uri(name), checksum=f"parts:{name}", into="")
    for name in found - complete:
        with pytest.raises(ArtifactNotFoundError):
            store.fetch(store.uri(name), checksum=f"parts:{name}", into="")
    assert complete


def _limit_file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, MB))


FULL_DISK = """
import os, sys
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import StoreError
store = ArtifactStore(sys.argv[1])
store.put_bytes("before", b"1")
try:
    with store.staging() as staged, open(staged, "wb") as target:
        target.write(bytes(2**21))
except StoreError as error:
    print(error)
try:
    store.put_bytes("large", bytes(2**21))
except StoreError as error:
    print(error)
print(store.exists("large"), store.get_bytes("before"), [i.key for i in store.list()])
print(os.listdir(sys.argv[1] + "/.staging"))
remote = ArtifactStore("memory://remote")
uri = remote.put_bytes("large", bytes(2**21))
try:
    remote.fetch(uri, into=sys.argv[1] + "/into")
except StoreError as error:
    print(error)
"""


def test_full_disk_is_told_and_leaves_the_store_usable(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        preexec_fn=_limit_file_size,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert told == (
        f"cannot write below file://{tmp_path}: OSError: [Errno 27] File too large. The disk or "
        f"its quota is full: free space, or set [dbnd] store to another place\n"
        f"cannot write file://{tmp_path}/large: OSError: [Errno 27] File too large. The disk or "
        f"its quota is full: free space, or set [dbnd] store to another place\n"
        f"False b'1' ['before']\n"
        f"[]\n"
        f"cannot read memory://remote/large: OSError: [Errno 27] File too large. The disk or its "
        f"quota is full: free space, or set [dbnd] store to another place\n"
    )


@pytest.mark.parametrize("place", ["/proc/dbnd", "{file}/store"], ids=["proc", "below a file"])
def test_place_that_cannot_be_written_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = place.format(file=tmp_path / "file")
    store = ArtifactStore(place)

    with pytest.raises(StoreError) as put:
        store.put_bytes("a", b"")
    with pytest.raises(StoreError) as staging, store.staging():
        pass

    assert str(put.value).startswith(f"cannot write file://{place}/a: ")
    assert str(staging.value).startswith(f"cannot write below file://{place}: ")
    assert put.value.__cause__ is not None


def test_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="IsADirectoryError"):
        ArtifactStore(str(tmp_path)).fetch_input(f"file://{tmp_path}", str(tmp_path))


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "raw.csv").write_bytes(b"a,b\n1,2\n")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_input_comes_from_a_website(website: str, tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))

    assert store.expand(f"{website}/raw.csv?sig=topsecret", "/") == [
        f"{website}/raw.csv?sig=topsecret"
    ]
    fetched = store.fetch_input(f"{website}/raw.csv?sig=topsecret", str(tmp_path / "into"))
    with pytest.raises(ArtifactNotFoundError) as error:
        store.fetch_input(f"{website}/none.csv?sig=topsecret", str(tmp_path / "into"))

    assert Path(fetched.path).read_bytes() == b"a,b\n1,2\n"
    assert fetched.path.endswith("-raw.csv")
    assert str(error.value).startswith(f"{website}/none.csv?sig=*** is not there: ")


def test_relative_store_starts_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert ArtifactStore("data/../.dbnd").url == f"file://{tmp_path}/.dbnd"


def test_making_a_store_touches_nothing(tmp_path: Path) -> None:
    ArtifactStore(str(tmp_path / "none"))
    ArtifactStore("s3://bucket-that-nobody-has/x")

    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("url", ["s3://", "memory://", "s3:///", "gs:///"])
def test_store_without_a_container_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="names no bucket, container or folder"):
        ArtifactStore(url)


def test_each_object_read_or_written_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ArtifactStore(str(tmp_path))
    with caplog.at_level(logging.INFO):
        uri = commit(store, "a", b"secret value")
        store.fetch(uri, into=str(tmp_path))

    assert caplog.messages == [f"wrote {uri} (12 bytes)", f"read {uri} (12 bytes)"]


NAMES = st.lists(st.text(min_size=1), min_size=1, max_size=4)


@settings(deadline=None)
@given(NAMES, NAMES)
def test_other_names_make_another_key(one: list[str], other: list[str]) -> None:
    assert (key(*one) == key(*other)) == (one == other)


@settings(deadline=None)
@given(NAMES)
def test_a_key_stays_below_the_store_on_every_file_system(names: list[str]) -> None:
    parts = key(*names).split("/")

    assert len(parts) == len(names)
    assert all(0 < len(part) <= 200 and not part.startswith(".") for part in parts)
    assert not set("".join(parts)) & set(":*?\"<>|\\ #%&{}$!`'@+^\n\0")
    ArtifactStore("memory://x").uri("/".join(parts))


def test_a_long_name_is_not_cut_within_an_escape() -> None:
    for shift in range(4):
        ArtifactStore("memory://x").uri(key("a" * shift + "é" * 100))


def test_key_of_plain_names_is_those_names() -> None:
    assert key("drift", "prepare", "train_x=1,2", "ab-12.parquet") == (
        "drift/prepare/train_x=1,2/ab-12.parquet"
    )


@pytest.mark.parametrize(
    ("name", "escaped"),
    [("..", "~2E~2E"), (".a", "~2Ea"), ("a:b", "a~3Ab"), ("ü", "~C3~BC"), ("~41", "~7E41")],
)
def test_key_escapes(name: str, escaped: str) -> None:
    assert key(name) == escaped


def test_long_names_are_cut_and_stay_apart() -> None:
    one, other = key("x" * 5000 + "1"), key("x" * 5000 + "2")

    assert one != other
    assert one.startswith("x" * 100)
    assert len(one) < 200


def test_empty_name_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        key("a", "")
