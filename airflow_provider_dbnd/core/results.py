"""Whether what a function returned is what its annotation says, before it is stored.

A result fits where a parameter of that type would take it, but is not converted: text is no number
and no path. Containers are gone through kind by kind, so that a long list costs next to nothing.
"""

from __future__ import annotations

import collections
import numbers
import typing
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Literal

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.conversion import (
    AnnotationKey,
    accepts_none,
    is_class,
    is_union,
    strip_annotated,
    type_text,
    validate,
)
from airflow_provider_dbnd.core.formats.annotations import is_stream
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.resolution import shown
from airflow_provider_dbnd.core.values import without_numpy
from airflow_provider_dbnd.exceptions import ResultError

#: Each of these is a value of those after it.
_NUMBERS = (bool, int, float, complex)
_TOWER = ((), numbers.Integral, numbers.Real, numbers.Complex)
_NUMPY_BOOLS = ("bool", "bool_")
_ROWS = (list, tuple, set, frozenset, collections.deque)
_SEQUENCES = (*_ROWS, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Set, abc.MutableSet)
_MAPPINGS = (
    dict,
    abc.Mapping,
    abc.MutableMapping,
    collections.OrderedDict,
    collections.defaultdict,
)
_REASON_LENGTH = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Misfit:
    """A value, at some place in a result, that is not what its annotation says."""

    value: Any
    annotation: Any
    place: str = ""
    reason: str = ""


def check_result(value: Any, annotation: Any, what: str) -> None:
    """Raise ResultError where *value* is not what *annotation* says; the message begins with *what*."""
    found = misfit_of(value, annotation)
    if found is None:
        return
    reason = f" {found.reason.rstrip('.')}." if found.reason else ""
    place = f" at {found.place}, in {type_text(annotation)}" if found.place else ""
    raise ResultError(
        f"{what}: expected {type_text(found.annotation)}{place}, got {shown(found.value, 100)}.{reason} "
        "Return what the annotation says, or annotate what is returned."
    )


def misfit_of(value: Any, annotation: Any) -> Misfit | None:
    """Return the first part of *value* that does not fit *annotation*."""
    rule = _rule(AnnotationKey(annotation))
    if rule.what == "anything" or isinstance(value, Artifact):
        return None
    if value is None:
        return None if rule.takes_none else Misfit(value=None, annotation=annotation)
    if _kind_fits(type(value), rule.annotation):
        return None
    return _FINDERS[rule.what](value, rule)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """What an annotation asks for: ``arms`` are its arguments, ``origin`` what they are of."""

    what: Literal["anything", "union", "data", "sequence", "mapping", "one"]
    annotation: Any
    origin: Any
    arms: tuple[Any, ...]
    takes_none: bool


@lru_cache(maxsize=1024)
def _rule(key: AnnotationKey) -> _Rule:
    annotation = _plain_annotation(key.annotation)
    origin, arms = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    takes_none = accepts_none(annotation) or (origin is Literal and None in arms)
    return _Rule(
        what=_what(annotation, origin),
        annotation=annotation,
        origin=origin,
        arms=arms,
        takes_none=takes_none,
    )


def _what(annotation: Any, origin: Any) -> Any:
    if annotation in (Any, object, MISSING) or isinstance(annotation, typing.TypeVar):
        return "anything"
    if is_union(annotation):
        return "union"
    if formats.is_data_type(annotation) or is_stream(annotation):
        return "data"
    return "sequence" if origin in _SEQUENCES else "mapping" if origin in _MAPPINGS else "one"


def _plain_annotation(annotation: Any) -> Any:
    """Return the annotation below Annotated, NewType and type aliases."""
    while True:
        annotation = strip_annotated(annotation)
        below = getattr(annotation, "__supertype__", None)
        if below is None and type(annotation).__name__ == "TypeAliasType":
            below = annotation.__value__
        if below is None:
            return annotation
        annotation = below


def _in_union(value: Any, rule: _Rule) -> Misfit | None:
    fits = any(misfit_of(value, arm) is None for arm in rule.arms)
    return None if fits else Misfit(value=value, annotation=rule.annotation)


