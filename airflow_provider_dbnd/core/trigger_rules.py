"""Airflow's trigger rules, for runs without Airflow; asked when all that is upstream is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

State = Literal["success", "failed", "skipped", "upstream_failed"]

#: Returns the state of a task that is not to run, or None for one that is.
Rule = Callable[[Sequence[State]], State | None]

_Rule = Callable[[Counter[State]], State | None]


def _failures(upstream: Counter[State]) -> int:
    return upstream["failed"] + upstream["upstream_failed"]


def _all_success(upstream: Counter[State]) -> State | None:
    return _none_failed(upstream) or _none_skipped(upstream)


def _all_failed(upstream: Counter[State]) -> State | None:
    return "skipped" if upstream["success"] or upstream["skipped"] else None


def _all_skipped(upstream: Counter[State]) -> State | None:
    return "skipped" if upstream["success"] or _failures(upstream) else None


def _all_done(upstream: Counter[State]) -> State | None:  # noqa: ARG001 - it is
    return None


def _all_done_min_one_success(upstream: Counter[State]) -> State | None:
    # What was skipped is not done, for this rule.
    return _none_skipped(upstream) or (None if upstream["success"] else "upstream_failed")


def _none_failed(upstream: Counter[State]) -> State | None:
    return "upstream_failed" if _failures(upstream) else None


def _none_failed_min_one_success(upstream: Counter[State]) -> State | None:
    return _none_failed(upstream) or (None if upstream["success"] else "skipped")


def _none_skipped(upstream: Counter[State]) -> State | None:
    return "skipped" if upstream["skipped"] else None


def _one_success(upstream: Counter[State]) -> State | None:
    if upstream["success"]:
        return None
    return "upstream_failed" if _failures(upstream) else "skipped"


def _one_failed(upstream: Counter[State]) -> State | None:
    return None if _failures(upstream) else "skipped"


def _one_done(upstream: Counter[State]) -> State | None:
    return None if upstream["success"] or upstream["failed"] else "skipped"


_RULES: Mapping[str, _Rule] = {
    "all_success": _all_success,
    "all_failed": _all_failed,
    "all_skipped": _all_skipped,
    "all_done": _all_done,
    "all_done_min_one_success": _all_done_min_one_success,
    "always": _all_done,
    "none_failed": _none_failed,
    "none_failed_min_one_success": _none_failed_min_one_success,
    "none_skipped": _none_skipped,
    "one_done": _one_done,
    "one_failed": _one_failed,
    "one_success": _one_success,
}

NAMES = tuple(_RULES)


def trigger_rule(name: str) -> Rule:
    """Return the rule of a name, which is one of :data:`NAMES`.

    It is given the states of all that is upstream: of a task that is mapped, those of its instances.

    >>> trigger_rule("all_success")(["success", "skipped"])
    'skipped'
    """
    rule = _RULES[name]
    return lambda states: rule(Counter(states)) if states else None
