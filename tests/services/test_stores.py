"""The store's contract on real servers and good emulators; each is skipped if it does not run."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

pytest.register_assert_rewrite("tests.core.store_contract")

from airflow_provider_dbnd.core.storage import filesystem  # noqa: E402
from airflow_provider_dbnd.core.storage.store import ArtifactStore  # noqa: E402
from airflow_provider_dbnd.exceptions import ConfigurationError, StoreError  # noqa: E402
from tests.core.store_contract import MB, StoreContract, checksum_of, commit  # noqa: E402

BUCKET = "dbnd-stores"


def server(variable: str) -> str:
    """Return where a test server listens, or skip."""
    address = os.environ.get(variable)
    if not address:
        pytest.skip(f"{variable} does not say where the server is")
    return address


@pytest.fixture(autouse=True)
def fresh_connections() -> Iterator[None]:
    """Forget connections made with the environment of another test."""
    yield
    filesystem.register_connection_options(None)
    for protocol in ("s3", "gs", "abfs", "webhdfs"):
        fsspec.get_filesystem_class(protocol).clear_instance_cache()


def s3_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str, secret: str = "SK") -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def make_bucket(endpoint: str) -> None:
    import boto3  # type: ignore[import-untyped,unused-ignore]

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="AK",
        aws_secret_access_key="SK",
        region_name="us-east-1",
    )
    with contextlib.suppress(
        client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
    ):
        client.create_bucket(Bucket=BUCKET)


def make_container(url: str, options: filesystem.StorageOptions | None = None) -> None:
    fs, path = filesystem.filesystem(url, options)
    if not fs.exists(path):
        fs.mkdir(path)


def unique(root: str) -> ArtifactStore:
    return ArtifactStore(f"{root}/{os.urandom(4).hex()}/store")


class TestMoto(StoreContract):
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
        endpoint = server("DBND_TEST_S3_MOTO")
        make_bucket(endpoint)
        s3_environment(monkeypatch, endpoint)
        return unique(f"s3://{BUCKET}")


class TestCeph(StoreContract):
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
        endpoint = server("DBND_TEST_S3_CEPH")
        make_bucket(endpoint)
        s3_environment(monkeypatch, endpoint)
        return unique(f"s3://{BUCKET}")

    def test_wrong_secret_is_told_without_showing_it(
        self, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        s3_environment(monkeypatch, os.environ["DBND_TEST_S3_CEPH"], secret="wrong-secret-value")
        fsspec.get_filesystem_class("s3").clear_instance_cache()

        for attempt in (
            lambda: store.put_bytes("a", b""),
            lambda: store.get_bytes("a"),
            lambda: store.fetch(store.uri("a"), size=1, into=str(tmp_path)),
            lambda: store.exists("a"),
        ):
            with pytest.raises(StoreError, match="The credentials were refused") as error:
                attempt()
            assert store.url in str(error.value)
            assert "wrong-secret-value" not in str(error.value)


class TestGcs(StoreContract):
    @pytest.fixture
    def store(self) -> ArtifactStore:
        address = server("DBND_TEST_GCS")
        options = {"gs": {"token": "anon", "endpoint_url": address, "project": "p"}}
        make_container(f"gs://{BUCKET}", options)
        return ArtifactStore(f"gs://{BUCKET}/{os.urandom(4).hex()}/store", storage_options=options)


class TestAzure(StoreContract):
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", server("DBND_TEST_AZURE"))
        make_container(f"abfs://{BUCKET}")
        return unique(f"abfs://{BUCKET}")

    def test_wrong_key_is_told_without_showing_it(
        self, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = "d3JvbmctYWNjb3VudC1rZXk="
        parts = [each for each in server("DBND_TEST_AZURE").split(";") if each]
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            ";".join(f"AccountKey={wrong}" if p.startswith("AccountKey=") else p for p in parts),
        )
        fsspec.get_filesystem_class("abfs").clear_instance_cache()

        for attempt in (lambda: store.put_bytes("a", b""), lambda: store.get_bytes("a")):
            with pytest.raises(StoreError, match="The credentials were refused") as error:
                attempt()
            assert wrong not in str(error.value)

    def test_airflows_and_azures_urls_reach_the_same_object(self, store: ArtifactStore) -> None:
        options = {"connection_string": server("DBND_TEST_AZURE")}
        filesystem.register_connection_options(lambda conn_id, scheme: options)
        commit(store, "a", b"1")
        path = store.url.partition(BUCKET)[2]

        assert ArtifactStore(f"abfs://azure@{BUCKET}{path}").get_bytes("a") == b"1"
        assert (
            ArtifactStore(
                f"abfss://{BUCKET}@any.dfs.core.windows.net{path}",
                storage_options={"abfss": {**options, "account_name": None, "account_host": None}},
            ).get_bytes("a")
            == b"1"
        )


class TestWebHdfs(StoreContract):
    # The name node takes 0.3 s for each file.
    sizes = (0, 1, 20 * MB + 7)
    writers = 3

    @pytest.fixture
    def store(self) -> ArtifactStore:
        return unique(f"webhdfs://root@{server('DBND_TEST_WEBHDFS')}/stores")

    def test_a_place_of_another_user_is_told(self, store: ArtifactStore) -> None:
        commit(store, "a", b"1")
        other = ArtifactStore(store.url.replace("root@", "nobody@"))

        with pytest.raises(StoreError, match="The credentials were refused"):
            other.put_bytes("b", b"1")


class TestConnections:
    """The same through Airflow connections, without the providers of the clouds."""

    @pytest.fixture(autouse=True)
    def airflow(self) -> None:
        pytest.importorskip("airflow.sdk")
        from airflow_provider_dbnd.hooks import connections

        connections.register()

    @pytest.fixture
    def connection(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        def define(**fields: Any) -> None:
            monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(fields))

        return define

    def test_aws(self, connection: Callable[..., None]) -> None:
        endpoint = server("DBND_TEST_S3_MOTO")
        make_bucket(endpoint)
        connection(
            conn_type="aws",
            login="AKAKAKAK",
            password="SKSKSKSK",
            extra={"endpoint_url": endpoint, "region_name": "us-east-1"},
        )
        store = unique(f"s3://store@{BUCKET}")

        uri = commit(store, "a", b"1")

        assert uri.startswith(f"s3://store@{BUCKET}/")
        assert store.get_bytes(uri) == b"1"
        assert "SKSKSKSK" not in repr(store) + uri

    def test_aws_with_an_assumed_role(self, connection: Callable[..., None]) -> None:
        endpoint = server("DBND_TEST_S3_MOTO")
        make_bucket(endpoint)
        connection(
            conn_type="aws",
            login="AKAKAKAK",
            password="SKSKSKSK",
            extra={"endpoint_url": endpoint, "role_arn": "arn:aws:iam::123456789012:role/store"},
        )

        commit(unique(f"s3://store@{BUCKET}"), "a", b"1")

        options = filesystem._from_connection(filesystem.parse("s3://store@b"))
        assert options["key"] != "AKAKAKAK"
        assert options["token"]

    def test_secret_of_ceph(self, connection: Callable[..., None]) -> None:
        endpoint = server("DBND_TEST_S3_CEPH")
        make_bucket(endpoint)
        connection(conn_type="aws", login="AK", password="SK", extra={"endpoint_url": endpoint})

        store = unique(f"s3://store@{BUCKET}")

        assert store.get_bytes(commit(store, "a", b"1")) == b"1"

    def test_azure_with_account_and_key(self, connection: Callable[..., None]) -> None:
        string = server("DBND_TEST_AZURE")
        connection(conn_type="wasb", extra={"connection_string": string})
        make_container(f"abfs://store@{BUCKET}")

        store = unique(f"abfs://store@{BUCKET}")

        assert store.get_bytes(commit(store, "a", b"1")) == b"1"

    def test_gcs_by_storage_options_of_the_extra(self, connection: Callable[..., None]) -> None:
        address = server("DBND_TEST_GCS")
        connection(
            conn_type="google_cloud_platform",
            extra={"is_anonymous": True, "storage_options": {"endpoint_url": address}},
        )
        make_container(f"gs://store@{BUCKET}")

        store = unique(f"gs://store@{BUCKET}")

        assert store.get_bytes(commit(store, "a", b"1")) == b"1"

    def test_webhdfs(self, connection: Callable[..., None]) -> None:
        host, _, port = server("DBND_TEST_WEBHDFS").partition(":")
        connection(conn_type="webhdfs", host=host, port=int(port), login="root")

        store = unique("webhdfs://store@/stores")

        uri = commit(store, "a", b"1")
        assert uri.startswith("webhdfs://store@/stores/")
        assert store.get_bytes(uri) == b"1"
        assert store.expand("a", store.url) == [uri]

    def test_unknown_connection_tells_how_to_add_it(self) -> None:
        with pytest.raises(ConfigurationError) as error:
            ArtifactStore("s3://nobody_has@b/x").get_bytes("a")

        assert str(error.value) == (
            "connection 'nobody_has' is not defined: add it in Airflow (Admin > Connections, "
            "'airflow connections add nobody_has' or AIRFLOW_CONN_NOBODY_HAS), or leave "
            "'nobody_has@' out of the URL to use the credentials of the environment"
        )

    def test_connection_of_another_type_is_refused(self, connection: Callable[..., None]) -> None:
        connection(conn_type="postgres", login="u", password="not-to-be-shown")

        with pytest.raises(ConfigurationError) as error:
            ArtifactStore("s3://store@b/x").get_bytes("a")

        assert str(error.value) == (
            "connection 'store' is of type 'postgres', but s3:// expected one of aws, dbnd, generic"
        )


class Faults:
    """A proxy before a server, which can be told to fail."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def on(self, match: str, action: str, times: int = 1, **more: Any) -> None:
        self._call("POST", {"match": match, "action": action, "n": times, **more})

    def calls(self) -> list[str]:
        found: list[str] = self._call("GET", None)["calls"]
        return found

    def clear(self) -> None:
        self._call("DELETE", None)

    def _call(self, method: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/__fault", data=data, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def proxy() -> Iterator[Faults]:
    script = Path(server("DBND_TEST_SHARED_SERVICES")) / "fault_proxy.py"
    target = server("DBND_TEST_S3_MOTO").rpartition(":")[2].strip("/")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, str(script), str(port), target]) as process:
        faults = Faults(port)
        for _ in range(100):
            with contextlib.suppress(OSError):
                faults.calls()
                break
            time.sleep(0.05)
        yield faults
        process.terminate()


