"""``dbnd runs``: the newest runs in a store."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from airflow_provider_dbnd.cli.past import print_json, time_text
from airflow_provider_dbnd.cli.tables import print_rows
from airflow_provider_dbnd.core.manifest import to_json
from airflow_provider_dbnd.core.past.runs import Run, recent_runs
from airflow_provider_dbnd.core.storage.store import ArtifactStore

#: How many metrics a line shows.
_METRICS = 3


def list_runs(store: ArtifactStore, pipeline: str | None, *, limit: int, as_json: bool) -> int:
    """Print the newest runs, of one pipeline or of all, the one that ended last first."""
    runs = recent_runs(store, pipeline, limit=limit)
    if as_json:
        print_json([_document(run) for run in runs])
    elif runs:
        head = ["run", "pipeline", "status", "started", "time", "tasks", "metrics"]
        print_rows([head, *map(_row, runs)])
    else:
        print(f"No runs in {store.url}.", file=sys.stderr)
    return 0


def _row(run: Run) -> list[str]:
    tasks = ", ".join(f"{n} {status}" for status, n in _counts(run).items() if n)
    return [
        run.id,
        run.pipeline,
        run.status,
        time_text(run.started),
        f"{run.seconds:.2f} s",
        tasks,
        _head(run.metrics),
    ]


def _document(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "pipeline": run.pipeline,
        "status": run.status,
        "started": run.started.isoformat(),
        "seconds": round(run.seconds, 6),
        "tasks": dict(_counts(run)),
        "logical_date": run.logical_date,
        "partition": run.partition,
        "metrics": to_json(run.metrics),
    }


def _counts(run: Run) -> Mapping[str, int]:
    found = Counter(task.status for task in run.tasks.values())
    return {status: found[status] for status in ("success", "failed", "skipped")}


def _head(metrics: Mapping[str, Any]) -> str:
    # Those of the instances of a mapped task say least.
    first = sorted(metrics.items(), key=lambda metric: "[" in metric[0])[:_METRICS]
    shown = [f"{name}={_short(value)}" for name, value in first]
    more = [f"+{len(metrics) - _METRICS}"] if len(metrics) > _METRICS else []
    return " ".join([*shown, *more])


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 20 else f"{text[:17]}..."
