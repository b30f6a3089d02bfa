"""``dbnd list`` and ``dbnd show``: what a file holds, and what a run of it would be."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from airflow_provider_dbnd.cli.loading import load_module, runnables
from airflow_provider_dbnd.cli.run import graph_of, prepare
from airflow_provider_dbnd.cli.tables import parameter_rows, print_rows
from airflow_provider_dbnd.core.conversion import type_text
from airflow_provider_dbnd.core.graph import Node, NodeHandle, walk
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.resolution import Sources, resolve
from airflow_provider_dbnd.core.runner import order
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.core.standin import BuildParameter
from airflow_provider_dbnd.exceptions import DbndError

_PACKAGE = b"airflow_provider_dbnd"
_SKIPPED = frozenset(("__pycache__", "node_modules", "site-packages"))


def list_runnables(paths: Iterable[str]) -> int:
    """Print the tasks and pipelines of files and folders; return 1 where a file is broken."""
    rows, errors = [], []
    import_path = list(sys.path)
    for file in _files(paths):
        # What lies beside one file is not for the next one to import.
        sys.path[:] = import_path
        try:
            found = runnables(load_module(str(file)))
        except DbndError as exc:
            errors.append(str(exc))
            continue
        for name, runnable in found.items():
            signature = inspect.signature(runnable.function)
            doc = (inspect.getdoc(runnable.function) or "").partition("\n")[0]
            parameters = f"({', '.join(signature.parameters)})"
            rows.append([f"{file}:{name}", runnable.definition.kind, parameters, doc])
    print_rows(rows)
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


def show(target: str, assignments: list[str], environment: str | None) -> int:
    """Print parameters with sources and the graph of a pipeline or task."""
    prepared = prepare(target, assignments, environment)
    definition, settings = prepared.runnable.definition, prepared.settings
    graph = graph_of(prepared)
    print(f"{definition.kind} {definition.name}")
    if doc := inspect.getdoc(definition.function):
        print(f"  {doc.partition(chr(10))[0]}")
    print(f"  store {settings.store}  ({settings.store_source})")
    print_rows(parameter_rows(definition, prepared.sources), indent="  ")
    fixed = sorted(p.key for p in graph.parameters.values() if p.fixed)
    if fixed:
        print(f"  fixed when the graph is built: {', '.join(fixed)}")
    print("tasks")
    for node in order(graph):
        _print_node(node, prepared.sources)
    return 0


def _print_node(node: Node, sources: Sources) -> None:
    signature = node.call.definition.signature
    outputs = ", ".join(f"{s.name}: {type_text(s.annotation)}" for s in signature.outputs)
    after = f"  after {', '.join(sorted(node.upstream))}" if node.upstream else ""
    print(f"  {node.id} -> {outputs or 'nothing'}{after}")
    rows = [
        [spec.name, type_text(spec.annotation), *_value_and_source(node, spec, sources)]
        for spec in signature.inputs.values()
    ]
    print_rows(rows, indent="      ")


def _value_and_source(node: Node, spec: Input, sources: Sources) -> tuple[str, str]:
    mapped = node.call.mapped if isinstance(node.call.mapped, dict) else {}
    each = "each element of " if spec.name in mapped else ""
    given = mapped.get(spec.name, node.call.arguments.get(spec.name, MISSING))
    value = resolve(node.id, spec, given, sources)
    if value is None:
        return "-", "each row" if node.call.mapped is not None else "required"
    if isinstance(value.value, BuildParameter):
        return value.value.key, "pipeline parameter"
    if any(isinstance(leaf, NodeHandle) for leaf in walk(value.value)):
        return f"{each}{value.value!r}", "upstream task"
    return f"{each}{value.shown(60)}", value.source


def _files(paths: Iterable[str]) -> Iterator[Path]:
    """Yield files as given, and those below a folder that use this package."""
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _SKIPPED)
            for name in sorted(names):
                file = Path(folder, name)
                # Importing runs a file: nothing is run that cannot hold what is listed.
                if file.suffix == ".py" and _PACKAGE in file.read_bytes():
                    yield file
