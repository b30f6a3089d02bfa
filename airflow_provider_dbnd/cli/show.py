"""``dbnd list`` and ``dbnd show``: what a file holds, and what a run of it would be."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path

from airflow_provider_dbnd.cli.loading import load_module, runnables
from airflow_provider_dbnd.cli.run import prepare
from airflow_provider_dbnd.cli.tables import parameter_rows, print_rows
from airflow_provider_dbnd.core.build import build_graph
from airflow_provider_dbnd.core.conversion import type_text
from airflow_provider_dbnd.core.graph import Graph, Node, NodeHandle, walk
from airflow_provider_dbnd.core.resolution import MASK, Sources, resolve, shown
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.runner import order
from airflow_provider_dbnd.core.standin import BuildParameter
from airflow_provider_dbnd.exceptions import DbndError


def list_runnables(paths: Iterable[str]) -> int:
    """Print the tasks and pipelines of files and folders."""
    rows, broken = [], 0
    for file in _files(paths):
        try:
            found = runnables(load_module(str(file)))
        except (DbndError, ImportError, SyntaxError) as exc:
            rows.append([str(file), "error", "", f"{type(exc).__name__}: {exc}".splitlines()[0]])
            broken += 1
            continue
        for name, runnable in found.items():
            doc = (inspect.getdoc(runnable.function) or "").partition("\n")[0]
            rows.append(
                [
                    f"{file}:{name}",
                    runnable.definition.kind,
                    _signature(runnable.definition.function),
                    doc,
                ]
            )
    print_rows(rows)
    return 1 if broken else 0


def show(target: str, assignments: list[str], environment: str | None) -> int:
    """Print parameters with sources and the graph of a pipeline or task."""
    runnable, settings, sources = prepare(target, assignments, environment)
    graph = build_graph(runnable.definition, sources)
    print(f"{runnable.definition.kind} {runnable.definition.name}")
    if doc := inspect.getdoc(runnable.function):
        print(f"  {doc.partition(chr(10))[0]}")
    print(f"  store {settings.store}  ({settings.store_source})")
    print_rows(parameter_rows(runnable.definition, sources), indent="  ")
    fixed = sorted(p.spec.name for p in graph.parameters.values() if p.fixed)
    if fixed:
        print(f"  fixed when the graph is built: {', '.join(fixed)}")
    print("tasks")
    for node in order(graph):
        _print_node(graph, node, sources)
    return 0


def _print_node(graph: Graph, node: Node, sources: Sources) -> None:
    definition = node.call.definition
    outputs = ", ".join(
        f"{s.name}: {type_text(s.annotation)}" for s in definition.signature.outputs
    )
    after = f"  after {', '.join(sorted(node.upstream))}" if node.upstream else ""
    print(f"  {node.id} -> {outputs or 'nothing'}{after}")
    rows = []
    for name, spec in definition.signature.inputs.items():
        given = (node.call.mapped if isinstance(node.call.mapped, dict) else {}).get(
            name, node.call.arguments.get(name, MISSING)
        )
        value = resolve(node.id, spec, given, sources)
        if value is None:
            rows.append([name, type_text(spec.annotation), "-", "required"])
        elif isinstance(value.value, BuildParameter):
            rows.append(
                [name, type_text(spec.annotation), value.value.spec.name, "pipeline parameter"]
            )
        elif any(isinstance(leaf, NodeHandle) for leaf in walk(value.value)):
            each = (
                "each element of "
                if isinstance(node.call.mapped, dict) and name in node.call.mapped
                else ""
            )
            rows.append(
                [name, type_text(spec.annotation), f"{each}{value.value!r}", "upstream task"]
            )
        else:
            text = MASK if spec.declaration.hidden else shown(value.value, 60)
            rows.append([name, type_text(spec.annotation), text, value.source])
    print_rows(rows, indent="      ")


def _files(paths: Iterable[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _signature(function: object) -> str:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    return f"({', '.join(parameters)})"
