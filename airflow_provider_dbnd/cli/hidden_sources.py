"""Where the hidden values of a run come from: no record holds them, so resuming has to find them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from airflow_provider_dbnd.core.graph import Graph
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.resolution import Sources, keys, resolve
from airflow_provider_dbnd.exceptions import ParameterError


def hidden_sources(graph: Graph, sources: Sources) -> dict[str, str]:
    """Return the source of each hidden value by its parameter's key."""
    return {f"{owner}.{name}": source for _, owner, name, source in _found(graph, sources)}


def check_hidden(
    graph: Graph, sources: Sources, recorded: Mapping[str, str], *, given: str
) -> None:
    """Raise ParameterError where a hidden value of a recorded run would not come again.

    :param recorded: what :func:`hidden_sources` gave for that run.
    :param given: the source of what whoever resumes gives.
    """
    for kind, owner, name, source in _found(graph, sources):
        before = recorded.get(f"{owner}.{name}", source)
        if source not in (before, given):
            key = keys(owner, name, sources)[-1]
            raise ParameterError(
                f"parameter {name!r} of {kind} {owner!r} is hidden, so its value was not recorded: "
                f"expected it from {before}, as the run had it, got it from {source}. Give it by "
                f"--set {key}=..."
            )


def _found(
    graph: Graph, sources: Sources
) -> Iterator[tuple[Literal["pipeline", "task"], str, str, str]]:
    for parameter in graph.parameters.values():
        spec = parameter.spec
        if spec.declaration.hidden and parameter.value is not None:
            yield "pipeline", parameter.owner, spec.name, parameter.value.source
    for node in graph.nodes.values():
        for name, spec in node.call.definition.signature.inputs.items():
            if spec.declaration.hidden:
                value = resolve(node.id, spec, node.call.arguments.get(name, MISSING), sources)
                if value is not None:
                    yield "task", node.id, name, value.source
