"""Transparent stand-ins for pipeline parameters while a graph is built.

Handed to a task, a stand-in stays a reference that a run can change. Used by Python itself
(``range(n)``, ``if flag``, formatting) it gives its build-time value, and its parameter becomes
*fixed*: the shape of the graph now depends on it.
"""

from __future__ import annotations

import ast
import dis
import inspect
import logging
import operator
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from airflow_provider_dbnd.core.parameters import RunValue
from airflow_provider_dbnd.core.resolution import Value, converted
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.exceptions import GraphError

log = logging.getLogger("airflow_provider_dbnd")


class BuildParameter:
    """A pipeline's parameter while its graph is built.

    :param owner: the pipeline's name, or the id of the group it became.
    """

    def __init__(self, owner: str, spec: Input, value: Value | None, *, data: bool) -> None:
        self.owner = owner
        self.spec = spec
        self.value = value
        self.fixed = False
        self._data = data

    @property
    def key(self) -> str:
        """``owner.name``, by which run-time values address it."""
        return f"{self.owner}.{self.spec.name}"

    @property
    def hidden(self) -> bool:
        """Whether its value is to be masked wherever it goes."""
        return self.spec.declaration.hidden

    def build_value(self) -> Any:
        """Return the value Python sees at build time, and fix the parameter."""
        self.fixed = True
        where = f"parameter {self.spec.name!r} of pipeline {self.owner!r}"
        if self.value is None:
            raise GraphError(
                f"{where} has no value while the graph is built, but the pipeline's body uses it. "
                "Give it a default, or hand it to a task, which gets the run's value."
            )
        if isinstance(self.value.value, RunValue):
            raise GraphError(
                f"{where} is known only in a run ({self.value.value!r}), but the pipeline's body "
                "uses it. Hand it to a task instead."
            )
        return self.as_type(self.value).value

    def as_type(self, value: Value) -> Value:
        """Return *value* as the parameter's type; what a task loads or a run fills in stays."""
        if isinstance(value.value, RunValue):
            typed = replace(value.value, annotation=self.spec.annotation)
            return replace(value, value=typed)
        if self._data:
            return value
        return replace(value, value=converted(self.owner, self.spec, value, kind="pipeline"))

    def __repr__(self) -> str:
        return f"<parameter {self.key}>"


def parameter_of(value: object) -> BuildParameter | None:
    """Return the parameter a stand-in stands for; None for any other object."""
    # type() and not isinstance(): a stand-in answers isinstance() as its value would.
    return object.__getattribute__(value, "_parameter") if type(value) is StandIn else None


def identity_checked(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names *function* compares with ``is``, which no stand-in can answer."""
    tree = _source_of(function)
    if tree is None:
        return _compared_somewhere(function)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            if any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
                names.update(_operands(node.left, *node.comparators))
        elif isinstance(node, ast.Match):
            names.update(_operands(node.subject))
    return frozenset(names)


def _source_of(function: Callable[..., Any]) -> ast.AST | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    # For a function made by exec() Python may return lines of the module that made it.
    named = isinstance(tree.body[0], ast.FunctionDef) and tree.body[0].name == function.__name__
    return tree if named else None


def _compared_somewhere(function: Callable[..., Any]) -> frozenset[str]:
    """Return every name where the code, made by exec(), has a comparison that could be of any."""
    if not any(map(_is_identity_check, _instructions(inspect.unwrap(function).__code__))):
        return frozenset()
    log.warning(
        "pipeline %s compares with `is` or `match`, and its source cannot be read to tell what: all its "
        "parameters with a value are fixed. Define it in a file to have them in the trigger form.",
        function.__name__,
    )
    return frozenset(inspect.signature(function).parameters)


def _instructions(code: types.CodeType) -> Iterator[str]:
    yield from (each.opname for each in dis.get_instructions(code))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant)


def _is_identity_check(instruction: str) -> bool:
    # `x is None` of a condition is a jump of its own since Python 3.11.
    return instruction == "IS_OP" or instruction.startswith("MATCH_") or "_NONE" in instruction


def _operands(*nodes: ast.expr) -> Iterator[str]:
    """Yield the names whose values an expression may hand on unchanged."""
    for node in nodes:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Tuple | ast.List):
            yield from _operands(*node.elts)
        elif isinstance(node, ast.BoolOp):
            yield from _operands(*node.values)
        elif isinstance(node, ast.IfExp):
            yield from _operands(node.body, node.orelse)
        elif isinstance(node, ast.NamedExpr):
            yield from _operands(node.value)


class StandIn:
    """Behaves as the parameter's build-time value wherever Python looks at it."""

    __slots__ = ("_parameter",)

    def __init__(self, parameter: BuildParameter) -> None:
        object.__setattr__(self, "_parameter", parameter)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        value = object.__getattribute__(self, "_parameter").value
        return (
            StandIn
            if value is None or isinstance(value.value, RunValue)
            else type(_value(self, fix=False))
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(_value(self), name)

    def __repr__(self) -> str:
        return repr(_value(self))

    def __str__(self) -> str:
        return str(_value(self))

    def __format__(self, spec: str) -> str:
        return format(_value(self), spec)

    def __bool__(self) -> bool:
        return bool(_value(self))

    def __hash__(self) -> int:
        return hash(_value(self))

    def __fspath__(self) -> str:
        return str(_value(self))

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self


def _value(standin: StandIn, *, fix: bool = True) -> Any:
    parameter: BuildParameter = object.__getattribute__(standin, "_parameter")
    if fix:
        return parameter.build_value()
    was_fixed = parameter.fixed
    try:
        return parameter.build_value()
    finally:
        parameter.fixed = was_fixed


def _plain(value: Any) -> Any:
    return _value(value) if type(value) is StandIn else value


def _forward(name: str) -> Callable[..., Any]:
    def method(self: StandIn, *args: Any) -> Any:
        value = _value(self)
        special = getattr(type(value), name, None)
        if special is None:
            raise TypeError(f"{type(value).__name__!r} object does not support {name}")
        return special(value, *map(_plain, args))

    return method


def _binary(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda self, other: operation(_value(self), _plain(other))


def _reflected(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda self, other: operation(_plain(other), _value(self))


_ARITHMETIC = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow")
_BITWISE = ("lshift", "rshift", "and_", "xor", "or_")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_UNARY = (
    "int",
    "float",
    "complex",
    "index",
    "round",
    "trunc",
    "floor",
    "ceil",
    "neg",
    "pos",
    "abs",
)
_CONTAINER = ("invert", "len", "iter", "next", "reversed", "contains", "getitem", "bytes")
for _name in _UNARY + _CONTAINER:
    setattr(StandIn, f"__{_name}__", _forward(f"__{_name}__"))
for _name in _ARITHMETIC + _BITWISE + _COMPARISONS:
    setattr(StandIn, f"__{_name.strip('_')}__", _binary(getattr(operator, _name)))
for _name in _ARITHMETIC + _BITWISE:
    setattr(StandIn, f"__r{_name.strip('_')}__", _reflected(getattr(operator, _name)))
setattr(StandIn, "__divmod__", _binary(divmod))  # noqa: B010 - as the rest; a type checker sees none
setattr(StandIn, "__rdivmod__", _reflected(divmod))  # noqa: B010
