from __future__ import annotations

import http.server
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_dbnd.core.storage import filesystem as fs
from airflow_provider_dbnd.core.storage.errors import store_errors
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    StoreError,
)


@pytest.fixture(autouse=True)
def no_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fs, "_told", set())
    yield
    fs.register_connection_options(None)


@pytest.mark.parametrize(
    ("url", "host", "path", "more"),
    [
        ("s3://bucket/a/b", "bucket", "/a/b", {}),
        ("s3://bucket", "bucket", "", {}),
        ("s3://conn@bucket/a@b#c?d", "bucket", "/a@b#c?d", {"conn_id": "conn"}),
        ("gs://conn@bucket/a", "bucket", "/a", {"conn_id": "conn"}),
        ("abfs://conn@container/a", "container", "/a", {"conn_id": "conn"}),
        (
            "abfss://container@acc.dfs.core.windows.net/a",
            "container",
            "/a",
            {"account": "acc.dfs.core.windows.net"},
        ),
        (
            "abfs://conn@container@acc.dfs.core.windows.net/a",
            "container",
            "/a",
            {"conn_id": "conn", "account": "acc.dfs.core.windows.net"},
        ),
        ("webhdfs://root@node:50070/a", "node:50070", "/a", {"user": "root"}),
        ("webhdfs://conn@/a", "", "/a", {"conn_id": "conn"}),
        ("memory://store/a", "store", "/a", {}),
        ("file:///a/b", "", "/a/b", {}),
        ("sftp://user@host/a", "host", "/a", {"user": "user"}),
    ],
)
def test_url_is_taken_apart_and_put_together_again(
    url: str, host: str, path: str, more: dict[str, str]
) -> None:
    where = fs.parse(url)

    assert (where.host, where.path) == (host, path)
    assert {
        name: getattr(where, name)
        for name in ("conn_id", "user", "account")
        if getattr(where, name) is not None
    } == more
    assert str(where) == url


@settings(deadline=None)
@given(st.text(alphabet=st.characters(blacklist_characters="\0"), max_size=30))
def test_any_path_stays_as_it_is(path: str) -> None:
    assert str(fs.parse(f"s3://conn@bucket/{path}")) == f"s3://conn@bucket/{path}"


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA123:topsecret@bucket/a",
        "s3://AKIA123:abc/topsecret@bucket/a",
        "s3://AKIA123:12/topsecret@bucket/a",
        "s3://AKIA123:abc/topsecret@bucket/mail/a@b.csv",
        "s3://AKIA123:my topsecret@bucket/a",
        "s3://AKIA123:abc/my topsecret@bucket/a",
        "abfss://account:ab/topsecret+/==@container/a",
        "https://user:pa/topsecret@host/a",
        "https://user:topsecret@p@host/a",
        "webhdfs://me:topsecret@node/a",
        "sftp://u:topsecret@h/a",
        "sftp://u:/topsecret@h/a",
    ],
)
def test_password_in_a_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="a URL must not carry a password") as error:
        ArtifactStore(url)

    assert "topsecret" not in str(error.value)
    if " " not in url:
        assert "topsecret" not in fs.redact(f"OSError: {url}: no answer")


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/mail/a@b.csv",
        "s3://bucket/x:y/a@b",
        "s3://conn@bucket/x:y/a@b",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/a@b.csv",
        "https://host:8080/a@b.csv",
        "https://host/x:y@b.csv",
        "https://[2001:db8::1]:8080/a@b.csv",
        "webhdfs://user@host:8020/x:y/a@b",
        "webhdfs://[2001:db8::1]:9870/a@b",
        "webhdfs://user@[2001:db8::1]:9870/a@b",
        "abfs://conn@container@acc.dfs.core.windows.net/x:y/a@b",
        "zip://a.csv::s3://conn@bucket/a.zip",
        "file:///data/x:y/a@b.csv",
    ],
)
def test_a_colon_and_an_at_sign_do_not_make_a_password(url: str) -> None:
    assert str(fs.parse(url)) == url
    assert fs.redact(f"cannot read {url}: no") == f"cannot read {url}: no"


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("node", {"host": "node"}),
        ("me@node:8020", {"host": "node", "port": 8020, "user": "me"}),
        ("[2001:db8::1]:9870", {"host": "[2001:db8::1]", "port": 9870}),
        ("me@[::1]", {"host": "[::1]", "user": "me"}),
    ],
)
def test_host_port_and_user_of_hdfs_come_from_the_url(host: str, options: dict[str, Any]) -> None:
    assert fs._from_url(fs.parse(f"webhdfs://{host}/a")) == options


