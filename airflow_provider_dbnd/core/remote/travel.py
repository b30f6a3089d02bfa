"""Arguments of a task as JSON for another machine: references, URIs and plain values; no secrets.

What arrives there is what the same task gets here; where that cannot be, sending fails and says so.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import math
import os
import shutil
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.conversion import (
    convert,
    elements_of,
    record_fields,
    type_text,
    values_of,
    without_none,
)
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.files import holds_files, is_below_store, is_file, named
from airflow_provider_dbnd.core.manifest import Identity
from airflow_provider_dbnd.core.parameters import Output, Parameter
from airflow_provider_dbnd.core.resolution import Value, as_declared, environment_variable, shown
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.core.storage.claims import claim_keys
from airflow_provider_dbnd.core.storage.filesystem import absolute, redact, scheme_of
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import Encoder, holds_data, is_plain
from airflow_provider_dbnd.exceptions import CodeDeliveryError, DbndError, ParameterError

#: Folder of the store that holds copies of a user's local files, for tasks on other machines.
INPUTS = "_inputs"

#: Types whose subclasses travel as them: pendulum's times, numpy's and Airflow's texts.
_BASES = (str, int, float, dt.date, dt.time, dt.timedelta)


class Packer:
    """Packs the arguments of one task.

    :param shares_disk: whether where the task runs sees the local files of this machine.
    """

    def __init__(
        self, identity: Identity, store: ArtifactStore, scratch: str, *, shares_disk: bool
    ) -> None:
        self._task_id = identity.task_id
        self._encoder = Encoder(store=store, pipeline=identity.pipeline, task_id=identity.task_id)
        self._files = _Files(store=store, scratch=scratch, shares_disk=shares_disk)

    def pack(self, definition: Definition, arguments: Mapping[str, Value]) -> dict[str, Any]:
        """Return the arguments of a task as JSON by parameter name."""
        inputs = definition.signature.inputs
        return {name: self._argument(inputs[name], value) for name, value in arguments.items()}

    def _argument(self, spec: Input, value: Value) -> dict[str, Any]:
        value = as_declared(spec, value)
        if value.hidden and not is_reference(value.value):
            # A pipeline's default has that source as well, and the function's may be another.
            if value.source == "default" and value.value == spec.default:
                return {"default": True}
            return {"variable": environment_variable(self._task_id, spec.name)}
        part = _Part(encoder=self._encoder, files=self._files, name=spec.name, base=value.base)
        try:
            packed = part.packed(value.value, spec.annotation)
        except DbndError as exc:
            where = f"parameter {spec.name!r} of task {self._task_id!r} (from {value.source})"
            raise type(exc)(f"{where} cannot travel to another machine: {exc}") from exc
        return {"value": packed, "source": value.source, "hidden": value.hidden}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One argument, taken apart as :class:`~airflow_provider_dbnd.core.values.Decoder` loads it."""

    encoder: Encoder
    files: _Files
    name: str
    base: str

    def packed(self, value: Any, annotation: Any) -> Any:
        wanted = without_none(annotation)
        if is_reference(value):
            return value
        if not holds_files(wanted) and not _holds_references(value):
            return self._value(value, annotation)
        if isinstance(value, str | Path) and is_file(wanted):
            return self.files.located(str(value), wanted, self.base)
        if type(value) in (list, tuple):
            if is_file(wanted) and all(isinstance(each, str | Path) for each in value):
                return [uri for each in value for uri in _listed(self.packed(each, wanted))]
            types = elements_of(wanted, len(value))
            return [self.packed(v, t) for v, t in zip(value, types, strict=True)]
        if type(value) is dict:
            fields, each = record_fields(wanted), values_of(wanted)
            packed = {k: self.packed(v, fields.get(k, each)) for k, v in value.items()}
            return dict(zip(self._keys(value, wanted), packed.values(), strict=True))
        if isinstance(value, str) and is_file(element := elements_of(wanted, 1)[0]):
            return [self.packed(text, element) for text in named(value, wanted)]
        if (fields := record_fields(type(value))) and holds_files(type(value)):
            return {field: self.packed(getattr(value, field), t) for field, t in fields.items()}
        return self._value(value, annotation)

    def _keys(self, value: Mapping[Any, Any], wanted: Any) -> Sequence[str]:
        """Return the keys as text that the type of the keys reads back."""
        if all(type(each) is str for each in value):
            return list(value)
        arms = typing.get_args(wanted)
        keys: Any = dict.__class_getitem__((arms[0] if arms else Any, None))
        return list(self._value(dict.fromkeys(value), keys))

    def _value(self, value: Any, annotation: Any) -> Any:
        """Return what needs no file: plain, or what the annotation makes the same value of."""
        if is_plain(value):
            return value
        if holds_data(value) or isinstance(value, bytes):
            return self.encoder.encode(value, self.name, Output(), annotation)
        here = _converted(_with_lists(value), annotation)
        self.files.check(here)
        packed = _as_json(here)
        if packed is None or not _same(here, _read_back(packed, annotation)):
            raise ParameterError(
                f"{shown(value)} would not arrive as the same {type_text(annotation)}. Annotate the "
                "parameter with the type of the value, or pass plain values, data or artifacts."
            )
        return packed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Files:
    """Where the other machine finds a user's files."""

    store: ArtifactStore
    scratch: str
    shares_disk: bool

    def located(self, uri: str, wanted: Any, base: str) -> Any:
        """Return the URL of a file, a folder or a pattern, or of copies of them in the store."""
        if is_below_store(uri):
            return uri
        where = absolute(uri, base or os.getcwd())
        if scheme_of(where) == "memory":
            raise ParameterError(
                f"{redact(uri)} is in the memory of this process. Put it into a file or the store."
            )
        if self.shares_disk or scheme_of(where) != "file":
            return where
        path = where.removeprefix("file://")
        if wanted is Path:
            return self._copied(path)
        files = self.store.expand(where, base)
        if os.path.isdir(path):
            return self._folder(path, [each.removeprefix("file://") for each in files])
        copies = [self._copied(each.removeprefix("file://")) for each in files]
        return copies[0] if len(copies) == 1 else copies

    def check(self, value: Any) -> None:
        """Raise where *value* holds the path of a file here, in a record that is kept as it is."""
        path = None if self.shares_disk else _file_in(value)
        if path is not None:
            raise ParameterError(
                f"{shown(value)} holds the path of a file here, {path}, which is not there. Make the "
                "path a parameter of its own (Path), or give a dataclass with it."
            )

    def _copied(self, path: str) -> str:
        if os.path.isdir(path):
            raise ParameterError(
                f"{path} is a folder, which is not copied for a Path. Give its files one by one, or "
                "put the folder into the project and open it beside the function's __file__."
            )
        if not os.path.isfile(path):
            return path  # it may mean something there, as it is
        checksum = self._checksum(path)
        digest = checksum.partition(":")[2]
        return self._stored(path, checksum, key(INPUTS, digest, os.path.basename(path)))

    def _folder(self, folder: str, paths: Sequence[str]) -> str:
        """Copy files under their names in the folder: names may hold values, as ``year=2026/``."""
        below = [os.path.relpath(path, folder).split(os.sep) for path in paths]
        sums = [self._checksum(path) for path in paths]
        listing = json.dumps([below, sums]).encode()
        digest = hashlib.sha256(listing).hexdigest()[:32]
        home = key(INPUTS, digest, os.path.basename(folder))
        for path, parts, checksum in zip(paths, below, sums, strict=True):
            if parts[:-1] and key(*parts[:-1]) != "/".join(parts[:-1]):
                raise ParameterError(
                    f"{path} is in a folder whose name cannot be kept in the store. Rename it with "
                    "letters, digits and . _ = - alone, or give the files in a bucket."
                )
            self._stored(path, checksum, f"{home}/{key(*parts)}")
        return self.store.uri(home)

    def _checksum(self, path: str) -> str:
        return self.store.fetch_input(f"file://{path}", into=self.scratch).checksum

    def _stored(self, path: str, checksum: str, where: str) -> str:
        if self.store.exists(where):
            claim_keys(self.store, [where])
            return self.store.uri(where)
        # The store takes its own file over; the user's stays.
        with self.store.staging() as staged:
            shutil.copyfile(path, staged)
            return self.store.commit(staged, where, checksum=checksum)