class TestFaults:
    @pytest.fixture
    def store(self, proxy: Faults, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
        make_bucket(os.environ["DBND_TEST_S3_MOTO"])
        s3_environment(monkeypatch, proxy.url)
        proxy.clear()
        return unique(f"s3://{BUCKET}")

    @pytest.mark.parametrize("action", ["503", "reset", "slow", "drop_after_commit"])
    @pytest.mark.parametrize("size", [10, 20 * MB], ids=["small", "parts"])
    def test_a_write_survives(
        self, store: ArtifactStore, proxy: Faults, action: str, size: int
    ) -> None:
        data = os.urandom(size)
        proxy.on("PUT .*a.bin", action, 2, delay=0.5)

        uri = commit(store, "a.bin", data)

        assert store.get_bytes(uri) == data

    @pytest.mark.parametrize("action", ["503", "reset", "drop_after_commit"])
    def test_the_last_step_of_an_upload_survives(
        self, store: ArtifactStore, proxy: Faults, action: str
    ) -> None:
        """The retry of a lost answer meets an object that is its own."""
        data = os.urandom(20 * MB)
        proxy.on(r"POST .*uploadId", action)

        uri = commit(store, "a.bin", data)

        assert store.get_bytes(uri) == data

    @pytest.mark.parametrize("action", ["503", "reset", "slow", "drop_after_commit"])
    @pytest.mark.parametrize("step", [r"PUT .*partNumber", r"POST .*uploadId"])
    def test_a_file_that_is_sent_while_it_is_written_survives(
        self, store: ArtifactStore, proxy: Faults, action: str, step: str, tmp_path: Path
    ) -> None:
        local = tmp_path / "f"
        local.write_bytes(data := os.urandom(20 * MB))
        proxy.on(step, action, 2, delay=0.5)

        with store.sending(str(local), "a.bin") as sending:
            sending.grown(17 * MB)
            sending.grown(len(data))
        there = sending.done or store.has_end("a.bin", str(local), 1 * MB)

        assert there
        assert store.get_bytes("a.bin") == data

    def test_a_lost_answer_to_put_bytes_is_no_conflict(
        self, store: ArtifactStore, proxy: Faults
    ) -> None:
        proxy.on("PUT .*m.json", "drop_after_commit")

        uri = store.put_bytes("m.json", b"{}")

        assert store.get_bytes(uri) == b"{}"

    @pytest.mark.parametrize("action", ["503", "reset", "slow", "truncate"])
    @pytest.mark.parametrize("size", [1000, 20 * MB], ids=["small", "parts"])
    def test_a_read_survives(
        self, store: ArtifactStore, proxy: Faults, action: str, size: int, tmp_path: Path
    ) -> None:
        data = os.urandom(size)
        uri = commit(store, "a.bin", data)
        proxy.on("GET .*a.bin", action, 2, delay=0.5)

        path = store.fetch(uri, size=size, checksum=checksum_of(data), into=str(tmp_path))

        assert Path(path).read_bytes() == data

    def test_a_read_is_given_up_after_some_tries(
        self, store: ArtifactStore, proxy: Faults, tmp_path: Path
    ) -> None:
        uri = commit(store, "a.bin", os.urandom(20 * MB))
        proxy.on("GET .*a.bin", "truncate", 1000)

        with pytest.raises(StoreError, match=r"cannot read s3://.*a.bin: "):
            store.fetch(uri, size=20 * MB, into=str(tmp_path))

    def test_what_has_arrived_is_not_held_in_memory(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        uri = commit(store, "a.bin", os.urandom(64 * MB))

        tracemalloc.start()
        store.fetch(uri, size=64 * MB, into=str(tmp_path))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert peak < 16 * MB

    def test_a_server_that_stays_away_is_told(
        self,
        store: ArtifactStore,
        proxy: Faults,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        uri = commit(store, "a.bin", b"1")
        proxy.on("PUT", "503", 1000)
        proxy.on("GET .*a.bin", "503", 1000)

        with pytest.raises(StoreError, match=r"cannot write s3://.*other.bin: .*injected"):
            commit(store, "other.bin", b"2")
        with pytest.raises(StoreError, match=r"cannot read s3://.*a.bin: "):
            store.fetch(uri, size=1, into=str(tmp_path))

        proxy.clear()
        assert not store.exists("other.bin")

    def test_what_is_there_already_is_not_sent_again(
        self, store: ArtifactStore, proxy: Faults
    ) -> None:
        data = os.urandom(9 * MB)
        commit(store, "a.bin", data)
        proxy.clear()

        commit(store, "a.bin", data)

        assert [call.partition(" ")[0] for call in proxy.calls()] == ["HEAD"]

    def test_an_aborted_upload_leaves_no_parts(
        self, store: ArtifactStore, proxy: Faults, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        proxy.on("PUT .*partNumber=2", "503", 1000)

        with pytest.raises(StoreError):
            commit(store, "a.bin", os.urandom(20 * MB))

        assert any(call.startswith("DELETE") for call in proxy.calls())
        assert not store.exists("a.bin")


def test_unreachable_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    s3_environment(monkeypatch, "http://127.0.0.1:9")

    with pytest.raises(StoreError) as error:
        ArtifactStore(
            f"s3://{BUCKET}",
            storage_options={"s3": {"config_kwargs": {"retries": {"max_attempts": 0}}}},
        ).put_bytes("a", b"")

    assert "The server did not answer: check the network and the endpoint" in str(error.value)


def test_unknown_bucket_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3_environment(monkeypatch, server("DBND_TEST_S3_MOTO"))
    store = ArtifactStore("s3://no-such-bucket/x")

    for attempt in (
        lambda: store.put_bytes("a", b""),
        lambda: store.get_bytes("a"),
        lambda: store.fetch(store.uri("a"), size=9, into=str(tmp_path)),
        lambda: commit(store, "a", bytes(9 * MB)),
    ):
        with pytest.raises(StoreError, match="Create the bucket or container, or correct the name"):
            attempt()


def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    with pytest.raises(StoreError) as error:
        ArtifactStore(f"s3://{BUCKET}").get_bytes("a")

    assert str(error.value).endswith(
        "No credentials were found: name a connection (s3://CONN_ID@...) or set "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


AMBIENT = """
import sys
from airflow_provider_dbnd.core.storage.store import ArtifactStore
store = ArtifactStore(sys.argv[1])
store.put_bytes("a", b"1", overwrite=True)
print(store.get_bytes("a"))
"""


@pytest.mark.parametrize(
    ("variable", "url", "environment"),
    [
        (
            "DBND_TEST_S3_MOTO",
            f"s3://{BUCKET}/ambient",
            {"FSSPEC_S3_ENDPOINT_URL": "{}", "FSSPEC_S3_KEY": "AK", "FSSPEC_S3_SECRET": "SK"},
        ),
        (
            "DBND_TEST_S3_MOTO",
            f"s3://conn_id@{BUCKET}/ambient",
            {"AWS_ENDPOINT_URL_S3": "{}", "AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK"},
        ),
        ("DBND_TEST_GCS", f"gs://{BUCKET}/ambient", {"STORAGE_EMULATOR_HOST": "{}"}),
        ("DBND_TEST_AZURE", f"abfs://{BUCKET}/a", {"AZURE_STORAGE_CONNECTION_STRING": "{}"}),
    ],
    ids=["fsspec", "aws", "gcs", "azure"],
)
def test_environment_alone_is_enough(variable: str, url: str, environment: dict[str, str]) -> None:
    address = server(variable)
    if url.startswith("s3"):
        make_bucket(address)
    elif url.startswith("gs"):
        make_container(f"gs://{BUCKET}", {"gs": {"token": "anon", "endpoint_url": address}})
    else:
        make_container(f"abfs://{BUCKET}", {"abfs": {"connection_string": address}})
    given = {name: value.format(address) for name, value in environment.items()}

    answer = subprocess.run(
        [sys.executable, "-c", AMBIENT, url],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    ).stdout

    assert answer == "b'1'\n"
