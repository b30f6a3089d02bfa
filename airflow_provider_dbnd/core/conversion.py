"""Values from code, files, environment and command line, converted to their annotated type."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import re
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from airflow_provider_dbnd.core.parameters import Parameter

_DURATION = re.compile(r"(?P<n>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d|w)\s*")
_UNITS = {
    "ms": "milliseconds",
    "s": "seconds",
    "m": "minutes",
    "h": "hours",
    "d": "days",
    "w": "weeks",
}
_NONE_WORDS = frozenset(("none", "null"))


def strip_annotated(annotation: Any) -> Any:
    """Return the type inside ``Annotated[type, ...]``."""
    return typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def without_none(annotation: Any) -> Any:
    """Return T for ``Optional[T]`` and the annotation itself otherwise.

    >>> without_none(int | None)
    <class 'int'>
    """
    annotation = strip_annotated(annotation)
    if is_union(annotation):
        arms = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(arms) == 1:
            return strip_annotated(arms[0])
    return annotation


def is_union(annotation: Any) -> bool:
    """Tell whether *annotation* is ``Union[...]`` or ``X | Y``."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def accepts_none(annotation: Any) -> bool:
    """Tell whether None is a value of *annotation*."""
    annotation = strip_annotated(annotation)
    if annotation in (Any, None, type(None)):
        return True
    return is_union(annotation) and type(None) in typing.get_args(annotation)


def type_text(annotation: Any) -> str:
    """Return *annotation* as a user writes it.

    >>> type_text(list[int]), type_text(int)
    ('list[int]', 'int')
    """
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "").replace("pandas.core.frame.", "")


def convert(value: Any, annotation: Any, declaration: Parameter) -> Any:
    """Return *value* as *annotation*; raise ValueError saying what does not fit.

    Text is read the way a person writes it on a command line: ``2d``, ``a,b``, ``{"k": 1}``.
    """
    if isinstance(value, str):
        value = _from_text(value, annotation)
    converted = _validator(_Hashed((annotation, tuple(sorted(declaration.constraints().items())))))(
        value
    )
    if declaration.choices is not None and converted not in declaration.choices:
        allowed = ", ".join(repr(c) for c in declaration.choices)
        raise ValueError(f"not one of {allowed}")
    return converted


def _from_text(text: str, annotation: Any) -> Any:
    target = without_none(annotation)
    if target in (Any, str) or (is_union(target) and str in typing.get_args(target)):
        return text
    if text.lower() in _NONE_WORDS and accepts_none(annotation):
        return None
    if target is dt.timedelta:
        return _duration(text)
    if target in (dt.date, dt.datetime):
        return _date_text(text, target)
    if isinstance(target, type) and issubclass(target, enum.Enum) and text in target.__members__:
        return target[text]
    return _structure(text, target)


def _structure(text: str, target: Any) -> Any:
    origin = typing.get_origin(target) or target
    is_record = isinstance(target, type) and (
        dataclasses.is_dataclass(target) or hasattr(target, "model_validate")
    )
    if not is_record and origin not in (list, tuple, set, frozenset, dict):
        return text
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as exc:
            raise ValueError(f"not valid JSON ({exc})") from exc
    if origin in (list, tuple, set, frozenset):
        return [part.strip() for part in text.split(",")] if text else []
    return text


def _date_text(text: str, target: type) -> Any:
    """``today`` and ``yesterday``, and a full timestamp where only its day is asked for."""
    relative = {"today": 0, "yesterday": 1}.get(text.lower())
    if relative is not None:
        now = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=relative)
        return now.date() if target is dt.date else now
    if target is dt.date and len(text) > len("2000-01-01"):
        return dt.datetime.fromisoformat(text.replace("Z", "+00:00")).date()
    return text


def _duration(text: str) -> Any:
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(p.group(0) for p in parts) != text:
        return text  # ISO 8601 and "HH:MM:SS" are pydantic's to read
    return dt.timedelta(**{_UNITS[p["unit"]]: float(p["n"]) for p in parts})


class _Hashed:
    """Lets annotations that are not hashable (Literal of lists, ...) key a cache by identity."""

    __slots__ = ("annotation", "constraints")

    def __init__(self, key: tuple[Any, tuple[tuple[str, Any], ...]]) -> None:
        self.annotation, self.constraints = key

    def __hash__(self) -> int:
        return hash((str(self.annotation), self.constraints))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Hashed)
            and self.annotation is other.annotation
            and self.constraints == other.constraints
        )


@lru_cache(maxsize=1024)
def _validator(key: _Hashed) -> Callable[[Any], Any]:
    from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError

    annotation = key.annotation
    if annotation in (Any, object) and not key.constraints:
        return lambda value: value
    if key.constraints:
        annotation = typing.Annotated[annotation, Field(**dict(key.constraints))]
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        # pydantic models and dataclasses carry a configuration of their own and refuse another.
        adapter = TypeAdapter(annotation)

    def validate(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as exc:
            raise ValueError(_summary(exc)) from exc

    return validate


def _summary(exc: Any) -> str:
    """One line for people out of pydantic's report, without echoing the value."""
    lines = []
    for error in exc.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in error["loc"])
        lines.append(f"{where}: {error['msg']}" if where else error["msg"])
    return "; ".join(lines)
