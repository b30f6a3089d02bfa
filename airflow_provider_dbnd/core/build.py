"""From a pipeline's body to a graph, for either back end; and the local back end itself."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.conversion import record_fields
from airflow_provider_dbnd.core.definition import INHERITED, Definition
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
from airflow_provider_dbnd.core.options import configured
from airflow_provider_dbnd.core.parameters import MISSING, RunValue
from airflow_provider_dbnd.core.resolution import (
    REUSE,
    Sources,
    check_keys,
    missing,
    names_of,
    resolve,
)
from airflow_provider_dbnd.core.standin import BuildParameter, StandIn, identity_checked
from airflow_provider_dbnd.core.tracebacks import user_line, user_traceback
from airflow_provider_dbnd.exceptions import DbndError, GraphError

#: The pipelines whose bodies are running, from the outermost in.
_BODIES: ContextVar[tuple[Definition, ...]] = ContextVar("dbnd_bodies", default=())

#: How often a pipeline may be inside itself, and how long its group's id may be then: Airflow refuses
#: ids of 250 characters, which would come first where names are long.
_DEEPEST, _LONGEST = 20, 200


def build_body(
    builder: Builder, definition: Definition, owner: str, given: Mapping[str, Any]
) -> Any:
    """Run the body of a pipeline with stand-ins for its parameters; return what it returns.

    :param owner: the id its parameters are addressed by: the pipeline's name or its group's id.
    :param given: arguments of the call, by parameter name.
    """
    bodies = (*_BODIES.get(), definition)
    _check_circle(bodies, owner)
    compared = identity_checked(definition.function)
    values: dict[str, Any] = {}
    for name, spec in definition.signature.inputs.items():
        argument = unwrap(given[name]) if name in given else MISSING
        if any(isinstance(leaf, Handle | BuildParameter) for leaf in walk(argument)):
            values[name] = given[name]  # of a task or of the pipeline around this one
        elif name in given or not spec.variadic:
            parameter = builder.parameter(owner, definition, name, argument)
            values[name] = _stand_in(parameter, compared=name in compared)
    args, kwargs = definition.signature.spread(values)
    inherited = {k: v for k, v in definition.options.items() if k in INHERITED}
    token = _BODIES.set(bodies)
    try:
        with building(builder, inherited):
            return definition.function(*args, **kwargs)
    finally:
        _BODIES.reset(token)


def _check_circle(bodies: tuple[Definition, ...], owner: str) -> None:
    """Refuse pipelines that call each other without an end; they may, up to a depth."""
    same = [at for at, body in enumerate(bodies) if body.function is bodies[-1].function]
    if len(same) > _DEEPEST or (len(same) > 1 and len(owner) > _LONGEST):
        names = " -> ".join(body.signature.name for body in bodies[same[-2] :])
        raise GraphError(
            f"Pipelines call each other in a circle without an end: {names}. Stop it by a value that "
            "is known while the graph is built, or loop inside a task."
        )


@contextlib.contextmanager
def body_errors(definition: Definition) -> Iterator[None]:
    """Tell of errors in a pipeline's body where in the user's code they come from."""
    try:
        yield
    except DbndError as exc:
        where = user_line(exc)
        if where is not None and where not in str(exc):
            exc.args = (f"{exc}\n  at {where}",)
        raise
    except Exception as exc:
        raise GraphError(
            f"Pipeline {definition.name!r} failed while its graph was built:\n"
            f"{user_traceback(exc).rstrip()}"
        ) from exc


def _stand_in(parameter: BuildParameter, *, compared: bool) -> Any:
    """Return the stand-in, or the value itself where the body compares it by identity."""
    known = parameter.value is not None and not isinstance(parameter.value.value, RunValue)
    return parameter.build_value() if known and compared else StandIn(parameter)


def build_parameter(
    owner: str, definition: Definition, name: str, given: Any, sources: Sources
) -> BuildParameter:
    """Resolve one pipeline parameter for the graph under construction."""
    spec = definition.signature.inputs[name]
    value = resolve(owner, spec, given, sources)
    parameter = BuildParameter(owner, spec, value, data=_holds_data(spec.annotation))
    if value is not None:
        # A value that does not fit fails here, before any task has run on it.
        parameter.as_type(value)
    return parameter


def _holds_data(annotation: Any) -> bool:
    """Tell whether values of a type are, or hold, data that a task loads."""
    if formats.is_data_type(annotation) or annotation is Artifact:
        return True
    arms = (*typing.get_args(annotation), *record_fields(annotation).values())
    return any(_holds_data(arm) for arm in arms)


class GraphBuilder:
    """Collects the nodes of a graph for the local runner."""

    def __init__(self, name: str, sources: Sources) -> None:
        self.graph = Graph(name=name)
        self._sources = sources
        self._groups: list[str] = []
        self._taken: set[str] = set()

    def add(self, call: Call) -> Handle:
        """Make a node under a free id; ``[tasks.ID]`` of dbnd.toml is laid over its options."""
        task_id = self._free(call.definition.name)
        definition = configured(call.definition, task_id, self._sources.settings)
        call = replace(call, definition=definition)
        node = Node(id=task_id, call=call)
        for leaf in (*walk(call.arguments), *walk(call.mapped)):
            if isinstance(leaf, NodeHandle):
                node.upstream.add(leaf._node.id)
        self.graph.nodes[node.id] = node
        return NodeHandle(self.graph, node)

    @contextlib.contextmanager
    def group(self, definition: Definition, name: str) -> Iterator[str]:  # noqa: ARG002 - protocol
        """Prefix the ids of tasks made meanwhile."""
        group_id = self._free(name)
        self._groups.append(group_id.rpartition(".")[2])
        try:
            yield group_id
        finally:
            self._groups.pop()

    def parameter(
        self, owner: str, definition: Definition, name: str, given: Any
    ) -> BuildParameter:
        """Resolve a pipeline's parameter."""
        parameter = build_parameter(owner, definition, name, given, self._sources)
        self.graph.parameters[parameter.key] = parameter
        return parameter

    def _free(self, name: str) -> str:
        """Return the id for *name* in the current group: numbered as Airflow does if taken."""
        base = unique = ".".join((*self._groups, name))
        number = 0
        while unique in self._taken:
            number += 1
            unique = f"{base}__{number}"
        self._taken.add(unique)
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
            f"Pipeline {definition.name!r} calls no task: decorate the functions it calls with "
            "@task."
        )
    check_names(definition, graph.nodes)
    check_keys(sources, known_parameters(definition, graph))
    for node in graph.nodes.values():
        check_required(node.id, node.call, sources)
    return graph


