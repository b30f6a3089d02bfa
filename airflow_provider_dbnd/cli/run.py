"""``dbnd run``: run a pipeline here."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from airflow_provider_dbnd.cli.loading import Runnable, find, folder_of
from airflow_provider_dbnd.cli.progress import Progress
from airflow_provider_dbnd.cli.tables import parameter_rows, print_rows, result_lines
from airflow_provider_dbnd.core.build import build_graph
from airflow_provider_dbnd.core.graph import Graph
from airflow_provider_dbnd.core.resolution import MASK, Sources
from airflow_provider_dbnd.core.runner import Runner, RunResult
from airflow_provider_dbnd.core.settings import Layer, Settings, load_settings
from airflow_provider_dbnd.core.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ParameterError

SOURCE = "--set"


def prepare(
    target: str, assignments: Sequence[str], environment: str | None
) -> tuple[Runnable, Settings, Sources]:
    """Load what *target* names, the settings that hold for it, and the sources of its parameters."""
    runnable = find(target)
    settings = load_settings(folder_of(runnable), environment=environment)
    layer = Layer(values=dict(map(assignment, assignments)), source=SOURCE, base=os.getcwd())
    return (
        runnable,
        settings,
        Sources(settings=settings, root=runnable.definition.name, run_time=(layer,)),
    )


def run(
    target: str,
    *,
    assignments: Sequence[str] = (),
    environment: str | None = None,
    parallel: int = 1,
    date: str | None = None,
    run_id: str | None = None,
    quiet: bool = False,
) -> int:
    """Run a pipeline or task; return the process's exit code."""
    runnable, settings, sources = prepare(target, assignments, environment)
    graph = build_graph(runnable.definition, sources)
    if not quiet:
        _print_start(target, assignments, graph, settings, runnable, sources)
    started = time.perf_counter()
    with Progress(graph, enabled=sys.stderr.isatty() and not quiet) as progress:
        result = Runner(
            graph,
            sources,
            ArtifactStore(settings.store, storage_options=settings.storage_options),
            run_id=run_id,
            logical_date=date,
            parallel=parallel,
            listener=progress.listen,
        ).run()
    return _report(graph, result, time.perf_counter() - started, quiet=quiet)


def assignment(text: str) -> tuple[str, Any]:
    """Split ``NAME=VALUE``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ParameterError(f"--set takes NAME=VALUE or TASK.NAME=VALUE, got {text!r}.")
    return key.strip(), value


def _print_start(
    target: str,
    assignments: Sequence[str],
    graph: Graph,
    settings: Settings,
    runnable: Runnable,
    sources: Sources,
) -> None:
    shown = [f"--set {shlex.quote(_masked(runnable, graph, a))}" for a in assignments]
    print(" ".join(["dbnd run", target, *shown]))
    where = f"  store {settings.store}  ({settings.store_source})"
    print(where if settings.environment is None else f"{where}  environment {settings.environment}")
    print_rows(parameter_rows(runnable.definition, sources), indent="  ")


def _masked(runnable: Runnable, graph: Graph, assignment: str) -> str:
    """Hide the value of a hidden parameter in the echoed command."""
    key = assignment.partition("=")[0].strip()
    task, _, name = key.rpartition(".")
    owners = [runnable.definition] if task in ("", runnable.definition.name) else []
    owners += [n.call.definition for n in graph.nodes.values() if n.id == task]
    inputs = [d.signature.inputs[name] for d in owners if name in d.signature.inputs]
    inputs += [p.spec for p in graph.parameters.values() if p.key == key]
    return f"{key}={MASK}" if any(i.declaration.hidden for i in inputs) else assignment


def _report(graph: Graph, result: RunResult, seconds: float, *, quiet: bool) -> int:
    for node_id, outcome in result.outcomes.items():
        if outcome.error is not None:
            print_error(node_id, outcome.error)
    if not quiet:
        for line in result_lines(result):
            print(line)
        word = "success" if result.success else "FAILED"
        print(
            f"{graph.name}: {word}, {len(result.outcomes)} tasks in {seconds:.2f} s, run {result.run_id}"
        )
    return 0 if result.success else 1


def print_error(node_id: str, error: BaseException) -> None:
    """Show where the user's code failed: the frames of this package are noise."""
    import traceback

    from airflow_provider_dbnd.exceptions import DbndError

    if isinstance(error, DbndError):
        print(f"task {node_id} failed: {type(error).__name__}: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"  {note}", file=sys.stderr)
        return
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(package)
    ]
    print(f"task {node_id} failed:", file=sys.stderr)
    print("".join(traceback.format_list(frames)), end="", file=sys.stderr)
    print("".join(traceback.format_exception_only(error)), end="", file=sys.stderr)
