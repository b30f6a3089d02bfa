"""What a result depends on, by content: the key under which it can be found again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.code import CodeFingerprint
from airflow_provider_dbnd.core.conversion import elements_of, without_none
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.digest import bytes_digest
from airflow_provider_dbnd.core.execute import TaskSpec, value_of_run
from airflow_provider_dbnd.core.files import holds_files, is_file, located, named
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.masking import MASK
from airflow_provider_dbnd.core.references import references
from airflow_provider_dbnd.core.resolution import Value, converted
from airflow_provider_dbnd.core.reuse.policy import Reuse
from airflow_provider_dbnd.core.signature import Input
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import SELECT
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError, DbndError

_RULES = "reuse 1"


class NotReusable(DbndError):
    """A result cannot be found again, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """The key of a result, and the parts it is made of by names for people.

    ``inputs`` holds what was looked at besides references: files by their content.
    """

    key: str
    parts: Mapping[str, str]
    blind: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return {"key": self.key, "parts": dict(self.parts)}


Files = Callable[[str, Any, Any, str], list[Any]]
"""Returns the content of the files that a parameter names: (parameter, text or texts, annotation,
base) to JSON."""


def ticket_of(
    spec: TaskSpec, definition: Definition, policy: Reuse, code: CodeFingerprint, scratch: str
) -> Ticket:
    """Return what the result of *spec* depends on; read its input files for that.

    :raises NotReusable: where something has no content that another process could compare.
    """
    given = {
        name: value_of_run(spec.identity, definition.signature.inputs[name], value)
        for name, value in spec.arguments.items()
    }
    files = _FilesNow(spec.store, scratch)
    contents = dict(_contents(spec.identity.task_id, definition, given, files))
    parts = {f"code {name}": digest for name, digest in code.parts.items()}
    for name, content in contents.items():
        parts[f"parameter {name}"] = _shown(content, hidden=given[name].hidden)
    parts["outputs"] = _digest(_outputs(definition))
    if policy.salt:
        parts["salt"] = policy.salt
    key = _key(spec, definition, code.digest, contents, policy.salt)
    return Ticket(key=key, parts=parts, blind=code.blind)


def key_of_attempt(spec: TaskSpec, definition: Definition, manifest: Manifest) -> str | None:
    """Return the key of a recorded attempt of this task, or None where its record does not tell."""
    code = manifest.code.get("digest")
    if code is None or any(record.value == MASK for record in manifest.parameters.values()):
        return None
    given = {
        name: Value(value=record.value, source=record.source, base="")
        for name, record in manifest.parameters.items()
    }

    def files(name: str, *_: Any) -> list[Any]:
        read = manifest.inputs.get(name, [])
        return [[os.path.splitext(each["uri"])[1], each["checksum"]] for each in read]

    contents = dict(_contents(spec.identity.task_id, definition, given, files))
    return _key(spec, definition, code, contents, "")


def _contents(
    task: str, definition: Definition, given: Mapping[str, Value], files: Files
) -> Iterator[tuple[str, Any]]:
    for name, spec in definition.signature.inputs.items():
        if name in given and spec.declaration.significant:
            yield name, _content(task, spec, given[name], files)


def _key(
    spec: TaskSpec, definition: Definition, code: str, contents: Mapping[str, Any], salt: str
) -> str:
    material = {
        "rules": _RULES,
        "code": code,
        "parameters": contents,
        "outputs": _outputs(definition),
        "salt": salt,
        "elements": spec.elements,
        # What is stored follows the medium.
        "medium": spec.store.medium,
    }
    return _digest(material)


def _outputs(definition: Definition) -> list[Any]:
    return [
        [s.name, s.declaration.format, s.declaration.path, repr(s.declaration.save_options)]
        for s in definition.signature.outputs
    ]