class _NameNode(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"FileStatus": {"type": "FILE", "length": 7}}')

    def log_message(self, *_: Any) -> None: ...


class _IPv6Server(http.server.HTTPServer):
    address_family = socket.AF_INET6


def test_webhdfs_is_reached_at_an_ipv6_address() -> None:
    pytest.importorskip("requests")
    try:
        server = _IPv6Server(("::1", 0), _NameNode)
    except OSError:
        pytest.skip("no IPv6 here")
    threading.Thread(target=server.serve_forever, daemon=True).start()

    found, path = fs.filesystem(f"webhdfs://[::1]:{server.server_port}/a.csv")

    assert found.info(path)["size"] == 7
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["host:abc", "2001:db8::1", "[::1", "host:8020:1", "host:"])
def test_a_host_of_hdfs_that_is_none_is_told(host: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        fs.filesystem(f"webhdfs://{host}/a")

    assert str(error.value) == (
        f"webhdfs://{host}/a: expected webhdfs://[USER@]HOST[:PORT]/PATH, with a number for the port and "
        f"an IPv6 address in brackets, got {host!r} for HOST[:PORT]"
    )


@pytest.mark.parametrize(
    ("uri", "base", "full"),
    [
        ("data/raw.csv", "/project", "file:///project/data/raw.csv"),
        ("../raw.csv", "/project/dags", "file:///project/raw.csv"),
        ("/raw.csv", "/project", "file:///raw.csv"),
        ("raw.csv", "s3://bucket/in/", "s3://bucket/in/raw.csv"),
        ("/raw.csv", "s3://bucket/in", "file:///raw.csv"),
        ("s3://b/raw.csv", "/project", "s3://b/raw.csv"),
        ("*.csv", "/project", "file:///project/*.csv"),
    ],
)
def test_relative_paths_start_from_the_base(uri: str, base: str, full: str) -> None:
    assert fs.absolute(uri, base) == full


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    assert fs.absolute("~/raw.csv", "/project") == "file:///home/me/raw.csv"


def test_file_url_with_a_host_is_refused() -> None:
    with pytest.raises(ConfigurationError) as error:
        fs.parse("file://data/raw.csv")

    assert str(error.value) == (
        "file://data/raw.csv: 'data' stands where a host would; write file:///data/raw.csv for an "
        "absolute path or data/raw.csv for a relative one"
    )


def test_unknown_scheme_guesses_what_was_meant() -> None:
    with pytest.raises(ConfigurationError, match="unknown scheme 's33'; did you mean 's3'"):
        fs.filesystem("s33://bucket/a")


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("s3://b/a", "s3fs", "s3"),
        ("gs://b/a", "gcsfs", "gcs"),
        ("abfs://b/a", "adlfs", "azure"),
        ("webhdfs://node/a", "requests", "hdfs"),
        ("https://host/a", "aiohttp", "http"),
    ],
)
def test_missing_library_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingDependencyError) as error:
        fs.filesystem(url)

    assert str(error.value) == (
        f"{url.partition(':')[0]}:// needs: pip install 'airflow-provider-dbnd[{extra}]'"
    )


def test_connection_is_resolved_by_what_is_registered() -> None:
    asked = []

    def resolver(conn_id: str, scheme: str) -> dict[str, Any]:
        asked.append((conn_id, scheme))
        return {"host": "node", "port": 1, "user": "from connection"}

    fs.register_connection_options(resolver)
    found, path = fs.filesystem(
        "webhdfs://hadoop@/data/a", {"webhdfs": {"user": "from storage options"}}
    )

    assert asked == [("hadoop", "webhdfs")]
    assert (found.url, found.user) == ("http://node:1/webhdfs/v1", "from storage options")
    assert path == "/data/a"


def test_connection_outside_airflow_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("s3fs")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            fs.filesystem("s3://conn@bucket/a")

    assert [message for message in caplog.messages if "conn" in message] == [
        "connection 'conn' of s3:// is not resolved outside Airflow; using ambient credentials"
    ]


