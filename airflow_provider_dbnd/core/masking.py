"""Hidden values in text: how they could show up there, and the mask in their place."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from airflow_provider_dbnd.core.artifacts import is_reference

MASK = "***"

#: Lines of a longer text that are masked by themselves; what is shorter may be any word.
_LINE = 8


def masked(text: str, hidden: Iterable[str]) -> str:
    """Return *text* with the mask where one of the *hidden* texts is, as :func:`texts_of` gives them."""
    # The longest goes first: it may hold another.
    for each in sorted(set(hidden), key=len, reverse=True):
        text = text.replace(each, MASK)
    return text


def texts_of(value: Any) -> list[str]:
    """Return the texts by which a hidden value, or a part of it, could show up in a message."""
    return list(
        dict.fromkeys(form for text in _parts(value) for form in _forms(text) if form.strip())
    )


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        yield from _parts(_members(value))
    elif isinstance(value, bytes | bytearray):
        yield repr(bytes(value))[2:-1]
        yield value.decode("utf-8", "ignore")
    elif hasattr(value, "get_secret_value"):
        yield from _parts(value.get_secret_value())
    elif (inside := _inside(value)) is not None:
        for each in inside:
            yield from _parts(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _members(text: str) -> Any:
    """Return what a list or dict that is given as JSON holds."""
    try:
        return json.loads(text) if text.lstrip().startswith(("{", "[")) else None
    except ValueError:
        return None


def _inside(value: Any) -> list[Any] | None:
    """Return what a container or a record holds; None for what is neither."""
    if is_reference(value):
        return []  # it has no value in it, and what it is made of is told everywhere
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    if dataclasses.is_dataclass(value):
        return [getattr(value, each.name) for each in dataclasses.fields(value)]
    return list(vars(value).values()) if hasattr(value, "model_dump") else None


def _forms(text: str) -> Iterator[str]:
    """Yield a text as it is written plain, in Python's and JSON's quotes and in a URL."""
    if not text.strip():
        return
    lines = [line for line in map(str.strip, text.splitlines()) if len(line) >= _LINE]
    for each in (text, text.strip(), *lines):
        yield each
        for quoted in (repr(each)[1:-1], ascii(each)[1:-1]):
            yield quoted
            # A text that holds both kinds of quotes, and the message of a KeyError, which is a repr.
            yield quoted.replace("'", "\\'")
            yield repr(quoted)[1:-1]
        yield repr(each.encode(errors="replace"))[2:-1]
        for escapes in (True, False):
            yield json.dumps(each, ensure_ascii=escapes)[1:-1]
        url = each.encode(errors="replace")
        yield from (quote(url), quote(url, safe=""), quote_plus(url))
