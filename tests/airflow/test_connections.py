"""Airflow's connections as stores."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.core.storage import filesystem, store
from airflow_provider_dbnd.hooks.dbnd import DbndHook
from airflow_provider_dbnd.hooks.settings import store_at
from tests.engines.amazon import InBucket


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``connect(conn_id, **fields)`` defines a connection for this test."""

    def define(conn_id: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    yield define
    filesystem.register_connection_options(None)


class TestRole(InBucket):
    def test_no_file_system_stays_behind_when_a_role_hands_out_new_credentials(
        self, connect: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        extra = {"role_arn": "arn:aws:iam::123456789012:role/store"}
        connect("role", conn_type="aws", login="test", password="test", extra=extra)
        monkeypatch.setattr(store, "_CONNECTION_LASTS", -1)
        of_role = store_at(f"{bucket.replace('//', '//role@')}/store", {})

        opened = [weakref.ref(of_role.filesystem(of_role.url)) for _ in range(5)]
        of_role.put_bytes("a", b"1")
        gc.collect()

        assert [each() for each in opened] == [None] * 5
        assert of_role.get_bytes("a") == b"1"


class TestHook:
    def test_a_path_is_a_store(self, connect: Any, tmp_path: Path) -> None:
        connect("mine", conn_type="dbnd", host=str(tmp_path / "store"))
        hook = DbndHook("mine")

        assert hook.test_connection() == (
            True,
            f"file://{tmp_path}/store can be written and read.",
        )
        assert hook.store.get_bytes(hook.store.put_bytes("a", b"1")) == b"1"

    def test_options_of_the_extra_reach_the_store(self, connect: Any) -> None:
        extra = {"storage_options": {"user": "me"}}
        connect("mine", conn_type="dbnd", host="webhdfs://node/data", extra=extra)

        store = DbndHook("mine").store

        assert store.filesystem(store.url).user == "me"

    def test_another_connection_may_be_in_the_url(self, connect: Any) -> None:
        connect("mine", conn_type="dbnd", host="webhdfs://cluster@/data")
        connect("cluster", conn_type="webhdfs", host="node", port=1)

        store = DbndHook("mine").store

        assert store.filesystem(store.url).url == "http://node:1/webhdfs/v1"

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({}, "connection 'mine' has no store URL: put it in its host field."),
            (
                {"host": "/tmp", "extra": "secret"},
                "connection 'mine': the extra must be a JSON object",
            ),
            (
                {"host": "/tmp", "extra": {"storage_options": 1}},
                "connection 'mine': 'storage_options' in the extra must be an object",
            ),
            (
                {"host": "s3://"},
                "store 's3://' names no bucket, container or folder; write s3://NAME/...",
            ),
        ],
        ids=["no host", "no object", "no options", "no bucket"],
    )
    def test_the_test_button_tells_what_is_wrong_with_the_connection(
        self, connect: Any, fields: dict[str, Any], told: str
    ) -> None:
        connect("mine", conn_type="dbnd", **fields)

        assert DbndHook("mine").test_connection() == (False, told)

    def test_the_test_button_tells_that_there_is_no_connection(self) -> None:
        assert DbndHook("mine").test_connection() == (
            False,
            "connection 'mine' is not defined: add it in Airflow (Admin > Connections, "
            "'airflow connections add mine' or AIRFLOW_CONN_MINE), or name another one",
        )