def unpack(
    definition: Definition, packed: Mapping[str, Mapping[str, Any]], task_id: str
) -> dict[str, Value]:
    """Return the arguments where the task runs; hidden ones come from the environment there."""
    inputs = definition.signature.inputs
    if unknown := [name for name in packed if name not in inputs]:
        raise CodeDeliveryError(
            f"task {task_id!r} has no parameter {unknown[0]!r} where it runs, so the code there is "
            "another than the worker's. Install the same version of the project in the image."
        )
    return {name: _value(inputs[name], argument, task_id) for name, argument in packed.items()}


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


def _holds_references(value: Any) -> bool:
    if is_reference(value):
        return True
    if type(value) in (list, tuple):
        return any(map(_holds_references, value))
    return type(value) is dict and any(map(_holds_references, value.values()))


def _file_in(value: Any) -> Path | None:
    if isinstance(value, Path):
        return value if value.exists() else None
    if isinstance(value, list | tuple | set | frozenset):
        inside: Any = value
    elif isinstance(value, Mapping):
        inside = value.values()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        inside = vars(value).values() if hasattr(value, "model_dump") else ()
    return next((found for each in inside if (found := _file_in(each))), None)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _with_lists(value: Any) -> Any:
    """Return *value* as a task gets it here: tuples arrive as lists, unless the annotation has them."""
    if type(value) in (list, tuple):
        return [_with_lists(each) for each in value]
    if type(value) is dict:
        return {k: _with_lists(v) for k, v in value.items()}
    return value


def _converted(value: Any, annotation: Any) -> Any:
    try:
        return convert(value, annotation, Parameter())
    except ValueError as exc:
        raise ParameterError(
            f"expected {type_text(annotation)}, got {shown(value)}. {exc}."
        ) from exc


def _read_back(packed: Any, annotation: Any) -> Any:
    try:
        return convert(packed, annotation, Parameter())
    except ValueError:
        return None


def _as_json(value: Any) -> Any:
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        # nan and infinity stay numbers: Python writes and reads them, and nothing else does here.
        packed = to_jsonable_python(value, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError):
        return None
    if isinstance(value, set | frozenset):
        # The same order in every process, or a retry would not know the job again.
        return sorted(packed, key=json.dumps)
    return packed


def _same(here: Any, there: Any) -> bool:
    """Tell whether two values are equal and of the same types, nan included."""
    if isinstance(here, float) and math.isnan(here):
        return isinstance(there, float) and math.isnan(there)
    if type(here) in (list, tuple):
        return (
            type(there) is type(here) and len(there) == len(here) and all(map(_same, here, there))
        )
    if type(here) is dict:
        return (
            type(there) is dict
            and here.keys() == there.keys()
            and all(_same(v, there[k]) for k, v in here.items())
        )
    kind = next((base for base in _BASES if isinstance(here, base)), type(here))
    return isinstance(there, kind) and bool(here == there)
