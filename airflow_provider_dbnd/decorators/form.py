"""The trigger form: a pipeline's parameters as Airflow ``Param`` objects."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

# Airflow 3.1 has it in airflow.exceptions, later ones in airflow.sdk.exceptions.
from airflow.sdk.definitions.param import ParamValidationError  # type: ignore[attr-defined]

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.conversion import accepts_none, is_union, without_none
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.parameters import RunValue
from airflow_provider_dbnd.core.resolution import REUSE, converted
from airflow_provider_dbnd.core.reuse.policy import MODES
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.core.standin import BuildParameter
from airflow_provider_dbnd.exceptions import ParameterError

#: JSON-schema words that Airflow's form understands.
_KEPT = (
    "type",
    "enum",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "items",
    "multipleOf",
    "properties",
    "required",
    "additionalProperties",
)
#: Those of them that hold schemas of parts of the value.
_NESTED = ("items", "additionalProperties", "anyOf", "oneOf")
#: Formats that Airflow's form has a field of its own for. Its ``duration`` would refuse "2d".
_FORMATS = ("date", "date-time", "time", "password", "multiline")
_REUSE = (
    "Whether results of earlier runs with equal code, inputs and parameters stand for tasks of this "
    "run; refresh runs every task. Empty: as configured."
)
_DOC_PARAM = re.compile(r"^\s*(?::param\s+(\w+):|(\w+)(?:\s*\([^)]*\))?:)\s*(.+)$", re.MULTILINE)


def form_params(
    definition: Definition, parameters: Mapping[str, BuildParameter], *, scheduled: bool
) -> dict[str, Any]:
    """Return the form's fields for the parameters a run can change."""
    documented = _documented(definition)
    fields = {
        p.spec.name: _field(p, documented.get(p.spec.name), scheduled=scheduled)
        for p in parameters.values()
        if p.owner == definition.name and not p.fixed
    }
    if REUSE not in definition.signature.inputs:
        fields[REUSE] = Param(
            None, description=_REUSE, **_nullable({"type": "string", "enum": [*MODES]})
        )
    return fields


def _field(parameter: BuildParameter, documented: str | None, *, scheduled: bool) -> Param:
    spec = parameter.spec
    schema = _schema(spec)
    description = spec.declaration.description or _described(spec.annotation) or documented
    if spec.declaration.hidden:
        # Its value is not for the serialized DAG: the field starts empty and empty means "as configured".
        return Param(None, type=["null", "string"], format="password", description=description)
    if parameter.value is None:
        if scheduled:
            raise ParameterError(
                f"pipeline {parameter.owner!r} is scheduled, but its parameter {spec.name!r} has no value: give it a "
                f"default, as_dag({spec.name}=...), or set it in dbnd.toml."
            )
        return Param(description=description, **schema)
    if isinstance(parameter.value.value, RunValue):
        return Param(None, description=description, **_nullable(schema))
    value = _json(parameter)
    return Param(value, description=description, **_taking(value, schema))


def _taking(value: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the checks of a field that its own default passes.

    A time without zone has no JSON format, infinity is no JSON number. A run checks its values anyway.
    """
    unformatted = {key: word for key, word in schema.items() if key != "format"}
    return next(each for each in (schema, unformatted, {}) if _passes(value, each))


def _passes(value: Any, schema: dict[str, Any]) -> bool:
    try:
        Param(value, schema=schema).resolve()
    except ParamValidationError:
        return False
    return True


def _json(parameter: BuildParameter) -> Any:
    import pydantic_core

    value = parameter.value
    assert value is not None
    if formats.is_data_type(parameter.spec.annotation):
        return pydantic_core.to_jsonable_python(value.value)
    typed = converted(parameter.owner, parameter.spec, value)
    return pydantic_core.from_json(pydantic_core.to_json(typed, inf_nan_mode="strings"))


def _schema(spec: Input) -> dict[str, Any]:
    import pydantic_core

    if formats.is_data_type(spec.annotation):
        schema: dict[str, Any] = {"type": ["string", "array"]}
    else:
        schema = _plain_schema(spec)
    if spec.declaration.choices is not None:
        schema["enum"] = pydantic_core.to_jsonable_python(list(spec.declaration.choices))
    return (
        _nullable(schema)
        if accepts_none(spec.annotation) and spec.annotation is not Any
        else schema
    )


def _plain_schema(spec: Input) -> dict[str, Any]:
    from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter

    annotation = spec.annotation
    if without_none(annotation) is Any:
        return {}
    if constraints := spec.declaration.constraints():
        annotation = typing.Annotated[annotation, Field(**constraints)]
    try:
        try:
            adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:
            adapter = TypeAdapter(annotation)
        schema = adapter.json_schema()
    except PydanticUserError:  # a type that is no JSON
        return {}
    definitions = schema.get("$defs", {})
    schema = _without_null(schema)
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    kept = {key: schema[key] for key in _KEPT if key in schema}
    if "const" in schema:
        kept["enum"] = [schema["const"]]
    if "$ref" in str(kept):
        return {"type": kept["type"]} if "type" in kept else {}
    format_ = {"format": kept["format"]} if kept.get("format") in _FORMATS else {}
    return {**_unformatted(kept), **format_}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of T for that of ``Optional[T]``."""
    arms = [arm for arm in schema.get("anyOf", ()) if arm.get("type") != "null"]
    return {**schema, **arms[0]} if len(arms) == 1 else schema


def _unformatted(schema: Any) -> Any:
    """Leave formats out at every depth: a part of a value may be text that only we read ("2d")."""
    if isinstance(schema, list):
        return [_unformatted(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: word for key, word in schema.items() if key != "format"}
    kept |= {key: _unformatted(kept[key]) for key in _NESTED if key in kept}
    if "properties" in kept:
        kept["properties"] = {n: _unformatted(each) for n, each in kept["properties"].items()}
    return kept


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    schema = dict(schema)
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = ["null", *(t for t in types if t != "null")]
    if "enum" in schema and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    return schema


def _described(annotation: Any) -> str | None:
    """Return the description in pydantic's ``Annotated[T, Field(description=...)]``."""
    arms = typing.get_args(annotation) if is_union(annotation) else ()
    metadata = (m for each in (annotation, *arms) for m in getattr(each, "__metadata__", ()))
    return next((m.description for m in metadata if getattr(m, "description", None)), None)


def _documented(definition: Definition) -> dict[str, str]:
    """Read parameter descriptions from the docstring: ``:param x: ...`` or ``x: ...`` lines."""
    text = inspect.getdoc(definition.function) or ""
    found = {(a or b): description.strip() for a, b, description in _DOC_PARAM.findall(text)}
    return {name: text for name, text in found.items() if name in definition.signature.inputs}
