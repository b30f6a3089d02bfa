"""Tasks in Spark drivers, by spark-submit: in one process, and on a standalone cluster."""

from __future__ import annotations

import os

import pytest

from tests.engines.engine_contract import PASSWORD, EngineContract


def engine(master: str) -> str:
    name, value = PASSWORD
    venv = variable("DBND_TEST_SPARK_VENV")
    return f"""
[engines.here]
type = "spark"
master = "{master}"
spark_binary = "{venv}/bin/spark-submit"
python = "{venv}/bin/python"
driver_memory = "1g"
env_vars = {{ {name} = "{value}" }}

[engines.here.conf]
"spark.ui.enabled" = false
"""


def variable(name: str) -> str:
    if name not in os.environ:
        pytest.skip(f"{name} is not set: run .ci/services up spark and export its env file")
    return os.environ[name]


class TestLocal(EngineContract):
    @pytest.fixture
    def engine(self) -> str:
        return engine("local[1]")
