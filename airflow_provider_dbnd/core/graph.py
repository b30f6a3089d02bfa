"""The graph a pipeline's body builds: nodes, and handles on results that do not exist yet.

Two back ends build it through one :class:`Builder` protocol: :class:`GraphBuilder` here, for the
local runner, and the one that makes Airflow operators. Everything a call means (binding, edge
checks, unpacking, fan-out) is decided before either is asked for a node.
"""

from __future__ import annotations

import contextlib
import dis
import itertools
import sys
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import FrameType, MappingProxyType
from typing import Any, Protocol

from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.conversion import elements_of, values_of
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.edges import check_edge
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.resolution import Value
from airflow_provider_dbnd.core.signature import OutputSlot
from airflow_provider_dbnd.core.standin import BuildParameter, parameter_of
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import GraphError, ParameterError, SignatureError


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a task while a graph is built.

    ``arguments`` and ``mapped`` hold plain values, :class:`Handle` and :class:`BuildParameter`,
    also inside lists, tuples and dicts. ``mapped`` is None, a dict of lists to take the product of
    (``expand``), or a list of dicts (``expand_kwargs``); either may be a handle.
    """

    definition: Definition
    arguments: Mapping[str, Any]
    mapped: Any = None


class Builder(Protocol):
    """Makes the nodes of a graph."""

    def add(self, call: Call) -> Handle:
        """Make a node for *call* and return the handle on its result."""

    def group(self, definition: Definition, name: str) -> contextlib.AbstractContextManager[str]:
        """Open a group for a nested pipeline; yields the group's id."""

    def parameter(
        self, owner: str, definition: Definition, name: str, given: Any
    ) -> BuildParameter:
        """Return the parameter *name* of the pipeline that became group or root *owner*."""


class Handle(ABC):
    """The result of a task that has not run: unpack it, index it, hand it to other tasks."""

    _definition: Definition
    _mapped: bool
    _path: tuple[Any, ...]

    @abstractmethod
    def _child(self, path: tuple[Any, ...]) -> Any:
        """Return the handle on a part of the result."""

    def _slot(self) -> OutputSlot | None:
        """The output this handle stands for, where it stands for exactly one."""
        signature, path = self._definition.signature, self._path
        if signature.shape == "single" and not path:
            return signature.outputs[0]
        if signature.shape in ("tuple", "record") and len(path) == 1:
            return next((slot for slot in signature.outputs if slot.name == path[0]), None)
        return None

    def _names(self) -> tuple[str, ...]:
        """Names of the outputs this handle splits into."""
        signature = self._definition.signature
        if self._path or self._mapped or signature.shape not in ("tuple", "record"):
            return ()
        return tuple(slot.name for slot in signature.outputs)

    def _annotation(self) -> Any:
        """The type of what this handle stands for; MISSING where only a run can tell."""
        if self._mapped:
            return MISSING
        slot = self._slot()
        if slot is not None:
            return slot.annotation
        return MISSING if self._path else self._definition.signature.returns

    def _unknown(self, so: str) -> GraphError:
        return not_known(self._definition.name, so)

    def __bool__(self) -> bool:
        raise self._unknown("it cannot decide what the graph is. Branch inside a task.")

    def __eq__(self, other: object) -> bool:
        raise self._unknown(_COMPARED)

    def __ne__(self, other: object) -> bool:
        raise self._unknown(_COMPARED)

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __str__(self) -> str:
        raise self._unknown(IN_TEXT)

    def __format__(self, spec: str) -> str:
        raise self._unknown(IN_TEXT)

    def __contains__(self, item: object) -> bool:
        raise self._unknown("nothing can be looked for in it. Look inside a task.")

    def __iter__(self) -> Iterator[Any]:
        names = self._names()
        if not names:
            hint = "fan out over it with .expand(...)"
            if not self._mapped and not self._path:
                hint = (
                    f"annotate what {self._definition.signature.name}() returns as tuple[...] to "
                    f"unpack it, or {hint}"
                )
            raise GraphError(
                f"The result of task {self._definition.name!r} is not known yet: {hint}."
            )
        targets = unpacked_into(sys._getframe(1))
        if targets not in (None, len(names)):
            raise GraphError(
                f"Task {self._definition.name!r} has {len(names)} outputs, {', '.join(names)}: they "
                f"cannot be unpacked into {targets}."
            )
        return iter([self._child((name,)) for name in names])

    def __getitem__(self, item: Any) -> Any:
        names = self._names()
        if names:
            if isinstance(item, int) and -len(names) <= item < len(names):
                item = names[item]
            if item not in names:
                raise GraphError(
                    f"Task {self._definition.name!r} has no output {item!r}; "
                    f"it has {', '.join(names)}."
                )
            return self._child((item,))
        if self._definition.signature.shape == "none":
            raise GraphError(f"Task {self._definition.name!r} returns nothing to take {item!r} of.")
        if not isinstance(item, str | int):
            raise GraphError(
                f"The result of task {self._definition.name!r} can be indexed by a name or a "
                f"number, got {item!r}. Take the part inside a task."
            )
        return self._child((*self._path, item))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._names():
            return self._child((name,))
        raise AttributeError(
            f"The result of task {self._definition.name!r} has no attribute {name!r}: its value is "
            "not known while the graph is built. Use it inside a task."
        )


