"""What an annotation says, without importing the library its type comes from."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

_STREAMS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
)
_NONE = type(None)

#: Packages below a library's root that have names of their own: two have a DataFrame.
_OWN_NAMES = ("pyspark.sql", "pyspark.pandas")


def data_type(annotation: Any) -> Any:
    """Strip Annotated[...] and Optional[...]; a union of two types or more stays as it is."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            kinds = [kind for kind in get_args(annotation) if kind is not _NONE]
            if len(kinds) != 1:
                return annotation
            annotation = kinds[0]
        else:
            return annotation


def is_stream(type_: Any) -> bool:
    """Tell whether an annotation, or its name, is Iterator[X], Iterable[X] or Generator[X, ...]."""
    if isinstance(type_, str):
        return type_.partition("[")[0] in {stream.__name__ for stream in _STREAMS}
    return get_origin(type_) in _STREAMS


def stream_item(type_: Any) -> Any:
    """Return X of Iterator[X]."""
    if isinstance(type_, str):
        return type_.partition("[")[2].rstrip("]").partition(",")[0]
    return data_type(get_args(type_)[0])


def qualified_names(type_: Any) -> Iterator[str]:
    """Yield "package.Class" for a class and its bases, with the library's root package.

    The module a class says it lives in is private and moves between versions: pandas.DataFrame
    was in pandas.core.frame until pandas 3.
    """
    if isinstance(type_, str):
        # The name of a type, as a reference has it.
        yield type_
    type_ = get_origin(type_) or type_
    for class_ in getattr(type_, "__mro__", ()):
        yield f"{_package(class_.__module__)}.{class_.__qualname__}"


def _package(module: str) -> str:
    own = (name for name in _OWN_NAMES if f"{module}.".startswith(f"{name}."))
    return next(own, module.partition(".")[0])


def type_name(type_: Any) -> str:
    """Return a short readable name of a type or annotation ("pandas.DataFrame")."""
    type_ = data_type(type_)
    if isinstance(type_, str):
        return type_
    if get_origin(type_) is not None:
        origin = get_origin(type_)
        arguments = ", ".join(map(type_name, get_args(type_)))
        if origin in (Union, types.UnionType):
            return arguments.replace(", ", " | ")
        return f"{origin.__qualname__}[{arguments}]"
    if not isinstance(type_, type):
        return str(type_).removeprefix("typing.")
    if type_.__module__ == "builtins":
        return type_.__qualname__
    return next(qualified_names(type_))
