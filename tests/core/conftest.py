"""Fixtures of the tests that need no Airflow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from local_project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in [n for n in os.environ if n.startswith("DBND")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Project(folder=tmp_path)