def _in_data(value: Any, rule: _Rule) -> Misfit | None:
    if is_stream(rule.annotation) or hasattr(value, "__next__"):
        # Looking at its parts would use them up.
        fits = not isinstance(value, str | bytes | int | float)
    else:
        fits = formats.can_convert(type(value), rule.annotation) or (
            is_class(rule.origin) and isinstance(value, rule.origin)
        )
    return None if fits else Misfit(value=value, annotation=rule.annotation)


def _in_sequence(value: Any, rule: _Rule) -> Misfit | None:
    if not isinstance(value, _ROWS) and not (
        isinstance(value, rule.origin) and not isinstance(value, str | bytes | Mapping)
    ):
        return Misfit(value=value, annotation=rule.annotation)
    if not rule.arms:
        return None
    if rule.origin is not tuple or rule.arms[-1] is Ellipsis:
        return _first(enumerate(value), value, rule.arms[0])
    arms = () if rule.arms == ((),) else rule.arms
    if len(value) != len(arms):
        return Misfit(value=value, annotation=rule.annotation)
    each = (_within(f"[{i}]", v, arm) for i, (v, arm) in enumerate(zip(value, arms, strict=True)))
    return next((found for found in each if found), None)


def _in_mapping(value: Any, rule: _Rule) -> Misfit | None:
    if not isinstance(value, Mapping):
        return Misfit(value=value, annotation=rule.annotation)
    if len(rule.arms) != 2:
        return None
    keys, values = rule.arms
    found = _first(((key, key) for key in value), value, keys)
    return found or _first(value.items(), value.values(), values)


def _in_itself(value: Any, rule: _Rule) -> Misfit | None:
    value, annotation = without_numpy(value), rule.annotation
    is_text = annotation in _NUMBERS and isinstance(value, str | bytes)
    if is_text or (is_class(annotation, PurePath) and not isinstance(value, PurePath)):
        return Misfit(value=value, annotation=annotation)
    try:
        validate(value, annotation)
    except ValueError as exc:
        return Misfit(value=value, annotation=annotation, reason=str(exc)[:_REASON_LENGTH])
    except Exception:  # noqa: BLE001 - not every annotation is one that values can be checked by
        return None
    return None


_FINDERS: Mapping[str, Callable[[Any, _Rule], Misfit | None]] = {
    "union": _in_union,
    "data": _in_data,
    "sequence": _in_sequence,
    "mapping": _in_mapping,
    "one": _in_itself,
}


def _first(
    elements: Iterable[tuple[Any, Any]], values: Iterable[Any], annotation: Any
) -> Misfit | None:
    """Return what does not fit of *elements*, which are *values* with their places."""
    arms = [_plain_annotation(annotation)]
    if is_union(arms[0]):
        arms = [_plain_annotation(arm) for arm in typing.get_args(arms[0])]
    if all(any(_kind_fits(kind, arm) for arm in arms) for kind in set(map(type, values))):
        return None
    each = (_within(f"[{place!r}]", value, annotation) for place, value in elements)
    return next((found for found in each if found), None)


def _kind_fits(kind: type, annotation: Any) -> bool:
    """Tell whether all values of a type fit, whatever is in them."""
    if annotation in (Any, object):
        return True
    if annotation in _NUMBERS:
        return _is_number(kind, _NUMBERS.index(annotation))
    try:
        return is_class(annotation) and issubclass(kind, annotation)
    except TypeError:  # a protocol, a TypedDict
        return False


def _is_number(kind: type, most: int) -> bool:
    if kind.__module__ == "numpy":
        return kind.__name__ in _NUMPY_BOOLS or issubclass(kind, _TOWER[most])
    return kind in _NUMBERS[: most + 1]


def _within(place: str, value: Any, annotation: Any) -> Misfit | None:
    found = misfit_of(value, annotation)
    if found is None:
        return None
    return Misfit(
        value=found.value,
        annotation=found.annotation,
        place=place + found.place,
        reason=found.reason,
    )
