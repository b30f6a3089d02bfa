"""A typed function, read: its inputs, its outputs, and how a call binds to them."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from airflow_provider_dbnd.core.conversion import strip_annotated, without_none
from airflow_provider_dbnd.core.parameters import MISSING, Output, Parameter
from airflow_provider_dbnd.exceptions import SignatureError

Shape = Literal["single", "tuple", "record", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One parameter of a function."""

    name: str
    annotation: Any
    default: Any
    declaration: Parameter
    kind: inspect._ParameterKind

    @property
    def required(self) -> bool:
        """Whether a call has to give a value."""
        return self.default is MISSING and self.kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )


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
    given by ``record``) whose fields are the outputs, or nothing.
    """

    function: Callable[..., Any]
    inputs: Mapping[str, Input]
    outputs: tuple[OutputSlot, ...]
    shape: Shape
    record: Any = None

    @property
    def name(self) -> str:
        return self.function.__name__

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, partial: bool = False
    ) -> dict[str, Any]:
        """Return the given arguments by parameter name; raise SignatureError as Python would."""
        signature = inspect.signature(self.function)
        try:
            bound = (signature.bind_partial if partial else signature.bind)(*args, **kwargs)
        except TypeError as exc:
            raise SignatureError(f"{self.name}(): {exc}.") from exc
        return dict(bound.arguments)

    def spread(self, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Turn values by parameter name back into positional and keyword arguments."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, spec in self.inputs.items():
            if spec.kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(values.get(name, ()))
            elif spec.kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(values.get(name, {}))
            elif spec.kind is inspect.Parameter.POSITIONAL_ONLY:
                args.append(values[name])
            elif name in values:
                # Positional where a *args follows, else by name: both are right for the rest.
                if any(
                    s.kind is inspect.Parameter.VAR_POSITIONAL for s in self.inputs.values()
                ) and (spec.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD):
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
        if self.shape == "record" and not isinstance(result, tuple | list | Mapping):
            return {name: getattr(result, name) for name in names}
        if isinstance(result, Mapping):
            if set(result) != set(names):
                raise SignatureError(
                    f"{self.name}() must return a dict with keys {names}, got {sorted(map(str, result))}."
                )
            return {name: result[name] for name in names}
        if not isinstance(result, tuple | list) or len(result) != len(names):
            got = (
                f"{len(result)} values"
                if isinstance(result, tuple | list)
                else type(result).__name__
            )
            raise SignatureError(
                f"{self.name}() must return {len(names)} values ({', '.join(names)}), got {got}."
            )
        return dict(zip(names, result, strict=True))

    def join(self, values: Mapping[str, Any]) -> Any:
        """Rebuild the return value from its outputs: the inverse of :meth:`split`."""
        if self.shape == "none":
            return None
        if self.shape == "single":
            return values[self.outputs[0].name]
        ordered = [values[slot.name] for slot in self.outputs]
        if self.shape == "record":
            return self.record(**dict(zip((s.name for s in self.outputs), ordered, strict=True)))
        return tuple(ordered)


def read_signature(function: Callable[..., Any], declared: Mapping[str, Any]) -> Signature:
    """Read *function*'s signature, with the decorator's ``name=parameter(...)/output(...)`` in *declared*."""
    if not callable(function) or isinstance(function, type):
        raise SignatureError(
            f"{function!r} is not a function. Decorate a plain function; for a class, wrap the call in one."
        )
    name = getattr(function, "__name__", None)
    if name is None or name == "<lambda>":
        raise SignatureError("A lambda has no name to make a task id of. Use def.")
    if inspect.isgeneratorfunction(function) is False and inspect.iscoroutinefunction(function):
        raise SignatureError(
            f"{name}() is async. Write a plain function and call asyncio.run() in it."
        )
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as exc:
        raise SignatureError(
            f"{name}(): annotation {exc.name!r} cannot be resolved. Import it at run time, not only under "
            "TYPE_CHECKING: annotations decide how values are loaded and stored."
        ) from exc
    if next(iter(signature.parameters), None) in ("self", "cls"):
        raise SignatureError(
            f"{name}() is a method. Decorate a function at module level and pass the object's data as arguments."
        )
    inputs = {
        p.name: _read_input(name, p, hints.get(p.name, MISSING), declared.get(p.name))
        for p in signature.parameters.values()
    }
    results = {key: value for key, value in declared.items() if key not in inputs}
    return _with_outputs(function, inputs, hints.get("return", MISSING), results)


def _read_input(task: str, p: inspect.Parameter, annotation: Any, declared: Any) -> Input:
    declaration = declared if isinstance(declared, Parameter) else None
    default = MISSING if p.default is inspect.Parameter.empty else p.default
    if isinstance(default, Parameter):
        declaration, default = default, MISSING
    if annotation is not MISSING and declaration is None:
        declaration = next((m for m in _metadata(annotation) if isinstance(m, Parameter)), None)
    declaration = declaration or Parameter()
    if default is MISSING:
        default = declaration.default
    if declaration.type is not MISSING:
        annotation = declaration.type
    elif annotation is MISSING:
        annotation = _type_of_default(default)
    elif declaration in _metadata(annotation):
        annotation = _drop_declaration(annotation)
    if isinstance(default, Output):
        raise SignatureError(
            f"{task}(): parameter {p.name!r} is declared as an output. Return the value instead, and place it "
            f"with @task(result=output(path=...))."
        )
    return Input(
        name=p.name, annotation=annotation, default=default, declaration=declaration, kind=p.kind
    )


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__metadata__", ())


def _drop_declaration(annotation: Any) -> Any:
    """Take our own declarations out of ``Annotated`` and leave pydantic's in."""
    rest = tuple(m for m in _metadata(annotation) if not isinstance(m, Parameter | Output))
    inner = strip_annotated(annotation)
    return typing.Annotated[(inner, *rest)] if rest else inner


