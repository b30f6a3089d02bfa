"""Text tables of parameters, tasks and results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_provider_dbnd.core.artifacts import brief, is_reference
from airflow_provider_dbnd.core.conversion import type_text
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.resolution import Sources, resolve
from airflow_provider_dbnd.core.reuse.attempt import duration
from airflow_provider_dbnd.core.runner import RunResult


def print_rows(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Print rows as aligned columns; a terminal's width is the terminal's business."""
    if not rows:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print(
            (
                indent
                + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            ).rstrip()
        )


def parameter_rows(
    definition: Definition, sources: Sources, task: str | None = None
) -> list[list[str]]:
    """Return (name, type, value, source) of each parameter of a task or pipeline."""
    rows = []
    for spec in definition.signature.inputs.values():
        value = resolve(task or definition.name, spec, MISSING, sources)
        if value is None:
            text, source = "-", "required" if spec.required else "default"
        else:
            text, source = value.shown(60), value.source
        rows.append([spec.name, type_text(spec.annotation), text, source])
    return rows


def result_lines(result: RunResult) -> Iterator[str]:
    """Yield a line for each output of each task."""
    for node_id, outcome in result.outcomes.items():
        if outcome.state == "upstream_failed":
            yield f"  {node_id}: not run, an upstream task failed"
        elif outcome.state == "skipped":
            yield f"  {node_id}: skipped"
        for manifest in outcome.manifests:
            yield from result_lines_of(node_id, manifest, mapped=outcome.mapped)


def result_lines_of(task_id: str, manifest: Manifest, *, mapped: bool) -> Iterator[str]:
    """Yield a line for each output and metric of one attempt."""
    index = f"[{manifest.identity.map_index}]" if mapped else ""
    if hit := manifest.reuse.get("hit"):
        yield f"  {task_id}{index}: reused from run {hit['run_id']} (saved {duration(hit['seconds'])})"
    for name, encoded in manifest.outputs.items():
        published = f"  published {manifest.published[name]}" if name in manifest.published else ""
        yield f"  {task_id}{index}.{name} = {_brief(encoded)}{published}"
    for name, value in manifest.metrics.items():
        yield f"  {task_id}{index}: {name} = {value}"


def _brief(encoded: Any) -> str:
    if is_reference(encoded):
        rows = f"{encoded['rows']} rows, " if "rows" in encoded else ""
        return f"{encoded['uri']}  ({rows}{encoded['size']:,} bytes)"
    return brief(encoded, 100)
