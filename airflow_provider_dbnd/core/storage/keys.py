"""Keys of objects: users' names, made into parts of a path that every store takes."""

from __future__ import annotations

import hashlib
import re

from airflow_provider_dbnd.exceptions import ParameterError

_PLAIN = re.compile(r"[^A-Za-z0-9._=,-]")
_PART = re.compile(r"(?!\.)(?:[A-Za-z0-9._=,-]|~[0-9A-F]{2}|~~)+")
_HALF_ESCAPE = re.compile(r"~[0-9A-F]?$")
_LONGEST_PART = 200
_CUT_PART = 160


def key(*parts: str) -> str:
    """Return the key for names: readable, the same for the same names and for no others.

    >>> key("drift", "prepare", "result 1", "..", "ab12.parquet")
    'drift/prepare/result~201/~2E~2E/ab12.parquet'
    """
    return "/".join(map(_escape, parts))


def is_key(text: str) -> bool:
    """Tell whether *text* is what :func:`key` makes; nothing else is below a store's URL."""
    return all(map(_PART.fullmatch, text.split("/")))


def _escape(part: str) -> str:
    if not part:
        raise ParameterError(
            "A pipeline, run, task, output or tag needs a name of one character at least, got ''."
        )
    escaped = _PLAIN.sub(_hex, part)
    if escaped.startswith("."):
        # Hidden names and '..' are never made of users' names.
        dots = len(escaped) - len(escaped.lstrip(".")) if escaped.strip(".") == "" else 1
        escaped = "~2E" * dots + escaped[dots:]
    if len(escaped) > _LONGEST_PART:
        mark = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        # '~~' is in no escaped name, so a cut one cannot be taken for another.
        escaped = f"{_HALF_ESCAPE.sub('', escaped[:_CUT_PART])}~~{mark}"
    return escaped


def _hex(found: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))
