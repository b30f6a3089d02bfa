"""EMR Serverless against moto; each job run's program really runs, without Spark (see amazon.py)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engines.amazon import BUCKET, ROLE, Amazon, amazon  # noqa: F401 - a fixture
from tests.engines.engine_contract import EngineContract


@pytest.fixture
def application(amazon: Amazon) -> str:  # noqa: F811
    """A started application."""
    client = amazon.client("emr-serverless")
    made = client.create_application(name="app", releaseLabel="emr-7.5.0", type="SPARK")
    return str(made["applicationId"])


class TestEmrServerless(EngineContract):
    deferrable = "false"

    @pytest.fixture
    def engine_store(self, amazon: Amazon) -> str:  # noqa: F811
        return f"s3://{BUCKET}/store"

    @pytest.fixture
    def engine(self, application: str) -> str:
        return f"""
[engines.here]
type = "emr_serverless"
application_id = "{application}"
execution_role_arn = "{ROLE}"
waiter_delay = 1
deferrable = {self.deferrable}
"""


class TestEmrServerlessDeferrable(TestEmrServerless):
    deferrable = "true"
