"""Plain values as canonical text: equal text means an equal value, in any process."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import os
import pathlib
import re
import types
import typing
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from airflow_provider_dbnd.core.code.objects import is_class, vars_of
from airflow_provider_dbnd.core.digest import bytes_digest

_BY_REPR = (
    types.NoneType,
    bool,
    float,
    complex,
    bytes,
    bytearray,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    range,
    types.EllipsisType,
    types.NotImplementedType,
    zoneinfo.ZoneInfo,
    dt.date,
    dt.time,
    dt.datetime,
    dt.timedelta,
    dt.timezone,
)
#: Other time zones have a representation that may hold an address in memory.
_ZONES = (types.NoneType, dt.timezone, zoneinfo.ZoneInfo)
_MAPPINGS = (dict, types.MappingProxyType)
_SEQUENCES = (tuple, list, collections.deque)
_SETS = (set, frozenset)
_ALIASES = frozenset(("typing", "types", "collections.abc"))
_TABLES = frozenset(
    ["pandas.DataFrame", "pandas.Series", "polars.DataFrame", "polars.Series", "pyarrow.Table"]
)
_CONTAINERS = (*_SEQUENCES, *_SETS, *_MAPPINGS)


class NotPlain(Exception):
    """A value is more than data, or data that has no canonical text."""


class ValueEncoder:
    """Writes values as text.

    :param refer: gives the text of functions, classes and modules, and raises NotPlain for the rest
    :param root: the folder from which paths count, so that they are the same on another machine
    :param mutable: whether lists, dicts and other values that may change are taken
    """

    def __init__(
        self, refer: Callable[[Any], str], *, root: str = "", mutable: bool = True
    ) -> None:
        self._refer, self._root, self._mutable = refer, root, mutable
        self._open: set[int] = set()
        #: Whether a path in the project was met.
        self.met_path = False

    def encode(self, value: Any) -> str:
        """Return the text of *value*; raise NotPlain."""
        # Of a lazy proxy, isinstance() would ask the object behind it, and so make that.
        kind = type(value)
        if kind is int:
            return f"int:{value:x}"
        if kind is str:
            return f"str:{self._portable(value)!a}"
        if kind in _BY_REPR and type(getattr(value, "tzinfo", None)) in _ZONES:
            return f"{kind.__name__}:{value!r}"
        if id(value) in self._open:
            return "cycle"
        self._open.add(id(value))
        try:
            return self._compound(kind, value)
        except RecursionError as exc:
            raise NotPlain from exc
        finally:
            self._open.discard(id(value))

    def _compound(self, kind: type, value: Any) -> str:
        if issubclass(kind, enum.Enum):
            # Not every version of Python names a combination of flags.
            which = value.value if issubclass(kind, enum.Flag) else value.name
            return f"{self._refer(kind)}.{which}"
        if issubclass(kind, pathlib.PurePath):
            return f"path:{self._portable(str(value))!a}"
        if kind is re.Pattern:
            return f"regex:{value.pattern!a}/{value.flags}"
        if kind is slice:
            return f"slice{self._all((value.start, value.stop, value.step))}"
        if kind is types.MethodType:
            return f"method{self._all((value.__func__, value.__self__))}"
        if kind.__module__ in _ALIASES and typing.get_origin(value) is not None:
            return self._alias(typing.get_origin(value), typing.get_args(value))
        if issubclass(kind, functools.partial):
            return f"partial{self._all((value.func, value.args, value.keywords))}"
        if issubclass(kind, _CONTAINERS):
            return self._container(kind, value)
        if issubclass(kind, str | int | float | bytes):
            base = next(b for b in (str, int, float, bytes) if issubclass(kind, b))
            return f"{self._refer(kind)}({self.encode(base(value))}){self._fields(vars_of(value))}"
        return self._object(kind, value)

    def _alias(self, origin: Any, arguments: tuple[Any, ...]) -> str:
        special = getattr(origin, "__module__", "") == "typing"
        head = f"typing.{origin.__name__}" if special else self.encode(origin)
        return f"alias:{head}{self._all(arguments)}"

    def _container(self, kind: type, value: Any) -> str:
        if self._changes(kind):
            raise NotPlain
        name = kind.__name__ if kind in _CONTAINERS else self._refer(kind)
        if issubclass(kind, _MAPPINGS):
            inner = self._all(each for pair in value.items() for each in pair)
            factory = getattr(value, "default_factory", None)
            name += f"[{self.encode(factory)}]" if factory is not None else ""
        elif issubclass(kind, _SETS):
            # Not by the texts themselves: they hold numbers that follow the order.
            named = ValueEncoder(_name_of, root=self._root)
            inner = self._all(sorted(value, key=named.encode))
        else:
            inner = self._all(value)
        extra = {} if kind in _CONTAINERS else vars_of(value)
        return f"{name}{inner}{self._fields(extra)}"

    def _object(self, kind: type, value: Any) -> str:
        fields = _fields_of(kind, value)
        if fields is not None:
            if self._changes(kind):
                raise NotPlain
            return f"{self._refer(kind)}{self._fields(fields)}"
        if kind.__module__ == "numpy" or _is_table(kind):
            if not self._mutable:
                raise NotPlain
            return _data(kind, value)
        return self._refer(value)

    def _changes(self, kind: type) -> bool:
        if self._mutable or issubclass(kind, tuple | frozenset):
            return False
        parameters = getattr(kind, "__dataclass_params__", None)
        return not getattr(parameters, "frozen", False)

    def _all(self, values: Iterable[Any]) -> str:
        return f"({','.join([self.encode(each) for each in values])})"

    def _fields(self, fields: Mapping[str, Any]) -> str:
        if not fields:
            return ""
        return f"{{{','.join(f'{name}={self.encode(each)}' for name, each in fields.items())}}}"

    def _portable(self, text: str) -> str:
        """Return a path in the project from its root, and any other text as it is."""
        if self._root and (text == self._root or text.startswith(self._root + os.sep)):
            self.met_path = True
            return f"<project>{text[len(self._root) :]}"
        return text


_FIRST: dict[tuple[int, str], tuple[Any, Any, Any]] = {}


def first_seen(owner: Any, name: str, version: Any, value: Any) -> Any:
    """Return what a variable that running code changes held when this process first asked.

    :param owner: what has the variable
    :param version: of the owner; another one starts anew
    """
    key = (id(owner), name)
    seen = _FIRST.get(key)
    if seen is None or seen[0] is not owner or seen[1] is not version:
        seen = _FIRST[key] = owner, version, _snapshot(value, {})
    return seen[2]


def _snapshot(value: Any, known: dict[int, Any]) -> Any:
    """Return *value* with its containers copied, so that it stays what it is now."""
    kind = type(value)
    if not issubclass(kind, _CONTAINERS) or issubclass(kind, types.MappingProxyType):
        return value
    if id(value) not in known:
        # Entered before it is filled: it may hold itself.
        copied = known[id(value)] = copy.copy(value)
        if issubclass(kind, dict):
            copied.update({key: _snapshot(each, known) for key, each in value.items()})
        elif issubclass(kind, list):
            copied[:] = [_snapshot(each, known) for each in value]
        elif kind is tuple:
            known[id(value)] = tuple(_snapshot(each, known) for each in value)
    return known[id(value)]


def _fields_of(kind: type, value: Any) -> Mapping[str, Any] | None:
    """Return the fields of a dataclass, a pydantic or an attrs object, or of a namespace."""
    if hasattr(kind, "__dataclass_fields__"):
        names: Iterable[str] = [field.name for field in dataclasses.fields(kind)]
    elif "__pydantic_fields__" in vars(kind) or hasattr(kind, "__pydantic_validator__"):
        return vars_of(value)
    elif hasattr(kind, "__attrs_attrs__"):
        names = [each.name for each in kind.__attrs_attrs__]
    elif kind is types.SimpleNamespace:
        return vars_of(value)
    else:
        return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _name_of(value: Any) -> str:
    if is_class(value):
        return value.__qualname__
    if type(value) is not types.FunctionType:
        raise NotPlain
    return f"{value.__qualname__}:{value.__code__.co_firstlineno}"


def _is_table(kind: type) -> bool:
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}" in _TABLES


def _data(kind: type, value: Any) -> str:
    from airflow_provider_dbnd.core.formats.containers import container_for_value
    from airflow_provider_dbnd.core.formats.fingerprint import fingerprint_of
    from airflow_provider_dbnd.exceptions import DbndError

    if kind.__module__ == "numpy":
        dtype = getattr(value, "dtype", None)
        if dtype is None or dtype.hasobject:
            raise NotPlain
        kind_of_element = dtype.descr if dtype.names else dtype.str
        return f"array:{kind_of_element}{value.shape}{bytes_digest(value.tobytes())}"
    try:
        outgoing = container_for_value(value).outgoing(value)
        return f"table:{fingerprint_of(outgoing.schema, outgoing.batches, outgoing.extras).digest}"
    except DbndError as exc:
        raise NotPlain from exc
