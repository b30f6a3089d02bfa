"""The engine of another package, found by its entry point as any installed one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def process_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the package `process-engine` of this folder for one test."""
    from airflow_provider_dbnd.engines.registry import engine_types

    monkeypatch.syspath_prepend(str(HERE))
    engine_types.cache_clear()
    yield
    engine_types.cache_clear()