def test_nested_options_are_merged_not_replaced() -> None:
    pytest.importorskip("s3fs")
    fs.register_connection_options(
        lambda conn_id, scheme: {"client_kwargs": {"region_name": "eu-north-1"}}
    )

    found, _ = fs.filesystem("s3://conn@b/a", {"s3": {"client_kwargs": {"verify": False}}})

    assert found.client_kwargs == {"region_name": "eu-north-1", "verify": False}
    assert found.config_kwargs["max_pool_connections"] > 10


@pytest.mark.parametrize("options", [{"key": "topsecret"}, {"s3": "topsecret"}, {"s33": {}}])
def test_storage_options_must_be_by_scheme(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected options by scheme, such as") as error:
        ArtifactStore("s3://b", storage_options=options)

    assert "topsecret" not in str(error.value)


def test_azure_account_comes_from_the_url() -> None:
    options = fs._from_url(fs.parse("abfs://c@acc.dfs.core.windows.net/a"))
    assert options == {"account_name": "acc"}

    sovereign = fs._from_url(fs.parse("abfs://c@acc.dfs.core.chinacloudapi.cn/a"))
    assert sovereign["account_host"] == "acc.blob.core.chinacloudapi.cn"


GCS = """
import os, sys
{before}
from airflow_provider_dbnd.core.storage.filesystem import filesystem
found, _ = filesystem("gs://bucket/a", {options})
print(os.environ.get("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"), type(found).__name__)
"""


@pytest.mark.parametrize(
    ("before", "options", "told"),
    [
        ("import gcsfs", {"endpoint_url": "http://127.0.0.1:9"}, "false GCSFileSystem"),
        ("", {}, "None ExtendedGcsFileSystem"),
    ],
    ids=["imported before", "google itself"],
)
def test_gcs_is_not_probed_for_bucket_types_behind_another_endpoint(
    before: str, options: dict[str, str], told: str
) -> None:
    pytest.importorskip("gcsfs")
    code = GCS.format(before=before, options={"gs": {"token": "anon", **options}})
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert answer.strip() == told


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            "https://h/f?X-Amz-Signature=abc&X-Amz-Date=1",
            "https://h/f?X-Amz-Signature=***&X-Amz-Date=1",
        ),
        ("https://h/f?sv=1&sig=a%2Fb", "https://h/f?sv=1&sig=***"),
        ("AccountName=n;AccountKey=abc==;X=1", "AccountName=n;AccountKey=***;X=1"),
        ("{'password': 'p', 'x': 1}", "{'password': '***', 'x': 1}"),
        ("s3://bucket/design=new/a", "s3://bucket/design=new/a"),
        ('password="my secret pass" x=1', 'password="***" x=1'),
        ("{'password': 'my secret pass', 'a': 1}", "{'password': '***', 'a': 1}"),
        (r"""{'password': 'it\'s mine', 'a': 1}""", "{'password': '***', 'a': 1}"),
        (r'"{\"password\": \"my secret\", \"a\": 1}"', r'"{\"password\": \"***\", \"a\": 1}"'),
        ('password="my secret', 'password="***"'),
        ("token='' and on", "token='***' and on"),
        ("password=p 'and on'", "password=*** 'and on'"),
    ],
)
def test_secrets_are_cut_out_of_messages(text: str, kept: str) -> None:
    assert fs.redact(text) == kept


def test_an_error_that_quotes_a_secret_is_not_chained() -> None:
    with pytest.raises(StoreError) as error, store_errors("https://h/f?sig=topsecret", "read"):
        raise OSError("https://h/f?sig=topsecret is gone")

    assert "topsecret" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_core_store_loads_no_file_system_library() -> None:
    code = (
        "import sys, airflow_provider_dbnd.core.storage.store as s\n"
        "print([m for m in ('fsspec', 's3fs', 'pandas', 'pyarrow', 'airflow', 'aiohttp', 'blake3')"
        " if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert answer.strip() == "[]"


@pytest.mark.parametrize(
    ("scheme", "told"),
    [
        ("s3a", "AWS_ENDPOINT_URL_S3"),
        ("gcs", "STORAGE_EMULATOR_HOST"),
        ("az", "AZURE_STORAGE_CONNECTION_STRING"),
    ],
)
def test_another_name_of_a_scheme_means_the_same(scheme: str, told: str) -> None:
    with pytest.raises(StoreError, match=told), store_errors(f"{scheme}://b/k", "read"):
        raise ConnectionError