def not_known(task: str, so: str) -> GraphError:
    """Make the error for a use that would need the result of *task* while the graph is built."""
    return GraphError(f"The result of task {task!r} is not known while the graph is built, so {so}")


_COMPARED = "it cannot be compared. Compare inside a task."
IN_TEXT = "it cannot be part of a text. Make the text inside a task."
_COUNTED = "it cannot be calculated with. Calculate inside a task."
_ORDER = ("lt", "le", "gt", "ge")
_ARITHMETIC = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow")
_BITWISE = ("and", "xor", "or")
_NUMBER = ("neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil")
_NUMBER_TYPES = ("int", "float", "complex", "index")


def _refused(so: str) -> Callable[..., Any]:
    def method(self: Handle, *_: Any) -> Any:
        raise self._unknown(so)

    return method


for _name in _ORDER:
    setattr(Handle, f"__{_name}__", _refused(_COMPARED))
for _name in _ARITHMETIC + _BITWISE:
    setattr(Handle, f"__{_name}__", _refused(_COUNTED))
    setattr(Handle, f"__r{_name}__", _refused(_COUNTED))
for _name in _NUMBER + _NUMBER_TYPES:
    setattr(Handle, f"__{_name}__", _refused(_COUNTED))


def unpacked_into(frame: FrameType) -> int | None:
    """Return into how many names *frame* is unpacking; None where it does something else."""
    code, at = frame.f_code.co_code, frame.f_lasti
    return code[at + 1] if dis.opname[code[at]] == "UNPACK_SEQUENCE" else None


@dataclass(eq=False)
class Node:
    """One task of a local graph."""

    id: str
    call: Call
    upstream: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Graph:
    """What :class:`GraphBuilder` builds; ``result`` is what the pipeline's body returned."""

    name: str
    nodes: dict[str, Node] = field(default_factory=dict)
    parameters: dict[str, BuildParameter] = field(default_factory=dict)
    result: Any = None


class NodeHandle(Handle):
    """A handle on a node of a local graph."""

    def __init__(self, graph: Graph, node: Node, path: tuple[Any, ...] = ()) -> None:
        self._graph, self._node, self._path = graph, node, path
        self._definition = node.call.definition
        self._mapped = node.call.mapped is not None

    def _child(self, path: tuple[Any, ...]) -> NodeHandle:
        return NodeHandle(self._graph, self._node, path)

    def __rshift__(self, other: Any) -> Any:
        for handle in _handles(other, self):
            handle._node.upstream.add(self._node.id)
        return other

    def __lshift__(self, other: Any) -> Any:
        for handle in _handles(other, self):
            self._node.upstream.add(handle._node.id)
        return other

    def __rrshift__(self, other: Any) -> Any:
        self << other
        return self

    def __rlshift__(self, other: Any) -> Any:
        self >> other
        return self

    def __len__(self) -> int:
        # TaskResult has none: Airflow takes what is Sized for a list that is known.
        raise self._unknown("it has no length yet. Fan out over it with .expand(...).")

    def __repr__(self) -> str:
        return f"<result of {self._node.id}{''.join(f'[{p!r}]' for p in self._path)}>"


