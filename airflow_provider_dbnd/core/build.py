"""From a pipeline's body to a graph, for either back end; and the local back end itself."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.graph import (
    Builder,
    Call,
    Graph,
    Handle,
    Node,
    NodeHandle,
    building,
    unwrap,
    walk,
)
from airflow_provider_dbnd.core.parameters import MISSING, RunValue
from airflow_provider_dbnd.core.resolution import Sources, check_keys, resolve
from airflow_provider_dbnd.core.standin import BuildParameter, StandIn, identity_checked
from airflow_provider_dbnd.exceptions import GraphError


def build_body(
    builder: Builder, definition: Definition, owner: str, given: Mapping[str, Any]
) -> Any:
    """Run the body of a pipeline with stand-ins for its parameters; return what it returns.

    :param owner: the id its parameters are addressed by: the pipeline's name or its group's id.
    :param given: arguments of the call, by parameter name.
    """
    compared = identity_checked(definition.function)
    values = {
        name: _argument(builder, definition, owner, name, given, compared)
        for name, spec in definition.signature.inputs.items()
        if name in given
        or spec.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }
    args, kwargs = definition.signature.spread(values)
    with building(builder):
        return definition.function(*args, **kwargs)


def _argument(
    builder: Builder,
    definition: Definition,
    owner: str,
    name: str,
    given: Mapping[str, Any],
    compared: frozenset[str],
) -> Any:
    value = unwrap(given[name]) if name in given else MISSING
    if any(isinstance(leaf, Handle | BuildParameter) for leaf in walk(value)):
        return given[name]
    parameter = builder.parameter(owner, definition, name, value)
    known = parameter.value is not None and not isinstance(parameter.value.value, RunValue)
    return parameter.build_value() if known and name in compared else StandIn(parameter)


def build_parameter(
    owner: str, definition: Definition, name: str, given: Any, sources: Sources
) -> BuildParameter:
    """Resolve one pipeline parameter for the graph under construction."""
    spec = definition.signature.inputs[name]
    value = resolve(owner, spec, given, sources)
    return BuildParameter(owner, spec, value, data=formats.is_data_type(spec.annotation))


class GraphBuilder:
    """Collects the nodes of a graph for the local runner."""

    def __init__(self, name: str, sources: Sources) -> None:
        self.graph = Graph(name=name)
        self._sources = sources
        self._groups: list[str] = []

    def add(self, call: Call) -> Handle:
        base = ".".join((*self._groups, call.definition.name))
        node = Node(id=self._unique(base), call=call)
        for leaf in (*walk(call.arguments), *walk(call.mapped)):
            if isinstance(leaf, NodeHandle):
                node.upstream.add(leaf._node.id)
        self.graph.nodes[node.id] = node
        return NodeHandle(self.graph, node)

    @contextlib.contextmanager
    def group(self, definition: Definition, name: str) -> Iterator[str]:
        taken = {n.rpartition(".")[0] for n in self.graph.nodes} | {
            p.owner for p in self.graph.parameters.values()
        }
        path = ".".join((*self._groups, name))
        number, unique = 0, path
        while unique in taken:
            number += 1
            unique = f"{path}__{number}"
        self._groups.append(unique.rpartition(".")[2])
        try:
            yield unique
        finally:
            self._groups.pop()

    def parameter(
        self, owner: str, definition: Definition, name: str, given: Any
    ) -> BuildParameter:
        parameter = build_parameter(owner, definition, name, given, self._sources)
        self.graph.parameters[parameter.key] = parameter
        return parameter

    def _unique(self, base: str) -> str:
        number, unique = 0, base
        while unique in self.graph.nodes:
            number += 1
            unique = f"{base}__{number}"
        return unique


def build_graph(
    definition: Definition, sources: Sources, given: Mapping[str, Any] | None = None
) -> Graph:
    """Build the graph of a pipeline, or the one-node graph of a task, for a local run."""
    builder = GraphBuilder(definition.name, sources)
    if definition.kind == "pipeline":
        builder.graph.result = build_body(builder, definition, definition.name, given or {})
    else:
        builder.graph.result = builder.add(Call(definition=definition, arguments=dict(given or {})))
    graph = builder.graph
    if not graph.nodes:
        raise GraphError(
            f"Pipeline {definition.name!r} calls no task: decorate the functions it calls with @task."
        )
    check_names(definition, graph.nodes)
    check_keys(sources, known_parameters(definition, graph))
    return graph


def check_names(definition: Definition, task_ids: Iterator[str] | Mapping[str, Any]) -> None:
    """Refuse a task named as its pipeline: their parameters could not be told apart."""
    if definition.kind == "pipeline" and definition.name in task_ids:
        raise GraphError(
            f"Pipeline and task are both named {definition.name!r}; give one of them task_id=..."
        )


def known_parameters(definition: Definition, graph: Graph) -> dict[str, list[str]]:
    """Return the parameter names of the root, each group and each task of *graph*."""
    known: dict[str, list[str]] = {definition.name: list(definition.signature.inputs)}
    for parameter in graph.parameters.values():
        names = known.setdefault(parameter.owner, [])
        if parameter.spec.name not in names:
            names.append(parameter.spec.name)
    for node in graph.nodes.values():
        known.setdefault(node.id, []).extend(
            n for n in node.call.definition.signature.inputs if n not in known.get(node.id, ())
        )
    return known
