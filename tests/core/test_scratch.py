"""Folders that a process makes for itself are gone when it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FORKING = """
import multiprocessing
from airflow_provider_dbnd.core.scratch import process_folder

def work():
    print("child", process_folder(), flush=True)

print("parent", process_folder(), flush=True)
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_folder_of_its_own_and_both_are_removed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    (_, parent), (_, child) = map(str.split, done.stdout.splitlines())
    assert {os.path.dirname(parent), os.path.dirname(child)} == {str(tmp_path)}
    assert parent != child
    assert list(tmp_path.iterdir()) == []
