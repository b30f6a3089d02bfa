"""The engine of another package, found by its entry point as any installed one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dbnd.core.storage.store import ArtifactStore
from tests.engines.elsewhere import Elsewhere, python_with

HERE = Path(__file__).parent


@pytest.fixture
def process_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the package `process-engine` of this folder for one test."""
    from airflow_provider_dbnd.engines.registry import engine_types

    monkeypatch.syspath_prepend(str(HERE))
    engine_types.cache_clear()
    yield
    engine_types.cache_clear()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    """An empty project, a store, and a Python with nothing installed."""
    folder = tmp_path / "project"
    folder.mkdir()
    store = ArtifactStore(str(tmp_path / "store"))
    return Elsewhere(folder=folder, store=store, python=python_with(tmp_path))
