"""Airflow's connections as stores."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_dbnd.core.storage import filesystem, store
from airflow_provider_dbnd.hooks import connections
from airflow_provider_dbnd.hooks.settings import store_at
from tests.engines.amazon import InBucket


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``connect(conn_id, **fields)`` defines a connection for this test."""

    def define(conn_id: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    connections.register()
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