def _content(task: str, spec: Input, value: Value, files: Files) -> Any:
    """Return the content of an argument as JSON that is equal where the content is."""
    raw, annotation = value.value, without_none(spec.annotation)
    if _names_files(raw, annotation):
        return {"files": files(spec.name, raw, annotation, value.base)}
    if holds_files(annotation) and _holds_text(raw):
        raise NotReusable(f"parameter {spec.name!r} names files inside of other values")
    if any(references(raw)):
        return _references(raw)
    if formats.is_data_type(annotation) and raw is not None:
        raise NotReusable(f"parameter {spec.name!r} holds data in memory")
    return {"value": _plain(spec.name, converted(task, spec, value))}


def _names_files(raw: Any, annotation: Any) -> bool:
    if isinstance(raw, list | tuple):
        return bool(raw) and all(map(_names_files, raw, _types_of(raw, annotation)))
    if not isinstance(raw, str | Path):
        return False
    element = without_none(elements_of(annotation, 1)[0])
    return is_file(annotation) or formats.is_data_type(element)


def _holds_text(raw: Any) -> bool:
    """Tell whether a container has text in it, at any depth."""
    if is_reference(raw) or not isinstance(raw, list | tuple | Mapping):
        return False
    inside = raw.values() if isinstance(raw, Mapping) else raw
    return any(isinstance(each, str | Path) or _holds_text(each) for each in inside)


def _types_of(raw: Sequence[Any], annotation: Any) -> list[Any]:
    """Return the annotation of each of the files that are given for one parameter."""
    if formats.is_data_type(annotation):
        return [annotation] * len(raw)
    return [without_none(each) for each in elements_of(annotation, len(raw))]


class _FilesNow:
    def __init__(self, store: ArtifactStore, scratch: str) -> None:
        self._store, self._scratch = store, scratch

    def __call__(self, name: str, raw: Any, annotation: Any, base: str) -> list[Any]:
        if isinstance(raw, list | tuple):
            types = _types_of(raw, annotation)
            return [
                content
                for each, type_ in zip(raw, types, strict=True)
                for content in self(name, each, type_, base)
            ]
        uris = [located(text, self._store) for text in named(str(raw), annotation)]
        look = self._survey if formats.is_spark_frame(annotation) else self._read
        try:
            return [content for uri in uris for content in look(uri, base)]
        except ArtifactNotFoundError as exc:
            if annotation is Path:
                raise NotReusable(f"parameter {name!r} names what is not there yet") from exc
            raise

    def _survey(self, uri: str, base: str) -> list[list[str]]:
        survey = self._store.survey(uri, base)
        return [[os.path.splitext(survey.uri)[1], survey.checksum]]

    def _read(self, uri: str, base: str) -> list[list[str]]:
        each = self._store.expand(uri, base)
        checksums = (self._store.fetch_input(u, into=self._scratch).checksum for u in each)
        return [[os.path.splitext(u)[1], c] for u, c in zip(each, checksums, strict=True)]


def _references(raw: Any) -> Any:
    if is_reference(raw):
        return {"data": raw["digest"], "part": raw.get(SELECT, [])}
    if isinstance(raw, list | tuple):
        return [_references(each) for each in raw]
    if isinstance(raw, Mapping):
        return {k: _references(v) for k, v in raw.items()}
    return {"value": _plain("", raw)}


def _plain(name: str, value: Any) -> Any:
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return [type(value).__qualname__, to_jsonable_python(value, inf_nan_mode="strings")]
    except PydanticSerializationError as exc:
        raise NotReusable(
            f"parameter {name!r} holds a {type(value).__name__}, which has no content to compare"
        ) from exc


def _shown(content: Any, *, hidden: bool) -> str:
    """Return a part for people: the value where it is short, else its digest."""
    text = json.dumps(content, sort_keys=True)
    return text if len(text) <= 80 and not hidden else f"digest {_digest(content)[:12]}"


def _digest(material: Any) -> str:
    digest: str = bytes_digest(json.dumps(material, sort_keys=True).encode())
    return digest