def _handles(other: Any, near: NodeHandle) -> Iterator[NodeHandle]:
    for item in other if isinstance(other, list | tuple) else [other]:
        if not isinstance(item, NodeHandle):
            raise GraphError(
                f"{near!r} is ordered against {item!r}, which is no task of this package. A "
                "pipeline with Airflow operators in it runs in Airflow: use `airflow dags test`."
            )
        yield item


_BUILDER: ContextVar[Builder | None] = ContextVar("dbnd_builder", default=None)
_INHERITED: ContextVar[Mapping[str, Any]] = ContextVar(
    "dbnd_inherited", default=MappingProxyType({})
)


def current_builder() -> Builder | None:
    """Return the builder of the graph under construction in this context."""
    return _BUILDER.get()


@contextlib.contextmanager
def building(
    builder: Builder, inherited: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[None]:
    """Make calls of tasks in this block nodes of *builder*.

    :param inherited: options that the tasks have unless they have their own.
    """
    token = _BUILDER.set(builder)
    options = _INHERITED.set({**_INHERITED.get(), **inherited})
    try:
        yield
    finally:
        _BUILDER.reset(token)
        _INHERITED.reset(options)


def add_call(
    builder: Builder, definition: Definition, arguments: Mapping[str, Any], mapped: Any = None
) -> Handle:
    """Add one bound call to the graph after checking its edges."""
    arguments = {name: unwrap(value) for name, value in arguments.items()}
    mapped = unwrap(mapped)
    _check_hidden(definition, mapped)
    mapped = _built(mapped)
    if definition.kind == "task":
        definition = definition.inheriting(_INHERITED.get())
    for name, value in arguments.items():
        _check_value(definition, name, value, definition.signature.inputs[name].annotation)
    for row in mapped if isinstance(mapped, list | tuple) else [mapped]:
        if isinstance(row, Mapping):
            for name, value in row.items():
                _check_mapped(definition, name, value, one=row is not mapped)
    return builder.add(Call(definition=definition, arguments=arguments, mapped=mapped))


def _built(mapped: Any) -> Any:
    """Fan-out over a pipeline's parameter fixes it: it says how many tasks there are."""
    if isinstance(mapped, BuildParameter):
        return mapped.build_value()
    if isinstance(mapped, dict):
        return {
            k: v.build_value() if isinstance(v, BuildParameter) else v for k, v in mapped.items()
        }
    return mapped


def _check_hidden(definition: Definition, mapped: Any) -> None:
    """Refuse to go over a hidden parameter in the open: from here on its elements are plain values."""
    for name, parameter in _mapped_parameters(mapped):
        spec = definition.signature.inputs.get(name)
        if parameter.spec.declaration.hidden and spec and not spec.declaration.hidden:
            raise GraphError(
                f"task {definition.name!r} goes over {parameter.spec.name!r} of {parameter.owner!r}, "
                f"which is hidden, with parameter {name!r}, which is not. Declare {name!r} hidden as "
                "well: parameter(hidden=True)."
            )


def _mapped_parameters(mapped: Any) -> Iterator[tuple[str, BuildParameter]]:
    """Yield the arguments that a pipeline's parameter gives the values of."""
    if isinstance(mapped, BuildParameter):
        rows = mapped.build_value()
        rows = rows if isinstance(rows, list | tuple) else []
        yield from ((name, mapped) for row in rows if isinstance(row, Mapping) for name in row)
    elif isinstance(mapped, Mapping):
        yield from ((n, value) for n, value in mapped.items() if isinstance(value, BuildParameter))


def _check_value(definition: Definition, name: str, value: Any, wanted: Any) -> None:
    """Check every edge into one argument, inside lists and dicts as well."""
    if isinstance(value, Handle):
        check_edge(value._definition, value._annotation(), definition, name, wanted)
    elif type(value) in (list, tuple):
        for item, each in zip(value, elements_of(wanted, len(value)), strict=True):
            _check_value(definition, name, item, each)
    elif type(value) is dict:
        for item in value.values():
            _check_value(definition, name, item, values_of(wanted))


def _check_mapped(definition: Definition, name: str, value: Any, *, one: bool) -> None:
    """Check one mapped argument: a list to go over, or *one* value of a row."""
    inputs = definition.signature.inputs
    where = f"{definition.name}.{'expand_kwargs' if one else 'expand'}()"
    if name not in inputs:
        raise SignatureError(
            f"{where} got an unknown argument {name!r}{did_you_mean(name, inputs)}"
        )
    if one or not isinstance(value, Handle):
        return
    if value._names():
        raise GraphError(
            f"{where} needs one list for {name!r}, but task {value._definition.name!r} has several "
            f"outputs. Pick one: {', '.join(value._names())}."
        )
    if value._path:
        raise GraphError(
            f"{where} cannot fan out over a part of the result of task "
            f"{value._definition.name!r}. Return the list from a task of its own."
        )
    produced = value._annotation()
    if typing.get_origin(produced) is list:
        element = typing.get_args(produced)[0]
        check_edge(value._definition, element, definition, name, inputs[name].annotation)


def unwrap(value: Any) -> Any:
    """Replace stand-ins by their parameters, inside containers too."""
    parameter = parameter_of(value)
    if parameter is not None:
        return parameter
    if isinstance(value, Handle):
        return value
    kind = type(value)
    if kind in (list, tuple):
        return kind(unwrap(v) for v in value)
    if kind is dict:
        return {k: unwrap(v) for k, v in value.items()}
    return value


def walk(value: Any) -> Iterator[Any]:
    """Yield the leaves of nested lists, tuples and dicts."""
    if isinstance(value, list | tuple) and not isinstance(value, Handle):
        for item in value:
            yield from walk(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from walk(item)
    else:
        yield value


def with_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested lists, tuples and dicts with each leaf changed.

    >>> with_leaves({"a": (1, [2])}, str)
    {'a': ('1', ['2'])}
    """
    if type(value) in (list, tuple):
        return type(value)(with_leaves(each, change) for each in value)
    if type(value) is dict:
        return {name: with_leaves(each, change) for name, each in value.items()}
    return change(value)


def filled_in(argument: Any, known: Callable[[Any], Value | None], base: str) -> Any:
    """Return an argument of a call with values in place of its handles and parameters.

    It is a :class:`Value` where it is one of them, and where one in it is hidden.

    :param known: gives what a handle or a parameter stands for, None for all else.
    :param base: where relative paths in the call start from.
    """
    if type(argument) not in (list, tuple, dict):
        value = known(argument)
        return argument if value is None else value
    found: list[Value | None] = []

    def noted(leaf: Any) -> Value | None:
        found.append(known(leaf))
        return found[-1]

    plain = _plain(argument, noted)
    if any(value.hidden for value in found if value is not None):
        return Value(value=plain, source="call", base=base, hidden=True)
    return plain


def _plain(argument: Any, known: Callable[[Any], Value | None]) -> Any:
    if type(argument) in (list, tuple):
        return [_plain(each, known) for each in argument]
    if type(argument) is dict:
        return {k: _plain(v, known) for k, v in argument.items()}
    value = known(argument)
    return argument if value is None else value.value


def expand(task_id: str, mapped: Any, known: Callable[[Any], Any]) -> Iterator[dict[str, Any]]:
    """Yield the mapped arguments of each instance of a task, in map order.

    :param mapped: as in :class:`Call`.
    :param known: fills in an argument, as :func:`filled_in` does.
    """
    if not isinstance(mapped, Mapping):
        given = known(mapped)
        for row in _elements(task_id, "expand_kwargs", given):
            yield {name: _as_hidden(given, value) for name, value in dict(row).items()}
        return
    lists = []
    for name, value in mapped.items():
        given = known(value)
        lists.append([_as_hidden(given, each) for each in _elements(task_id, name, given)])
    for row in itertools.product(*lists):
        yield dict(zip(mapped, row, strict=True))


def _as_hidden(given: Any, part: Any) -> Any:
    """Return a part of *given*, hidden where that is."""
    hidden = isinstance(given, Value) and given.hidden
    return replace(given, value=part) if hidden else part


def _elements(task_id: str, name: str, given: Any) -> list[Any]:
    value = given.value if isinstance(given, Value) else given
    if isinstance(value, Mapping) and not is_reference(value):
        return [list(item) for item in value.items()]
    if not isinstance(value, list | tuple):
        got = "one stored object" if is_reference(value) else type(value).__name__
        raise ParameterError(
            f"task {task_id!r} is expanded over {name!r}: expected a list, got {got}. "
            "Return a list from the task before it."
        )
    return list(value)
