"""The path that an output is published to, filled in with what the task was given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from airflow_provider_dbnd.exceptions import ParameterError

_FORMATTER = Formatter()


def filled(template: str, known: Mapping[str, Any]) -> str:
    """Return *template* with its fields filled in.

    A path may begin with a field that is any place, ``{folder}/report.csv``. Every other value is a
    name: it cannot be empty or lead elsewhere, as it may come from a form that others fill in.

    >>> filled("{store}/{day}/{region}.csv", {"store": "s3://b", "day": 1, "region": "eu/de"})
    's3://b/1/eu/de.csv'

    :raises ParameterError: a field is not known, or its value leads elsewhere.
    """
    path, is_name = "", list[bool]()
    pieces = _pieces(template)
    for number, (literal, name, spec, conversion) in enumerate(pieces):
        path += literal
        is_name += [False] * len(literal)
        if name is None:
            continue
        text = _text(template, name, spec, conversion, known)
        following = pieces[number + 1][0] if number + 1 < len(pieces) else "/"
        place = not path and following.startswith("/")
        if not place and (not text or (not path and (text.startswith("/") or "://" in text))):
            raise _misplaced(template, f"{{{name}}}", repr(text))
        path += text
        is_name += [not place] * len(text)
    start = 0
    for segment in path.split("/"):
        end = start + len(segment)
        if segment == ".." and any(is_name[start:end]):
            raise _misplaced(template, "a value", f"one with '..' in {path!r}")
        start = end + 1
    return path


def names_in(template: str) -> set[str]:
    """Return the names that *template* has fields of.

    >>> sorted(names_in("{store}/{day:%Y}/{where.city}.csv"))
    ['day', 'store', 'where']
    """
    return {re.split(r"[.\[]", name)[0] for _, name, _, _ in _pieces(template) if name}


def _pieces(template: str) -> list[Any]:
    try:
        return list(_FORMATTER.parse(template))
    except ValueError as exc:
        raise ParameterError(f"path {template!r} cannot be filled in: {exc}.") from exc


def _text(
    template: str, name: str, spec: str | None, conversion: str | None, known: Mapping[str, Any]
) -> str:
    field = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
    try:
        return f"{{{field}}}".format(**known)
    except (LookupError, ValueError, AttributeError, TypeError) as exc:
        raise ParameterError(
            f"path {template!r} cannot be filled in: {exc} is not known. It may name "
            f"{', '.join(sorted(known))}, in braces."
        ) from exc


def _misplaced(template: str, what: str, found: str) -> ParameterError:
    return ParameterError(
        f"path {template!r} cannot be filled in: expected {what} to be a name that stays below what "
        f"the path begins with, got {found}. Only a field that a path begins with, followed by '/', "
        "may be any place."
    )