def _type_of_default(default: Any) -> Any:
    return Any if default is MISSING or default is None else type(default)


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
    for name, declaration in declared.items():
        if name not in known:
            raise SignatureError(
                f"{function.__name__}(): {name!r} is declared but is neither a parameter "
                f"({', '.join(inputs) or 'there are none'}) nor an output ({', '.join(sorted(known)) or 'none'})."
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
    fields = _record_fields(annotation)
    if fields:
        plain = without_none(annotation)
        return tuple(_slot(n, t) for n, t in fields.items()), "record", plain
    arms = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple and arms and arms[-1] is not Ellipsis:
        return tuple(_slot(f"result_{i}", t) for i, t in enumerate(arms, 1)), "tuple", None
    slot = _slot(names if isinstance(names, str) else "result", annotation)
    declaration = names if isinstance(names, Output) else inline
    return (_declare(slot, declaration) if declaration else slot,), "single", None


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
            f"{task}(): result names {len(names)} outputs, the annotation has {len(arms)}."
        )
    types = arms or (Any,) * len(names)
    slots = []
    for name, type_ in zip(names, types, strict=True):
        if isinstance(name, Output):
            slots.append(_declare(_slot(name.name or f"result_{len(slots) + 1}", type_), name))
        else:
            slots.append(_slot(name, type_))
    return tuple(slots)


def _record_fields(annotation: Any) -> dict[str, Any]:
    """Return field types of a NamedTuple or a dataclass of outputs, else nothing."""
    plain = strip_annotated(annotation)
    if not isinstance(plain, type):
        return {}
    if issubclass(plain, tuple) and hasattr(plain, "_fields"):
        hints = typing.get_type_hints(plain, include_extras=True)
        return {name: hints.get(name, Any) for name in plain._fields}
    if dataclasses.is_dataclass(plain):
        hints = typing.get_type_hints(plain, include_extras=True)
        return {f.name: hints[f.name] for f in dataclasses.fields(plain) if f.init}
    return {}
