"""The contract on the engine that another package brings: each task in a new process."""

from __future__ import annotations

import sys

import pytest

from tests.engines.engine_contract import PASSWORD, EngineContract


@pytest.mark.usefixtures("process_engine")
class TestProcess(EngineContract):
    @pytest.fixture
    def engine(self) -> str:
        name, value = PASSWORD
        return f"""
[engines.here]
type = "process"
python = "{sys.executable}"
env = {{ {name} = "{value}" }}
"""
