"""Looking into functions, classes and what wraps them, without running anything of theirs."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard


def vars_of(value: Any) -> Mapping[str, Any]:
    """Return the attributes an object has itself, without asking the object."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


# Of a lazy proxy, isinstance() would ask the object behind it, and so make that.


def is_class(value: Any) -> TypeGuard[type]:
    """Tell whether a value is a class."""
    return issubclass(type(value), type)


def is_module(value: Any) -> TypeGuard[types.ModuleType]:
    """Tell whether a value is a module."""
    return issubclass(type(value), types.ModuleType)


def is_wrapper(value: Any) -> bool:
    """Tell whether a value says which function it wraps, as ``functools.wraps`` makes it."""
    return type(vars_of(value).get("__wrapped__")) is types.FunctionType


def top_package(value: Any) -> str:
    """Return the package of a class or function; libraries move them between their modules."""
    return str(getattr(value, "__module__", None)).partition(".")[0]


def functions_in(member: Any) -> Iterator[types.FunctionType]:
    """Yield the functions of a member of a class: of a method, of a property."""
    kind = type(member)
    inner: tuple[Any, ...] = (member,)
    if kind in (staticmethod, classmethod):
        inner = (member.__func__,)
    elif kind is property:
        inner = (member.fget, member.fset, member.fdel)
    elif kind is functools.cached_property:
        inner = (member.func,)
    for each in inner:
        if type(each) is types.FunctionType:
            yield each


def held_by(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function holds: what it wraps, and what is in its closure."""
    if "__wrapped__" in vars_of(function):
        yield vars_of(function)["__wrapped__"]
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:
            continue
        if type(content) in (list, tuple):
            yield from content
        elif type(content) in (dict, types.MappingProxyType):
            yield from content.values()
        else:
            yield content


def cells_of(function: types.FunctionType) -> dict[str, types.CellType]:
    """Return the variables of enclosing functions that a function uses."""
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))


def defaults_of(function: types.FunctionType) -> dict[str, Any]:
    """Return the default values of a function by parameter."""
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    values = function.__defaults__ or ()
    found = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
    return {**found, **(function.__kwdefaults__ or {})}


def class_of(function: types.FunctionType) -> type | None:
    """Return the class that a function was written in."""
    outer, _, _ = function.__qualname__.rpartition(".")
    found: Any = None
    for index, name in enumerate(outer.split(".")):
        names = vars(found) if is_class(found) else {}
        found = names.get(name) if index else function.__globals__.get(name)
    return found if is_class(found) else None
