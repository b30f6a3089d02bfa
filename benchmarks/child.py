"""Entry point of the processes that :func:`benchmarks.measure.child` starts."""

from __future__ import annotations

import importlib
import json
import sys

from benchmarks.measure import MARK

if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    print(MARK + json.dumps(function(**json.loads(sys.argv[2]))), flush=True)
