"""Tasks in batches of Apache Livy's own server, over the standalone cluster."""

from __future__ import annotations

import json
import os

import pytest

from tests.engines.engine_contract import EngineContract


def variable(name: str) -> str:
    if name not in os.environ:
        pytest.skip(f"{name} is not set: run .ci/services up livy and export its env file")
    return os.environ[name]


@pytest.fixture
def livy(monkeypatch: pytest.MonkeyPatch) -> str:
    """Connection `livy_here` to the server."""
    from urllib.parse import urlsplit

    where = urlsplit(variable("DBND_TEST_LIVY"))
    connection = {"conn_type": "livy", "host": where.hostname, "port": where.port}
    monkeypatch.setenv("AIRFLOW_CONN_LIVY_HERE", json.dumps(connection))
    return where.geturl()


class TestSync(EngineContract):
    @pytest.fixture
    def engine(self, livy: str) -> str:
        return """
[engines.here]
type = "livy"
livy_conn_id = "livy_here"
polling_interval = 1
"""
