"""Equality that a round trip must keep."""

from __future__ import annotations

import datetime as dt
import math
from collections import deque
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

#: Types of which two values are the same where they are equal.
_PLAIN = frozenset({str, int, bool, bytes, type(None), dt.date, dt.timedelta})


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal and of the same types, all the way down.

    Of numbers and times that is all they say: the sign of a zero, the places of a decimal, the
    zone of a time.

    >>> same([1], [1.0]), same({"a": (1,)}, {"a": (1,)}), same(float("nan"), float("nan"))
    (False, True, True)
    """
    if left is right:
        return True
    kind = type(left)
    if kind is not type(right):
        return False
    if kind in _PLAIN:
        return bool(left == right)
    for types, compare in _COMPARISONS:
        if isinstance(left, types):
            return compare(left, right)
    return bool(left == right) and _same_fields(left, right)


def all_same(left: list[Any], right: list[Any]) -> bool:
    """Tell whether lists are the same, at the speed of ``==`` where values are plain."""
    kinds = list(map(type, left))
    if kinds != list(map(type, right)):
        return False
    return left == right if _PLAIN.issuperset(kinds) else all(map(same, left, right))


def _same_dicts(left: dict[Any, Any], right: dict[Any, Any]) -> bool:
    return all_same(list(left), list(right)) and all_same(list(left.values()), list(right.values()))


def _same_sequences(left: Any, right: Any) -> bool:
    return all_same(list(left), list(right))


def _same_sets(left: Any, right: Any) -> bool:
    items = {item: item for item in right}
    return bool(left == right) and all(same(item, items[item]) for item in left)


def _same_floats(left: float, right: float) -> bool:
    if math.isnan(left):
        return math.isnan(right)
    return left == right and math.copysign(1, left) == math.copysign(1, right)


def _same_complex(left: complex, right: complex) -> bool:
    return _same_floats(left.real, right.real) and _same_floats(left.imag, right.imag)


def _same_decimals(left: Decimal, right: Decimal) -> bool:
    return left.as_tuple() == right.as_tuple()


def _same_times(left: Any, right: Any) -> bool:
    offset = left.utcoffset()
    # A text has no more of a zone than its offset at that time.
    if left.replace(tzinfo=None) != right.replace(tzinfo=None) or _zone(right) not in (
        _zone(left),
        offset,
    ):
        return False
    # pytz, in older versions of pyarrow, says by the offset what fold says.
    return bool(offset == right.utcoffset() and (offset is not None or left.fold == right.fold))


def _zone(time: Any) -> Any:
    """Return what tells a time zone: the offset of a fixed one, else the name."""
    zone = time.tzinfo
    offset = None if zone is None else zone.utcoffset(None)
    return str(zone) if offset is None else offset


def _same_fields(left: Any, right: Any) -> bool:
    """Compare what objects that are equal hold: 1 == True there too."""
    if is_dataclass(left):
        return all(
            same(getattr(left, f.name, None), getattr(right, f.name, None)) for f in fields(left)
        )
    if not hasattr(left, "__dict__") or callable(left):
        return True
    extra = "__pydantic_extra__"
    return same(vars(left), vars(right)) and same(
        getattr(left, extra, None), getattr(right, extra, None)
    )


_COMPARISONS: tuple[tuple[Any, Callable[[Any, Any], bool]], ...] = (
    (float, _same_floats),
    (Decimal, _same_decimals),
    ((dt.datetime, dt.time), _same_times),
    (dict, _same_dicts),
    ((list, tuple, deque), _same_sequences),
    ((set, frozenset), _same_sets),
    (complex, _same_complex),
)
