"""Transparent stand-ins for pipeline parameters while a graph is built.

Handed to a task, a stand-in stays a reference that a run can change. Used by Python itself
(``range(n)``, ``if flag``, formatting) it gives its build-time value, and its parameter becomes
*fixed*: the shape of the graph now depends on it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from airflow_provider_dbnd.core.parameters import RunValue
from airflow_provider_dbnd.core.resolution import Value, converted
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.exceptions import GraphError


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
        return f"{self.owner}.{self.spec.name}"

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
                f"{where} is known only in a run ({self.value.value!r}), but the pipeline's body uses it. "
                "Hand it to a task instead."
            )
        return self.value.value if self._data else converted(self.owner, self.spec, self.value)

    def __repr__(self) -> str:
        return f"<parameter {self.key}>"


def parameter_of(value: object) -> BuildParameter | None:
    """Return the parameter a stand-in stands for; None for any other object."""
    # type() and not isinstance(): a stand-in answers isinstance() as its value would.
    return object.__getattribute__(value, "_parameter") if type(value) is StandIn else None


def identity_checked(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names *function* compares with ``is``, which no stand-in can answer."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        # No source (a notebook cell of old, exec): assume that any name may be compared.
        return frozenset(inspect.signature(function).parameters)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(
            isinstance(op, ast.Is | ast.IsNot) for op in node.ops
        ):
            names.update(n.id for n in (node.left, *node.comparators) if isinstance(n, ast.Name))
        elif isinstance(node, ast.Match) and isinstance(node.subject, ast.Name):
            names.add(node.subject.id)
    return frozenset(names)


class StandIn:
    """Behaves as the parameter's build-time value wherever Python looks at it."""

    __slots__ = ("_parameter",)

    def __init__(self, parameter: BuildParameter) -> None:
        object.__setattr__(self, "_parameter", parameter)

    @property
    def __class__(self) -> type:  # type: ignore[override]
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


def _forward(name: str) -> Callable[..., Any]:
    def method(self: StandIn, *args: Any) -> Any:
        plain = tuple(_value(a) if type(a) is StandIn else a for a in args)
        value = _value(self)
        special = getattr(type(value), name, None)
        if special is None:
            if name in _BINARY:
                return NotImplemented
            raise TypeError(f"{type(value).__name__!r} object does not support {name}")
        return special(value, *plain)

    method.__name__ = name
    return method


_ARITHMETIC = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow")
_BITWISE = ("lshift", "rshift", "and", "xor", "or")
_BINARY = frozenset(
    [f"__{side}{name}__" for name in _ARITHMETIC + _BITWISE for side in ("", "r")]
    + [f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge")]
)
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
    "invert",
)
_CONTAINER = ("len", "iter", "next", "reversed", "contains", "getitem", "bytes")
for _name in (*_BINARY, *(f"__{n}__" for n in _UNARY + _CONTAINER)):
    setattr(StandIn, _name, _forward(_name))
