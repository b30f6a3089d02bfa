"""Equality that a round trip must keep."""

from __future__ import annotations

import math
from typing import Any


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal and of the same types, all the way down.

    >>> same([1], [1.0]), same({"a": (1,)}, {"a": (1,)}), same(float("nan"), float("nan"))
    (False, True, True)
    """
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return same(list(left), list(right)) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    if hasattr(left, "__dict__") and not callable(left):
        return bool(left == right) and same(vars(left), vars(right))
    return bool(left == right)
