from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Words of each row that issue and targets ask for.
ROWS = (
    "1 MB frame, local, against TaskFlow with object-storage XCom",
    "1 MB frame, local, against hand-written parquet",
    "1 MB frame, local, against hand-written Arrow IPC + map",
    "extra memory of the producer",
    "extra memory of the consumer",
    "extra memory against TaskFlow",
    "digest, schema and verification",
    "2 of 50 columns",
    "S3 (moto), against to_parquet",
    "memory of the producer",
    "memory of the consumer",
    "small values encoded and decoded",
    "dag.test(), against TaskFlow",
    "DAG of 10 tasks, parse",
    "DAG of 10 tasks, bytes",
    "import of all public names",
    "dbnd --help",
    "dbnd run of a trivial pipeline",
    "overhead a task",
)


def test_every_row_is_measured_and_printed(tmp_path: Path) -> None:
    """Each way also checks that the data came back as it was."""
    words = ("-m", "benchmarks", "--size", "1", "--rounds", "1", "--json", tmp_path / "rows.json")
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)

    printed = [line for line in done.stdout.splitlines() if line.startswith("|")]
    missing = [row for row in ROWS if not any(row in line for line in printed)]
    assert not missing, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == len(printed) - 2
    assert done.returncode == int(any(row["verdict"] == "MISS" for row in rows))
