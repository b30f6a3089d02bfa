"""A typed function, read: its inputs, its outputs, and how a call binds to them."""

from __future__ import annotations

import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Optional

from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.conversion import (
    accepts_none,
    is_typeddict,
    record_fields,
    strip_annotated,
)
from airflow_provider_dbnd.core.parameters import MISSING, Output, Parameter, RunValue
from airflow_provider_dbnd.core.spark.session import is_session
from airflow_provider_dbnd.exceptions import SignatureError

Shape = Literal["single", "tuple", "record", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One parameter of a function. Relative paths in its default start from ``folder``."""

    name: str
    annotation: Any
    default: Any
    declaration: Parameter
    kind: inspect._ParameterKind
    folder: str = ""

    @property
    def variadic(self) -> bool:
        """Whether it is ``*args`` or ``**kwargs``."""
        return self.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

    @property
    def required(self) -> bool:
        """Whether it has to be given a value."""
        return self.default is MISSING and not self.variadic


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSlot:
    """One result of a function: its name, its annotation and how it is stored."""

    name: str
    annotation: Any
    declaration: Output


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """Inputs and outputs of a function.

    ``shape`` says how the return value splits: one value, a tuple, a record (NamedTuple, dataclass
    given by ``record``) whose fields are the outputs, or nothing. ``injected`` are parameters that no
    one gives a value: a run fills them in with what it has, such as the Spark session.
    """

    function: Callable[..., Any]
    inputs: Mapping[str, Input]
    outputs: tuple[OutputSlot, ...]
    shape: Shape
    record: Any = None
    injected: Mapping[str, Input] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def folder(self) -> str:
        """The folder of the function's file: where relative paths written in it start."""
        return _folder(self.function)

    @property
    def returns(self) -> Any:
        """The annotation of the whole result."""
        if self.shape == "single":
            return self.outputs[0].annotation
        if self.shape == "none":
            return type(None)
        return self.record or tuple[tuple(slot.annotation for slot in self.outputs)]  # type: ignore[misc]

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, partial: bool = False
    ) -> dict[str, Any]:
        """Return the given arguments by parameter name; raise SignatureError as Python would."""
        signature = inspect.signature(self.function)
        if self.injected:
            given = [p for p in signature.parameters.values() if p.name not in self.injected]
            signature = signature.replace(parameters=given)
        try:
            bound = (signature.bind_partial if partial else signature.bind)(*args, **kwargs)
        except TypeError as exc:
            raise SignatureError(f"{self.name}(): {exc}.") from exc
        return dict(bound.arguments)

    def spread(self, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Turn values by parameter name back into positional and keyword arguments."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        by_position: set[Any] = {inspect.Parameter.POSITIONAL_ONLY}
        if any(s.kind is inspect.Parameter.VAR_POSITIONAL for s in self.inputs.values()):
            by_position.add(inspect.Parameter.POSITIONAL_OR_KEYWORD)
        specs = {**self.inputs, **self.injected}
        for name in inspect.signature(self.function).parameters:
            spec = specs[name]
            if name not in values:
                continue
            if spec.kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(values[name])
            elif spec.kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(values[name])
            elif spec.kind in by_position:
                args.append(values[name])
            else:
                kwargs[name] = values[name]
        return args, kwargs

    def split(self, result: Any) -> dict[str, Any]:
        """Return the function's return value by output name; raise where it does not fit."""
        if self.shape == "none":
            return {}
        if self.shape == "single":
            return {self.outputs[0].name: result}
        names = [slot.name for slot in self.outputs]
        if self.shape == "record" and isinstance(result, self.record):
            # An output may be stored under another name than its field.
            return dict(zip(names, (getattr(result, f) for f in self._fields), strict=True))
        if isinstance(result, Mapping):
            if set(result) != set(names):
                raise SignatureError(
                    f"{self.name}() must return a dict with the keys {', '.join(names)}, "
                    f"got {', '.join(map(str, result)) or 'an empty one'}."
                )
            return {name: result[name] for name in names}
        if not isinstance(result, tuple | list) or len(result) != len(names):
            got = f"{len(result)}" if isinstance(result, tuple | list) else type(result).__name__
            raise SignatureError(
                f"{self.name}() must return {len(names)} values ({', '.join(names)}), got {got}. "
                "Return as many as its annotation or result=... names."
            )
        return dict(zip(names, result, strict=True))

    def join(self, parts: Any) -> Any:
        """Rebuild the return value from what :meth:`as_fields` returns."""
        return self.record(**parts) if self.shape == "record" else tuple(parts)

    def as_fields(self, values: Mapping[str, Any]) -> Any:
        """Return outputs as they travel together: a record by its fields, a tuple as a list."""
        ordered = [values[slot.name] for slot in self.outputs]
        if self.shape == "record":
            return dict(zip(self._fields, ordered, strict=True))
        return ordered

    @property
    def _fields(self) -> list[str]:
        return list(record_fields(self.record))


def read_signature(function: Callable[..., Any], declared: Mapping[str, Any]) -> Signature:
    """Read *function*'s signature.

    :param declared: the decorator's ``name=parameter(...)``, ``name=output(...)`` and ``result=``.
    """
    _check_function(function)
    signature, hints = _hints(function)
    name = function.__name__
    if next(iter(signature.parameters), None) in ("self", "cls"):
        raise SignatureError(
            f"{name}() is a method. Decorate a function at module level and pass the object's data "
            "as arguments."
        )
    folder = _folder(function)
    inputs = {
        p.name: _read_input(name, p, hints.get(p.name, MISSING), declared.get(p.name), folder)
        for p in signature.parameters.values()
    }
    injected = {
        name: spec
        for name, spec in inputs.items()
        if is_session(spec.annotation) and not spec.variadic
    }
    results = {key: value for key, value in declared.items() if key not in inputs}
    inputs = {name: spec for name, spec in inputs.items() if name not in injected}
    read = _with_outputs(function, inputs, hints.get("return", MISSING), results)
    return replace(read, injected=injected)


def _folder(function: Callable[..., Any]) -> str:
    return os.path.dirname(os.path.abspath(code_of(function).co_filename))


def code_of(function: Callable[..., Any]) -> types.CodeType:
    """Return the code of a function, below what other decorators wrapped around it."""
    code: types.CodeType = inspect.unwrap(function).__code__
    return code


def _check_function(function: Any) -> None:
    if isinstance(function, staticmethod | classmethod):
        raise SignatureError(
            f"{function.__func__.__name__}() is a method. Decorate a function at module level and "
            "pass the object's data as arguments."
        )
    if not inspect.isfunction(inspect.unwrap(function)):
        raise SignatureError(
            f"{function!r} is not a function written in Python. Decorate one that calls it."
        )
    name = function.__name__
    if name == "<lambda>":
        raise SignatureError("A lambda has no name to make a task id of. Use def.")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise SignatureError(f"{name}() is async. Write a plain function, asyncio.run(...) in it.")


def _hints(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    try:
        return inspect.signature(function), typing.get_type_hints(function, include_extras=True)
    except NameError as exc:
        raise SignatureError(
            f"{function.__name__}(): annotation {exc.name!r} cannot be resolved. Import or define "
            "it at module level, not only under TYPE_CHECKING: annotations decide how values are "
            "loaded and stored."
        ) from exc
    except (AttributeError, TypeError, SyntaxError) as exc:
        raise SignatureError(
            f"{function.__name__}(): an annotation cannot be resolved: {exc}."
        ) from exc


def _read_input(
    task: str, p: inspect.Parameter, annotation: Any, declared: Any, folder: str
) -> Input:
    declaration = declared if isinstance(declared, Parameter) else None
    default = MISSING if p.default is inspect.Parameter.empty else p.default
    if isinstance(default, Output) or isinstance(declared, Output):
        raise SignatureError(
            f"{task}(): parameter {p.name!r} is declared as an output. Return the value instead, "
            "and place it with @task(result=output(path=...))."
        )
    if isinstance(default, Parameter):
        declaration, default = default, MISSING
    if annotation is not MISSING and declaration is None:
        declaration = next((m for m in _metadata(annotation) if isinstance(m, Parameter)), None)
    declaration = declaration or Parameter()
    if default is MISSING:
        default = declaration.default
    annotation = _annotation(p, annotation, default, declaration)
    if _holds_typeddict_of_typing(annotation):
        raise SignatureError(
            f"{task}(): parameter {p.name!r} is a TypedDict of typing, which pydantic can read only "
            "from Python 3.12 on. Import TypedDict from typing_extensions."
        )
    return Input(
        name=p.name,
        annotation=annotation,
        default=default,
        declaration=declaration,
        kind=p.kind,
        folder=folder,
    )


def _annotation(p: inspect.Parameter, annotation: Any, default: Any, declaration: Parameter) -> Any:
    if declaration.type is not MISSING:
        annotation = declaration.type
    elif annotation is MISSING:
        annotation = _type_of_default(default)
    else:
        annotation = _drop_declaration(annotation)
    if p.kind is inspect.Parameter.VAR_POSITIONAL:
        return tuple[annotation, ...]
    if p.kind is inspect.Parameter.VAR_KEYWORD:
        return dict[str, annotation]
    if default is None and not accepts_none(annotation):
        return Optional[annotation]  # ``x: int = None``, as people write it
    return annotation


def _holds_typeddict_of_typing(annotation: Any) -> bool:
    if sys.version_info >= (3, 12):
        return False
    annotation = strip_annotated(annotation)
    if is_typeddict(annotation):
        return type(annotation).__module__ == "typing"
    return any(map(_holds_typeddict_of_typing, typing.get_args(annotation)))


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__metadata__", ())


def _drop_declaration(annotation: Any) -> Any:
    """Take our own declarations out of ``Annotated`` and leave pydantic's in."""
    rest = tuple(m for m in _metadata(annotation) if not isinstance(m, Parameter | Output))
    inner = strip_annotated(annotation)
    return typing.Annotated[(inner, *rest)] if rest else inner


def _type_of_default(default: Any) -> Any:
    unknown = default is MISSING or default is None or isinstance(default, RunValue)
    return Any if unknown else type(default)


def _with_outputs(
    function: Callable[..., Any],
    inputs: Mapping[str, Input],
    returned: Any,
    declared: dict[str, Any],
) -> Signature:
    inline = next((m for m in _metadata(returned) if isinstance(m, Output)), None)
    if returned is not MISSING:
        returned = _drop_declaration(returned)
    names = declared.pop("result", None)
    slots, shape, record = _slots(function.__name__, returned, names, inline)
    known = {slot.name for slot in slots}
    if len(known) < len(slots):
        raise SignatureError(
            f"{function.__name__}(): two outputs have one name: {', '.join(s.name for s in slots)}."
        )
    for name, declaration in declared.items():
        if name not in known:
            raise SignatureError(
                f"{function.__name__}(): {name!r} is declared but is neither a parameter "
                f"({', '.join(inputs) or 'there are none'}) nor an output "
                f"({', '.join(sorted(known)) or 'there are none'})."
            )
        slots = tuple(_declare(s, declaration) if s.name == name else s for s in slots)
    return Signature(function=function, inputs=inputs, outputs=slots, shape=shape, record=record)


def _slots(
    task: str, returned: Any, names: Any, inline: Output | None
) -> tuple[tuple[OutputSlot, ...], Shape, Any]:
    if returned is type(None) or (returned is None):
        return (), "none", None
    annotation = Any if returned is MISSING else returned
    if isinstance(names, str) and "," in names:
        names = tuple(n.strip() for n in names.split(","))
    if isinstance(names, tuple | list):
        return _named(task, annotation, tuple(names)), "tuple", None
    if fields := record_outputs(annotation):
        return tuple(fields.values()), "record", strip_annotated(annotation)
    arms = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple and arms and arms[-1] is not Ellipsis:
        return tuple(_slot(f"result_{i}", t) for i, t in enumerate(arms, 1)), "tuple", None
    slot = _slot(names if isinstance(names, str) else "result", annotation)
    declaration = names if isinstance(names, Output) else inline
    return (_declare(slot, declaration) if declaration else slot,), "single", None


def record_outputs(annotation: Any) -> dict[str, OutputSlot]:
    """Return the outputs that a NamedTuple or dataclass is stored as, by its fields."""
    # A reference has fields as well, and is one output all the same.
    if strip_annotated(annotation) is Artifact:
        return {}
    return {name: _slot(name, type_) for name, type_ in record_fields(annotation).items()}


def _slot(name: str, annotation: Any) -> OutputSlot:
    declaration = next((m for m in _metadata(annotation) if isinstance(m, Output)), Output())
    return OutputSlot(
        name=declaration.name or name,
        annotation=_drop_declaration(annotation),
        declaration=declaration,
    )


def _declare(slot: OutputSlot, declaration: Any) -> OutputSlot:
    if not isinstance(declaration, Output):
        raise SignatureError(
            f"Output {slot.name!r} must be declared with output(...), got {declaration!r}."
        )
    annotation = slot.annotation if declaration.type is MISSING else declaration.type
    return replace(
        slot, name=declaration.name or slot.name, annotation=annotation, declaration=declaration
    )


def _named(task: str, annotation: Any, names: tuple[Any, ...]) -> tuple[OutputSlot, ...]:
    """Outputs named by ``result=("a", "b")`` or ``result=(output(name="a"), ...)``."""
    arms = typing.get_args(annotation) if typing.get_origin(annotation) is tuple else ()
    if arms and len(arms) != len(names):
        raise SignatureError(
            f"{task}(): result=... names {len(names)} outputs, the return annotation {len(arms)}. "
            "Make them agree."
        )
    types = arms or (Any,) * len(names)
    slots: list[OutputSlot] = []
    for name, type_ in zip(names, types, strict=True):
        if isinstance(name, Output):
            slots.append(_declare(_slot(name.name or f"result_{len(slots) + 1}", type_), name))
        else:
            slots.append(_slot(name, type_))
    return tuple(slots)
