"""Values from code, files, environment and command line, converted to their annotated type."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from airflow_provider_dbnd.core.parameters import MISSING, Parameter

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
_SEQUENCES = (list, tuple, set, frozenset)
_SHOWN_ERRORS = 3
_DAY = len("2000-01-01")


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


def is_class(annotation: Any, base: type = object) -> bool:
    """Tell whether *annotation* is a class below *base*; ``list[int]`` is none, in any Python.

    >>> is_class(bool, int), is_class(list[int])
    (True, False)
    """
    # Until Python 3.10 list[int] says that it is a type.
    return (
        isinstance(annotation, type)
        and typing.get_origin(annotation) is None
        and issubclass(annotation, base)
    )


def is_typeddict(annotation: Any) -> bool:
    """Tell whether *annotation* is a TypedDict, of typing or of typing_extensions."""
    return is_class(annotation) and hasattr(annotation, "__required_keys__")


def accepts_none(annotation: Any) -> bool:
    """Tell whether None is a value of *annotation*."""
    annotation = strip_annotated(annotation)
    if annotation in (Any, None, type(None), object):
        return True
    return is_union(annotation) and any(map(accepts_none, typing.get_args(annotation)))


def none_of_word(value: Any, annotation: Any) -> Any:
    """Return None for ``none`` where *annotation* is an Optional, and anything else as it is.

    For sources that have no None: from code the text "none" is a text.
    """
    if isinstance(value, str) and value.lower() in _NONE_WORDS and accepts_none(annotation):
        return value if without_none(annotation) in (Any, object) else None
    return value


def elements_of(annotation: Any, count: int) -> tuple[Any, ...]:
    """Return the annotation of each of *count* elements of a list, tuple or set.

    >>> elements_of(list[int], 2), elements_of(tuple[int, str], 2), elements_of(list, 1)
    ((<class 'int'>, <class 'int'>), (<class 'int'>, <class 'str'>), (typing.Any,))
    """
    annotation = without_none(annotation)
    arms = typing.get_args(annotation) if typing.get_origin(annotation) in _SEQUENCES else ()
    if len(arms) == count and arms[-1:] != (Ellipsis,):
        return arms
    return (arms[0] if arms else Any,) * count


def values_of(annotation: Any) -> Any:
    """Return V of ``dict[K, V]``."""
    annotation = without_none(annotation)
    arms = typing.get_args(annotation) if typing.get_origin(annotation) is dict else ()
    return arms[1] if arms else Any


def record_fields(annotation: Any) -> dict[str, Any]:
    """Return the field types of a NamedTuple or a dataclass, and nothing for any other type."""
    plain = strip_annotated(annotation)
    if not is_class(plain):
        return {}
    if issubclass(plain, tuple) and hasattr(plain, "_fields"):
        hints = typing.get_type_hints(plain, include_extras=True)
        return {name: hints.get(name, Any) for name in plain._fields}
    if dataclasses.is_dataclass(plain):
        hints = typing.get_type_hints(plain, include_extras=True)
        return {f.name: hints[f.name] for f in dataclasses.fields(plain) if f.init}
    return {}


def type_text(annotation: Any) -> str:
    """Return *annotation* as a user writes it.

    >>> type_text(list[int]), type_text(typing.Optional[int]), type_text(typing.Literal["a"])
    ('list[int]', 'int | None', "Literal['a']")
    """
    annotation = strip_annotated(annotation)
    if annotation is MISSING:
        return "Any"
    if annotation in (None, type(None)):
        return "None"
    if annotation is Ellipsis:
        return "..."
    arms = typing.get_args(annotation)
    if is_union(annotation):
        return " | ".join(map(type_text, arms))
    if arms and typing.get_origin(annotation) is not typing.Literal:
        origin = typing.get_origin(annotation)
        name = getattr(origin, "__name__", str(origin))
        return f"{name}[{', '.join(type_text(a) for a in arms if not isinstance(a, list))}]"
    if isinstance(annotation, type):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")


def convert(value: Any, annotation: Any, declaration: Parameter) -> Any:
    """Return *value* as *annotation*; raise ValueError saying what does not fit.

    Text is read the way a person writes it on a command line: ``2d``, ``a,b``, ``{"k": 1}``.
    """
    constraints = tuple(sorted(declaration.constraints().items()))
    converted = _validator(AnnotationKey(annotation, constraints))(_read(value, annotation))
    if declaration.choices is not None and converted not in declaration.choices:
        raise ValueError(f"It must be one of {', '.join(map(repr, declaration.choices))}")
    return converted


def validate(value: Any, annotation: Any) -> None:
    """Raise ValueError where pydantic takes *value* for no *annotation*; text is not read for more."""
    _validator(AnnotationKey(annotation))(value)


def _read(value: Any, annotation: Any) -> Any:
    """Read text in *value* as far as pydantic does not, at any depth."""
    if isinstance(value, str):
        return _from_text(value, annotation)
    if isinstance(value, dt.datetime) and without_none(annotation) is dt.date:
        return value.date()
    if type(value) in (list, tuple):
        types_ = elements_of(annotation, len(value))
        return type(value)(_read(v, t) for v, t in zip(value, types_, strict=True))
    if type(value) is dict:
        fields, others = _fields(without_none(annotation)), values_of(annotation)
        return {k: _read(v, fields.get(k, others)) for k, v in value.items()}
    return value


def _fields(target: Any) -> Mapping[str, Any]:
    """Return the field types of a record, a pydantic model or a TypedDict."""
    if is_typeddict(target):
        return typing.get_type_hints(target)
    if is_class(target) and hasattr(target, "model_fields"):
        return {name: field.annotation for name, field in target.model_fields.items()}
    return record_fields(target)


def _from_text(text: str, annotation: Any) -> Any:
    target = without_none(annotation)
    if target in (Any, str, object) or (is_union(target) and str in typing.get_args(target)):
        return text
    if text.lower() in _NONE_WORDS and accepts_none(annotation):
        return None
    if target is dt.timedelta:
        return _duration(text)
    if target in (dt.date, dt.datetime):
        return _date_text(text, target)
    if is_class(target, enum.Enum) and text in target.__members__:
        return target[text]
    for known in _alternatives(target):
        if str(known) == text:
            return known
    return _structure(text, target)


def _alternatives(target: Any) -> tuple[Any, ...]:
    """Return the values of a Literal or Enum, which text names by how they print."""
    if typing.get_origin(target) is typing.Literal:
        return typing.get_args(target)
    if is_class(target, enum.Enum):
        return tuple(member.value for member in target)
    return ()


def _structure(text: str, target: Any) -> Any:
    origin = typing.get_origin(target) or target
    is_record = bool(_fields(target)) or hasattr(target, "model_validate")
    if not is_record and origin not in (*_SEQUENCES, dict):
        return text
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return _read(json.loads(text), target)
        except json.JSONDecodeError as exc:
            raise ValueError(f"It is not valid JSON: {exc}") from exc
    if origin in _SEQUENCES:
        parts = [part.strip() for part in text.split(",")] if text else []
        types_ = elements_of(target, len(parts))
        return [_read(part, t) for part, t in zip(parts, types_, strict=True)]
    raise ValueError('Write it as JSON: {"name": value}')


def _date_text(text: str, target: type) -> Any:
    """``today`` and ``yesterday``, and a full timestamp where only its day is asked for."""
    relative = {"today": 0, "yesterday": 1}.get(text.lower())
    if relative is not None:
        now = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=relative)
        return now.date() if target is dt.date else now
    if target is dt.date and len(text) > _DAY:
        with contextlib.suppress(ValueError):
            return dt.datetime.fromisoformat(text.replace("Z", "+00:00")).date()
    return text


def _duration(text: str) -> Any:
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(p.group(0) for p in parts) != text:
        return text  # ISO 8601 and "HH:MM:SS" are pydantic's to read
    return sum((dt.timedelta(**{_UNITS[p["unit"]]: float(p["n"])}) for p in parts), dt.timedelta())


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class AnnotationKey:
    """Caches by the identity of an annotation: not every annotation is hashable."""

    annotation: Any
    constraints: tuple[tuple[str, Any], ...] = ()

    def __hash__(self) -> int:
        return hash((id(self.annotation), self.constraints))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, AnnotationKey)
            and self.annotation is other.annotation
            and self.constraints == other.constraints
        )


@lru_cache(maxsize=1024)
def _validator(key: AnnotationKey) -> Callable[[Any], Any]:
    annotation = key.annotation
    if annotation in (Any, object) and not key.constraints:
        return lambda value: value
    from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError

    if key.constraints:
        annotation = typing.Annotated[annotation, Field(**dict(key.constraints))]
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        # pydantic models and dataclasses carry a configuration of their own and refuse another.
        try:
            adapter = TypeAdapter(annotation)
        except PydanticUserError:
            return lambda value: _instance(value, without_none(annotation), annotation)

    def validate(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as exc:
            raise ValueError(summary(exc)) from exc

    return validate


def _instance(value: Any, class_: Any, annotation: Any) -> Any:
    """Check a class that pydantic has no schema for, such as a dataclass that holds frames."""
    if value is None and accepts_none(annotation):
        return None
    if is_class(class_) and isinstance(value, class_):
        return value
    if isinstance(value, Mapping) and (fields := record_fields(class_)):
        if set(value) != set(fields):
            raise ValueError(f"It needs the fields {', '.join(fields)}")
        return class_(**value)
    raise ValueError(f"It must be an instance of {type_text(class_)}")


def summary(exc: Any) -> str:
    """Return one line for people out of pydantic's report, without echoing the value."""
    lines = []
    errors = exc.errors(include_url=False, include_input=False, include_context=False)
    for error in errors[:_SHOWN_ERRORS]:
        where = ".".join(str(part) for part in error["loc"])
        lines.append(f"{where}: {error['msg']}" if where else error["msg"])
    if len(errors) > _SHOWN_ERRORS:
        lines.append(f"and {len(errors) - _SHOWN_ERRORS} more")
    return "; ".join(lines)
