"""The trigger form: a pipeline's parameters as Airflow ``Param`` objects."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.conversion import accepts_none, without_none
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
    description = spec.declaration.description or documented
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
    return Param(_json(parameter), description=description, **schema)


def _json(parameter: BuildParameter) -> Any:
    import pydantic_core

    value = parameter.value
    assert value is not None
    if formats.is_data_type(parameter.spec.annotation):
        return pydantic_core.to_jsonable_python(value.value)
    return pydantic_core.to_jsonable_python(converted(parameter.owner, parameter.spec, value))


def _schema(spec: Input) -> dict[str, Any]:
    if formats.is_data_type(spec.annotation):
        schema: dict[str, Any] = {"type": ["string", "array"]}
    else:
        schema = _plain_schema(spec)
    if spec.declaration.choices is not None:
        schema["enum"] = list(spec.declaration.choices)
    return (
        _nullable(schema)
        if accepts_none(spec.annotation) and spec.annotation is not Any
        else schema
    )


def _plain_schema(spec: Input) -> dict[str, Any]:
    from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema

    annotation = without_none(spec.annotation)
    if annotation is Any:
        return {}
    if constraints := spec.declaration.constraints():
        annotation = typing.Annotated[annotation, Field(**constraints)]
    try:
        try:
            adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:
            adapter = TypeAdapter(annotation)
        schema = adapter.json_schema()
    except PydanticInvalidForJsonSchema:
        return {}
    definitions = schema.get("$defs", {})
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "$ref" in str(schema):
        return {"type": schema["type"]} if "type" in schema else {}
    if schema.get("format") in ("path", "duration"):
        # Not what the form's own check of these formats allows: "2d" is a duration here.
        return {"type": "string"}
    return {key: schema[key] for key in _KEPT if key in schema}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "type" not in schema:
        return schema
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    schema = {**schema, "type": ["null", *(t for t in types if t != "null")]}
    return {**schema, "enum": [*schema["enum"], None]} if "enum" in schema else schema


def _documented(definition: Definition) -> dict[str, str]:
    """Read parameter descriptions from the docstring: ``:param x: ...`` or ``x: ...`` lines."""
    text = inspect.getdoc(definition.function) or ""
    found = {(a or b): description.strip() for a, b, description in _DOC_PARAM.findall(text)}
    return {name: text for name, text in found.items() if name in definition.signature.inputs}
