"""Arguments of a task as JSON for another machine: references, URIs and plain values; no secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact, is_reference
from airflow_provider_dbnd.core.conversion import convert, elements_of, type_text, without_none
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.filesystem import absolute, scheme_of
from airflow_provider_dbnd.core.manifest import Identity
from airflow_provider_dbnd.core.parameters import Output
from airflow_provider_dbnd.core.resolution import Value, environment_variable, shown
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.core.store import ArtifactStore, key
from airflow_provider_dbnd.core.values import Encoder, holds_data, is_plain
from airflow_provider_dbnd.exceptions import ParameterError

#: Folder of the store that holds copies of a user's local files, for tasks on other machines.
INPUTS = "_inputs"


class Packer:
    """Packs the arguments of one task.

    :param shares_disk: whether where the task runs sees the local files of this machine.
    """

    def __init__(
        self, identity: Identity, store: ArtifactStore, scratch: str, *, shares_disk: bool
    ) -> None:
        self._identity, self._store, self._scratch = identity, store, scratch
        self._shares_disk = shares_disk

    def pack(self, definition: Definition, arguments: Mapping[str, Value]) -> dict[str, Any]:
        """Return the arguments of a task as JSON by parameter name."""
        inputs = definition.signature.inputs
        return {name: self._argument(inputs[name], value) for name, value in arguments.items()}

    def _argument(self, spec: Input, value: Value) -> dict[str, Any]:
        hidden = value.hidden or spec.declaration.hidden
        if hidden and not is_reference(value.value):
            # A pipeline's default has that source as well, and the function's may be another.
            if value.source == "default" and value.value == spec.default:
                return {"default": True}
            return {"variable": environment_variable(self._identity.task_id, spec.name)}
        return {
            "value": self._packed(value.value, spec, spec.annotation, value.base),
            "source": value.source,
            "hidden": hidden,
        }

    def _packed(self, value: Any, spec: Input, annotation: Any, base: str) -> Any:
        if is_reference(value):
            return value
        if isinstance(value, str | Path) and _names_files(annotation):
            return self._located(str(value), annotation, base)
        if type(value) in (list, tuple) and (
            holds_data(value) or any(map(is_reference, value)) or _lists_files(annotation)
        ):
            types = (
                (annotation,) * len(value)
                if formats.is_data_type(without_none(annotation))
                else elements_of(annotation, len(value))
            )
            return [self._packed(v, spec, t, base) for v, t in zip(value, types, strict=True)]
        if isinstance(value, str) and _lists_files(annotation):
            parts = [part.strip() for part in value.split(",")]
            element = elements_of(annotation, 1)[0]
            return [self._located(part, element, base) for part in parts]
        if holds_data(value):
            return self._encoded(value, spec, annotation)
        return value if is_plain(value) else self._plain(value, spec)

    def _encoded(self, value: Any, spec: Input, annotation: Any) -> Any:
        identity = self._identity
        encoder = Encoder(store=self._store, pipeline=identity.pipeline, task_id=identity.task_id)
        return encoder.encode(value, spec.name, Output(), annotation)

    def _plain(self, value: Any, spec: Input) -> Any:
        """Return what the parameter's type reads back as the same value."""
        from pydantic_core import PydanticSerializationError, to_jsonable_python

        try:
            packed = to_jsonable_python(value, inf_nan_mode="strings")
            same = bool(convert(packed, spec.annotation, spec.declaration) == value)
        except (PydanticSerializationError, ValueError):
            same = False
        if not same:
            raise ParameterError(
                f"parameter {spec.name!r} of task {self._identity.task_id!r}: {shown(value)} cannot "
                f"travel to another machine as {type_text(spec.annotation)}. Annotate the parameter "
                "with the type of the value, or pass plain values, data or artifacts."
            )
        return packed

    def _located(self, uri: str, annotation: Any, base: str) -> Any:
        """Return where the other machine finds the files: a URL, or a copy in the store."""
        if uri.startswith("{store}/"):
            return uri
        where = absolute(uri, base or os.getcwd())
        if scheme_of(where) != "file":
            return where
        if self._shares_disk:
            return where
        if without_none(annotation) is Path:
            return self._copied(where)
        copies = [self._copied(each) for each in self._store.expand(where, base)]
        return copies[0] if len(copies) == 1 else copies

    def _copied(self, uri: str) -> str:
        fetched = self._store.fetch_input(uri, into=self._scratch)
        digest = fetched.checksum.partition(":")[2]
        where = key(INPUTS, digest, os.path.basename(uri.rstrip("/")))
        if self._store.exists(where):
            return self._store.uri(where)
        # The store takes its own file over; the user's stays.
        with self._store.staging() as staged:
            _copy(fetched.path, staged)
            return self._store.commit(staged, where, checksum=fetched.checksum)


def unpack(
    definition: Definition, packed: Mapping[str, Mapping[str, Any]], task_id: str
) -> dict[str, Value]:
    """Return the arguments where the task runs; hidden ones come from the environment there."""
    inputs = definition.signature.inputs
    return {
        name: _value(inputs[name], argument, task_id)
        for name, argument in packed.items()
        if name in inputs
    }


def _value(spec: Input, argument: Mapping[str, Any], task_id: str) -> Value:
    base = spec.folder or os.getcwd()
    if argument.get("default"):
        return Value(value=spec.default, source="default", base=base, hidden=True)
    variable = argument.get("variable")
    if variable is None:
        return Value(
            value=argument["value"],
            source=argument["source"],
            base=base,
            hidden=argument["hidden"],
        )
    if variable not in os.environ:
        raise ParameterError(
            f"parameter {spec.name!r} of task {task_id!r} is hidden, so its value does not travel. "
            f"Give it where the task runs as environment variable {variable}, by the engine's own "
            "means for secrets (kubernetes: secrets, docker: private_environment)."
        )
    source = f"environment variable {variable}"
    return Value(value=os.environ[variable], source=source, base=base, hidden=True)


def _names_files(annotation: Any) -> bool:
    wanted = without_none(annotation)
    return wanted is Path or (wanted is not Artifact and formats.is_data_type(wanted))


def _lists_files(annotation: Any) -> bool:
    wanted = without_none(annotation)
    return not formats.is_data_type(wanted) and _names_files(elements_of(wanted, 1)[0])


def _copy(source: str, target: str) -> None:
    import shutil

    shutil.copyfile(source, target)
