"""``dbnd run``: run a pipeline here."""

from __future__ import annotations

import datetime as dt
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_dbnd.cli.hidden_sources import check_hidden, hidden_sources
from airflow_provider_dbnd.cli.loading import Runnable, find
from airflow_provider_dbnd.cli.progress import Progress
from airflow_provider_dbnd.cli.tables import parameter_rows, print_rows, result_lines
from airflow_provider_dbnd.core.build import body_errors, build_graph
from airflow_provider_dbnd.core.graph import Graph
from airflow_provider_dbnd.core.masking import MASK, masked
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.past.starts import record_start
from airflow_provider_dbnd.core.resolution import REUSE, Sources, hidden_texts, resolve
from airflow_provider_dbnd.core.runner import Runner, RunResult
from airflow_provider_dbnd.core.settings import Layer, Settings, load_settings
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.tracebacks import user_traceback
from airflow_provider_dbnd.engines.launch import Launcher
from airflow_provider_dbnd.exceptions import ConfigurationError, DbndError, ParameterError

SOURCE = "--set"

_REUSE_FLAGS = {"on": "--reuse", "off": "--no-reuse", "refresh": "--refresh"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What a command names, and where its parameters come from."""

    target: str
    runnable: Runnable
    settings: Settings
    sources: Sources


def prepare(
    target: str, assignments: Sequence[str], environment: str | None, store: str | None = None
) -> Prepared:
    """Load what *target* names and the settings that hold for it; *store* goes before theirs."""
    runnable = find(target)
    settings = load_settings(runnable.definition.signature.folder, environment=environment)
    if store is not None:
        settings = replace(settings, store=store, store_source="--store")
    sources = Sources(
        settings=settings, root=runnable.definition.name, run_time=(assigned(assignments),)
    )
    return Prepared(target=target, runnable=runnable, settings=settings, sources=sources)


def graph_of(prepared: Prepared) -> Graph:
    """Build the graph of what a command names."""
    definition = prepared.runnable.definition
    with body_errors(definition):
        return build_graph(definition, prepared.sources)


def assigned(assignments: Sequence[str]) -> Layer:
    """Return the values given by --set."""
    return Layer(values=dict(map(_assignment, assignments)), source=SOURCE, base=os.getcwd())


def run(
    target: str,
    *,
    assignments: Sequence[str] = (),
    environment: str | None = None,
    parallel: int = 1,
    date: str | None = None,
    run_id: str | None = None,
    reuse: str | None = None,
    store: str | None = None,
    resumed: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> int:
    """Run a pipeline or task; return the process's exit code.

    :param store: URL of the store instead of the settings'.
    :param resumed: how run *run_id* was started, to go on with it.
    """
    chosen_reuse = [] if reuse is None else [f"{REUSE}={reuse}"]
    prepared = prepare(target, [*assignments, *chosen_reuse], environment, store)
    date = _checked_date(date)
    graph = graph_of(prepared)
    settings = prepared.settings
    if resumed is not None:
        check_hidden(graph, prepared.sources, resumed["hidden"], given=SOURCE)
    if not quiet:
        chosen = {
            "--date": date,
            "--run-id": run_id,
            "--parallel": parallel if parallel > 1 else None,
        }
        flags = [_REUSE_FLAGS[reuse]] if reuse else []
        print(" ".join([*_echo(prepared, graph, assignments), *_options(chosen), *flags]))
        _print_start(prepared)
    started = time.perf_counter()
    with Progress(graph, enabled=sys.stderr.isatty() and not quiet) as progress:
        runner = Runner(
            graph,
            prepared.sources,
            ArtifactStore(settings.store, storage_options=settings.storage_options),
            run_id=run_id,
            logical_date=date,
            parallel=parallel,
            launch=Launcher(prepared.sources),
            resumes=resumed is not None,
            listener=progress.listen,
        )
        if resumed is None:
            start = {
                "target": target,
                "folder": os.getcwd(),
                "assignments": _open_assignments(prepared, graph, assignments),
                "environment": environment,
                "parallel": parallel,
                "date": runner.logical_date,
                "reuse": reuse,
                "hidden": hidden_sources(graph, prepared.sources),
            }
            record_start(runner.store, graph.name, runner.run_id, start)
        result = runner.run()
    _print_errors(result, list(_hidden_texts(prepared, graph)))
    if not quiet:
        _print_result(graph, result, time.perf_counter() - started)
    return 0 if result.success else 1


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ParameterError(f"--set takes NAME=VALUE or TASK.NAME=VALUE, got {text!r}.")
    return key.strip(), value


def _checked_date(date: str | None) -> str | None:
    if date is None:
        return None
    try:
        dt.datetime.fromisoformat(date.replace("Z", "+00:00"))
    except ValueError as exc:
        raise ConfigurationError(
            f"--date takes a day or a time such as 2026-01-31 or 2026-01-31T06:00, got {date!r}."
        ) from exc
    return date


def _echo(prepared: Prepared, graph: Graph, assignments: Sequence[str]) -> Iterator[str]:
    """Yield the words of the command, without hidden values."""
    yield from ("dbnd run", shlex.quote(prepared.target))
    if prepared.settings.environment is not None:
        yield f"--env {shlex.quote(prepared.settings.environment)}"
    for each in assignments:
        key = each.partition("=")[0]
        hidden = key.strip() in _hidden_keys(prepared, graph)
        yield f"--set {key}={MASK}" if hidden else f"--set {shlex.quote(each)}"


def _options(chosen: Mapping[str, object]) -> Iterator[str]:
    return (f"{name} {shlex.quote(str(v))}" for name, v in chosen.items() if v is not None)


def _open_assignments(prepared: Prepared, graph: Graph, assignments: Sequence[str]) -> list[str]:
    """Return the assignments that set no hidden parameter."""
    hidden = _hidden_keys(prepared, graph)
    return [text for text in assignments if text.partition("=")[0].strip() not in hidden]


def _hidden_keys(prepared: Prepared, graph: Graph) -> set[str]:
    definition = prepared.runnable.definition
    owners = {definition.name: definition.signature.inputs}
    owners |= {node.id: node.call.definition.signature.inputs for node in graph.nodes.values()}
    hidden = {
        f"{owner}.{name}"
        for owner, inputs in owners.items()
        for name, spec in inputs.items()
        if spec.declaration.hidden
    }
    hidden |= {p.key for p in graph.parameters.values() if p.hidden}
    root = f"{definition.name}."
    return hidden | {key.removeprefix(root) for key in hidden if key.startswith(root)}


def _hidden_texts(prepared: Prepared, graph: Graph) -> Iterator[str]:
    """Yield the hidden values of a run, which no output may show."""
    for parameter in graph.parameters.values():
        if parameter.value is not None:
            yield from hidden_texts(parameter.owner, parameter.spec, parameter.value)
    for node in graph.nodes.values():
        mapped = node.call.mapped
        for given in mapped if isinstance(mapped, list | tuple) else [mapped]:
            arguments = {**node.call.arguments, **(given if isinstance(given, Mapping) else {})}
            for name, spec in node.call.definition.signature.inputs.items():
                argument = arguments.get(name, MISSING)
                if value := resolve(node.id, spec, argument, prepared.sources):
                    yield from hidden_texts(node.id, spec, value)


def _print_start(prepared: Prepared) -> None:
    settings = prepared.settings
    print(f"  store {settings.store}  ({settings.store_source})")
    print_rows(parameter_rows(prepared.runnable.definition, prepared.sources), indent="  ")


def _print_errors(result: RunResult, hidden: Sequence[str]) -> None:
    for node_id, outcome in result.outcomes.items():
        if outcome.error is not None:
            print_error(node_id, outcome.error, hidden)


def _print_result(graph: Graph, result: RunResult, seconds: float) -> None:
    for line in result_lines(result):
        print(line)
    word = "success" if result.success else "FAILED"
    tasks = f"{len(graph.nodes)} task{'' if len(graph.nodes) == 1 else 's'}"
    print(f"{graph.name}: {word}, {tasks} in {seconds:.2f} s, run {result.run_id}")


def print_error(node_id: str, error: BaseException, hidden: Sequence[str]) -> None:
    """Show where the user's code failed, without the frames of this package and hidden values."""
    if isinstance(error, DbndError):
        text = f"task {node_id} failed: {type(error).__name__}: {error}\n"
    else:
        text = f"task {node_id} failed:\n{user_traceback(error)}"
    print(masked(text, hidden), end="", file=sys.stderr)