def check_required(task_id: str, call: Call, sources: Sources) -> None:
    """Raise ParameterError for a parameter that neither the call nor any other source gives."""
    if call.mapped is not None and not isinstance(call.mapped, Mapping):
        return  # rows of arguments, which may be known only in the run
    for name, spec in call.definition.signature.inputs.items():
        given = name in call.arguments or name in (call.mapped or {})
        if spec.required and not given and resolve(task_id, spec, MISSING, sources) is None:
            raise missing(task_id, spec, sources)


def check_names(definition: Definition, task_ids: Iterator[str] | Mapping[str, Any]) -> None:
    """Refuse a task named as its pipeline: their parameters could not be told apart."""
    if definition.kind == "pipeline" and definition.name in task_ids:
        raise GraphError(
            f"Pipeline and task are both named {definition.name!r}. Call the task with task_id=... "
            "to name it otherwise."
        )


def known_parameters(definition: Definition, graph: Graph) -> dict[str, list[str]]:
    """Return the parameter names of the root, each group and each task of *graph*."""
    known: dict[str, list[str]] = {definition.name: [*definition.signature.inputs, REUSE]}
    for parameter in graph.parameters.values():
        names = known.setdefault(parameter.owner, [])
        if parameter.spec.name not in names:
            names.append(parameter.spec.name)
    for node in graph.nodes.values():
        known.setdefault(node.id, []).extend(
            n for n in names_of(node.call.definition.signature) if n not in known.get(node.id, ())
        )
    return known
