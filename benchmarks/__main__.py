"""Run the benchmarks and print a table of medians and ratios against the targets.

python -m benchmarks [--only NAME] [--size MB] [--rounds N] [--json FILE] [--full]
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import airflow_provider_dbnd
from benchmarks.options import Options
from benchmarks.table import Row, markdown

SUBJECTS = ("handoff", "digests", "columns", "s3", "stream", "values", "parsing", "startup")

#: Asked for by name only: they need servers, or install what they are compared with.
SPECIAL = ("engines", "reuse")


def main() -> int:
    """Parse the command line and run; the exit code is 1 where a target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--only",
        choices=SUBJECTS + SPECIAL,
        action="append",
        help="run one subject; may be given again",
    )
    parser.add_argument("--size", type=float, default=1000, help="MB of the largest frame")
    parser.add_argument(
        "--rounds", type=int, default=3, help="interleaved rounds the medians are of"
    )
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--full", action="store_true", help="stream 20 GB instead of twice --size")
    args = parser.parse_args()
    size = int(args.size) if args.size == int(args.size) else args.size
    options = Options(size=size, rounds=args.rounds, full=args.full)
    # As an installation has them: where PYTHONDONTWRITEBYTECODE is set, each process would compile them.
    compileall.compile_dir(str(Path(airflow_provider_dbnd.__file__).parent), quiet=1)
    rows = list(_measured(args.only or SUBJECTS, options))
    print(markdown(rows))
    if args.json:
        args.json.write_text(
            json.dumps([asdict(row) | {"verdict": row.verdict} for row in rows], indent=1)
        )
    return int(any(row.verdict == "MISS" for row in rows))


def _measured(subjects: tuple[str, ...], options: Options) -> Iterator[Row]:
    for subject in subjects:
        start = time.perf_counter()
        yield from importlib.import_module(f"benchmarks.{subject}").rows(options)
        print(f"{subject}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
