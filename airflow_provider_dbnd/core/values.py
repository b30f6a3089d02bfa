"""Between Python values and what travels: inline JSON, and references to stored artifacts.

Lists, tuples and dicts that hold data are encoded element by element, so each data object is an
artifact of its own and a list of them can be fanned out over.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import MARKER, Artifact, is_reference
from airflow_provider_dbnd.core.conversion import (
    elements_of,
    record_fields,
    strip_annotated,
    type_text,
    values_of,
    without_none,
)
from airflow_provider_dbnd.core.digest import FILE_SCHEME, bytes_digest
from airflow_provider_dbnd.core.files import located, named
from airflow_provider_dbnd.core.parameters import Output, Parameter
from airflow_provider_dbnd.core.references import artifact_key
from airflow_provider_dbnd.core.signature import Signature
from airflow_provider_dbnd.core.storage.filesystem import absolute
from airflow_provider_dbnd.core.storage.parts import PARTS_SCHEME
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import FormatError, ParameterError

if TYPE_CHECKING:
    from airflow_provider_dbnd.core.spark.artifacts import Saved

#: JSON up to this size stays inline in XCom; above it becomes an artifact.
INLINE_BYTES = 1024

#: Key beside a reference that picks a part of the stored value: ``result["a"]`` of a dict.
SELECT = "select"


def is_inline(value: Any) -> bool:
    """Tell whether *value* is small plain JSON that comes back equal and of the same types."""
    return is_plain(value) and len(json.dumps(value)) <= INLINE_BYTES


def is_plain(value: Any) -> bool:
    """Tell whether *value* is JSON that comes back equal and of the same types."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return True
    if kind is float:
        return math.isfinite(value)  # JSON has no word for the others
    if kind is list:
        return all(is_plain(v) for v in value)
    return (
        kind is dict
        and MARKER not in value
        and all(type(k) is str and is_plain(v) for k, v in value.items())
    )


@dataclass(kw_only=True)
class Encoder:
    """Stores the results of one task. ``elements`` forces one value an element, for fan-out."""

    store: ArtifactStore
    pipeline: str
    task_id: str
    elements: bool = False

    def encode(self, value: Any, name: str, declaration: Output, annotation: Any = Any) -> Any:
        """Return the JSON that stands for *value*, storing what is not small plain JSON."""
        value = _without_numpy_scalars(value)
        if isinstance(value, Artifact):
            return value.to_json()
        if value is None:
            return None
        if declaration.format is None and declaration.path is None and is_inline(value):
            return value
        if self._is_structure(value):
            return self._structure(value, name, declaration, annotation)
        return self.save(value, name, declaration, annotation).to_json()

    def save(self, value: Any, name: str, declaration: Output, annotation: Any) -> Artifact:
        """Store one object and return the reference to it."""
        extension = formats.extension_of(declaration.path) if declaration.path else None
        written_type = annotation if _is_stream(value) else type(value)
        format_, ending = formats.format_for_output(
            written_type,
            medium=self.store.medium,
            name=declaration.format,
            extension=extension or None,
        )
        if formats.is_spark_frame(written_type):
            return self._save_spark_frame(value, name, declaration, format_.name, ending)
        if isinstance(value, Path):
            ending = value.suffix.lstrip(".") or ending
        with self.store.staging(f".{ending}") as staged:
            if self.store.takes_parts and isinstance(format_, formats.Drafts):
                draft = format_.draft(value, options=declaration.save_options)
                written, uri = self._send(draft, staged, name, ending)
            else:
                # JSON that is plain comes back as it is, whatever reads it: small values are the same.
                type_ = Any if format_.name == "json" and is_plain(value) else annotation
                written = format_.write(
                    value, staged, options=declaration.save_options, type_=type_
                )
                uri = None
            size = os.path.getsize(staged)
            uri = uri or self.store.commit(
                staged,
                self._key(name, written, ending, size),
                checksum=written.checksum,
                heals=True,
            )
        return Artifact(
            uri=uri,
            type=formats.type_name(written_type),
            format=format_.name,
            digest=written.digest,
            checksum=written.checksum,
            size=size,
            rows=written.rows,
            schema=written.schema,
        )

    def _send(
        self, draft: formats.Draft, staged: str, name: str, ending: str
    ) -> tuple[formats.Written, str | None]:
        """Write a file and send it meanwhile, where its name is known before all of its bytes are.

        Returns what was written, and its URI if it is in the store.
        """
        if draft.stem is None:
            return draft.write(staged, lambda _size: None), None
        where = artifact_key(self.pipeline, self.task_id, name, f"{draft.stem}.{ending}")
        with self.store.sending(staged, where) as sending:
            written = draft.write(staged, sending.grown)
        if sending.done or (sending.tried and self.store.has_end(where, staged, written.tail)):
            return written, self.store.uri(where)
        return written, None  # too small, or another file of these data has the name

    def _save_spark_frame(
        self, frame: Any, name: str, declaration: Output, format_: str, ending: str
    ) -> Artifact:
        from airflow_provider_dbnd.core.spark.artifacts import save

        saved = save(
            frame,
            self.store,
            options=declaration.save_options,
            key_of=lambda written: self._key(name, written, ending, 0),
        )
        return self._folder(saved, type(frame), format_)

    def take_folder(self, staged: str, name: str, type_: Any) -> Artifact:
        """Make the parquet files in folder *staged* of the store the artifact of an output."""
        from airflow_provider_dbnd.core.spark.artifacts import EXTENSION, take

        saved = take(
            staged, self.store, key_of=lambda written: self._key(name, written, EXTENSION, 0)
        )
        return self._folder(saved, type_, EXTENSION)

    def _folder(self, saved: Saved, type_: Any, format_: str) -> Artifact:
        return Artifact(
            uri=saved.uri,
            type=formats.type_name(type_),
            format=format_,
            digest=saved.written.digest,
            checksum=saved.written.checksum,
            size=saved.size,
            rows=saved.written.rows,
            schema=saved.written.schema,
        )

    def _key(self, name: str, written: formats.Written, ending: str, size: int) -> str:
        """``{pipeline}/{task}/{output}/{digest}.{ext}``.

        Equal data may have several stored forms (string widths, writer versions), each with bytes
        of its own: where the checksum is not the digest, it tells them apart together with the size.
        """
        stem = written.digest
        if written.checksum.partition(":")[2] != stem:
            form = bytes_digest(f"{written.checksum} {size}".encode())
            stem = f"{stem}-{form[:12]}"
        return artifact_key(self.pipeline, self.task_id, name, f"{stem}.{ending}")

    def _is_structure(self, value: Any) -> bool:
        if type(value) is list and (self.elements or not is_plain(value)):
            return self.elements or any(holds_data(v) for v in value)
        if type(value) in (tuple, dict):
            values = value.values() if type(value) is dict else value
            keyed = type(value) is tuple or all(type(k) is str for k in value)
            return keyed and (self.elements or any(holds_data(v) for v in values))
        return False

    def _structure(self, value: Any, name: str, declaration: Output, annotation: Any) -> Any:
        # Only the outermost level is what a fan-out maps over.
        inner = replace(self, elements=False)
        if isinstance(value, dict):
            each = values_of(annotation)
            return {k: inner.encode(v, name, declaration, each) for k, v in value.items()}
        types = elements_of(annotation, len(value))
        return [inner.encode(v, name, declaration, t) for v, t in zip(value, types, strict=True)]


@dataclass(kw_only=True)
class Decoder:
    """Loads arguments of one task. ``inputs`` collects what was read, for the manifest."""

    store: ArtifactStore
    scratch: str
    inputs: dict[str, list[Any]] = field(default_factory=dict)

    def load(
        self, value: Any, name: str, annotation: Any, declaration: Parameter, base: str
    ) -> Any:
        """Return *value* with references and URIs replaced by the data, as *annotation* asks."""
        wanted = without_none(annotation)
        if is_reference(value):
            return self._reference(value, name, wanted, declaration)
        if isinstance(value, str | Path) and formats.is_data_type(wanted):
            return self._uri(str(value), name, wanted, declaration, base)
        if isinstance(value, str | Path) and wanted is Path:
            return self._path(str(value), name, base)
        if type(value) in (list, tuple):
            return self._sequence(value, name, wanted, declaration, base)
        if type(value) is dict:
            fields = record_fields(wanted)
            each = values_of(wanted)
            return {
                k: self.load(v, name, fields.get(k, each), declaration, base)
                for k, v in value.items()
            }
        element = _data_element(wanted)
        if isinstance(value, str) and element is not None:
            uris = [uri for text in named(value, wanted) for uri in self._expand(text, base)]
            return [self._uri(uri, name, element, declaration, base) for uri in uris]
        return value

    def _reference(
        self, reference: Mapping[str, Any], name: str, wanted: Any, declaration: Parameter
    ) -> Any:
        selected = reference.get(SELECT, [])
        artifact = Artifact.from_json(reference)
        self._record(name, artifact.to_json())
        if wanted in (Artifact, Path) and selected:
            raise ParameterError(
                f"part {selected} of {artifact.uri} has no file of its own to give as "
                f"{type_text(wanted)}. Pass the whole result, or take the part inside a task."
            )
        if wanted is Artifact:
            return artifact
        if wanted is Path:
            return Path(self._fetched(artifact))
        type_ = _stored_type(artifact) if selected or wanted in (Any, object) else wanted
        value = self._read(artifact, type_, declaration)
        for part in selected:
            value = _part(value, part)
        return value

    def _read(self, artifact: Artifact, type_: Any, declaration: Parameter) -> Any:
        format_ = formats.format_for_input(type_, format=artifact.format, extension=None)
        asked = self._pickle_is_asked(artifact, declaration)
        options = _options(format_, declaration, asked=asked)
        if formats.is_spark_frame(type_):
            from airflow_provider_dbnd.core.spark.artifacts import load

            return load(artifact, self.store, options=options)
        path = self._fetched(artifact)
        try:
            return format_.read(
                path, type_, options=options, checksum=artifact.checksum, digest=artifact.digest
            )
        except FormatError as exc:
            # The format names the file, which is a copy where the store is not on this disk.
            if artifact.uri.endswith(path):
                raise
            raise FormatError(f"{artifact.uri}: {exc}") from exc

    def _fetched(self, artifact: Artifact) -> str:
        return self.store.fetch(
            artifact.uri, size=artifact.size, checksum=artifact.checksum, into=self.scratch
        )

    def _pickle_is_asked(self, artifact: Artifact, declaration: Parameter) -> bool:
        """A pickle is loaded where the consumer declares it, or from our own store.

        Our store holds one only where a producer declared ``output.pickle``, and its checksum was
        verified against the reference.
        """
        return declaration.format in formats.PICKLES or self.store.wrote(artifact.uri)

    def _uri(self, uri: str, name: str, wanted: Any, declaration: Parameter, base: str) -> Any:
        if formats.is_spark_frame(wanted):
            return self._spark_frame([uri], name, wanted, declaration, base)
        return self._files(self._expand(uri, base), name, wanted, declaration)

    def _files(self, uris: Sequence[str], name: str, wanted: Any, declaration: Parameter) -> Any:
        chosen = formats.formats_for_inputs(wanted, uris, format=declaration.format)
        asked = declaration.format in formats.PICKLES
        paths = []
        for uri in uris:
            fetched = self.store.fetch_input(uri, into=self.scratch)
            self._record(name, {"uri": uri, "checksum": fetched.checksum, "size": fetched.size})
            paths.append(fetched.path)
        format_of = dict(zip(paths, chosen, strict=True))

        def read(path: str, type_: Any) -> Any:
            options = _options(format_of[path], declaration, asked=asked)
            return format_of[path].read(path, type_, options=options)

        return read(paths[0], wanted) if len(paths) == 1 else formats.read_many(read, paths, wanted)

    def _spark_frame(
        self, uris: Sequence[str], name: str, wanted: Any, declaration: Parameter, base: str
    ) -> Any:
        """Have Spark read files; what they are is recorded without reading them here."""
        from airflow_provider_dbnd.core.spark.artifacts import load_files

        surveys = [self.store.survey(located(uri, self.store), base) for uri in uris]
        for survey in surveys:
            read = {"uri": survey.uri, "checksum": survey.checksum, "size": survey.size}
            self._record(name, read)
        uris = [uri for survey in surveys for uri in survey.uris]
        format_, *others = formats.formats_for_inputs(wanted, uris, format=declaration.format)
        for uri, other in zip(uris[1:], others, strict=True):
            if other.name != format_.name:
                raise FormatError(
                    f"Spark reads files of one format at once: {uris[0]} is {format_.name}, {uri} is "
                    f"{other.name}. Name files of one by a pattern such as data/*.{format_.name}."
                )
        return load_files(
            surveys, self.store, format_.name, options=_options(format_, declaration, asked=False)
        )

    def _expand(self, uri: str, base: str) -> list[str]:
        return self.store.expand(located(uri, self.store), base)

    def _path(self, uri: str, name: str, base: str) -> Path:
        where = absolute(located(uri, self.store), base)
        if where.startswith("file://") or "://" not in where:
            return Path(where.removeprefix("file://"))
        fetched = self.store.fetch_input(where, into=self.scratch)
        self._record(name, {"uri": where, "checksum": fetched.checksum, "size": fetched.size})
        return Path(fetched.path)

    def _sequence(
        self, value: Any, name: str, wanted: Any, declaration: Parameter, base: str
    ) -> Any:
        if formats.is_data_type(wanted) and all(isinstance(v, str | Path) for v in value):
            return self._many(value, name, wanted, declaration, base)
        types = elements_of(wanted, len(value))
        return [self.load(v, name, t, declaration, base) for v, t in zip(value, types, strict=True)]

    def _many(self, uris: Any, name: str, wanted: Any, declaration: Parameter, base: str) -> Any:
        if not uris:
            raise ParameterError("an empty list names no file to load. Give one at least.")
        if formats.is_spark_frame(wanted):
            return self._spark_frame(list(map(str, uris)), name, wanted, declaration, base)
        expanded = [one for uri in uris for one in self._expand(str(uri), base)]
        return self._files(expanded, name, wanted, declaration)

    def _record(self, name: str, read: Any) -> None:
        self.inputs.setdefault(name, []).append(read)


def part_of(outputs: Mapping[str, Any], signature: Signature, path: tuple[Any, ...]) -> Any:
    """Return the part of a task's encoded outputs that a handle points at."""
    if signature.shape == "none":
        return None
    if signature.shape == "single":
        return select(outputs[signature.outputs[0].name], path)
    if path:
        return select(outputs[path[0]], path[1:])
    return signature.as_fields(outputs)


def select(encoded: Any, path: tuple[Any, ...]) -> Any:
    """Index into an encoded value; inside an artifact the index is taken when it is loaded."""
    for position, part in enumerate(path):
        if is_reference(encoded):
            return {**encoded, SELECT: [*encoded.get(SELECT, []), *path[position:]]}
        encoded = _part(encoded, part)
    return encoded


def _part(value: Any, part: Any) -> Any:
    try:
        return value[part]
    except (LookupError, TypeError) as exc:
        raise ParameterError(
            f"the upstream result has no part {part!r}: expected a dict or list that has it, "
            f"got {_contents(value)}."
        ) from exc


def _contents(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"


def publish(store: ArtifactStore, encoded: Any, uri: str, *, base: str, into: str) -> str:
    """Copy the artifact behind *encoded* to *uri*, besides its place in the store.

    :param base: folder that a relative *uri* starts from.
    :param into: folder for a local copy on the way.
    """
    if not is_reference(encoded):
        raise FormatError(
            f"path={uri!r} takes one file, but the value is several: each element of a list or "
            "dict of data is stored by itself. Return one object, or several outputs."
        )
    artifact = Artifact.from_json(encoded)
    if artifact.checksum.startswith(PARTS_SCHEME):
        listing = store.folders.listing(
            artifact.uri, checksum=artifact.checksum, size=artifact.size
        )
        return store.folders.publish(artifact.uri, listing, uri, base=base)
    local = store.fetch(artifact.uri, size=artifact.size, checksum=artifact.checksum, into=into)
    return store.publish(local, uri, base=base)


def verify(store: ArtifactStore, artifact: Artifact, scratch: str) -> str:
    """Read all of an artifact's bytes, and return where they are on this machine.

    Raises StoreError unless they are what the reference promises.
    """
    path = store.fetch(artifact.uri, size=artifact.size, checksum=artifact.checksum, into=scratch)
    if artifact.checksum.startswith((FILE_SCHEME, PARTS_SCHEME)):
        return path
    import pyarrow as pa

    wanted = Iterator[pa.RecordBatch]
    format_ = formats.format_for_input(wanted, format=artifact.format, extension=None)
    for _ in format_.read(
        path, wanted, options={}, checksum=artifact.checksum, digest=artifact.digest
    ):
        pass  # what is read is verified
    return path


def _options(format_: formats.Format, declaration: Parameter, *, asked: bool) -> dict[str, Any]:
    options = dict(declaration.load_options)
    return {**options, formats.ALLOW_PICKLE: asked} if format_.name in formats.PICKLES else options


def _stored_type(artifact: Artifact) -> Any:
    """Return what to read an artifact as where no annotation says it: as it was stored."""
    return Any if artifact.format == "json" else artifact.type


def without_numpy(value: Any) -> Any:
    """Return Python's value for a number or text of numpy, and anything else as it is."""
    if type(value).__module__ != "numpy":
        return value
    import numpy as np

    # Times stay: Python's have no nanoseconds.
    return (
        value.item() if isinstance(value, np.generic) and value.dtype.kind in "biufcSU" else value
    )


def _without_numpy_scalars(value: Any) -> Any:
    """Replace numpy's numbers by Python's, inside lists and dicts as well."""
    kind = type(value)
    if kind.__module__ == "numpy":
        return without_numpy(value)
    if kind in (list, tuple) and not is_plain(value):
        return kind(map(_without_numpy_scalars, value))
    if kind is dict and not is_plain(value):
        return {k: _without_numpy_scalars(v) for k, v in value.items()}
    return value


def holds_data(value: Any) -> bool:
    """Tell whether *value* is, or holds at any depth, what needs an artifact of its own."""
    if type(value) in (list, tuple):
        return any(holds_data(v) for v in value)
    if type(value) is dict:
        return any(holds_data(v) for v in value.values())
    return isinstance(value, Artifact | Path) or formats.is_data_type(type(value))


def _is_stream(value: Any) -> bool:
    return hasattr(value, "__next__")


def _data_element(annotation: Any) -> Any:
    """Return T for ``list[T]``, or another sequence, where T is a data type."""
    element = strip_annotated(elements_of(annotation, 1)[0])
    return element if formats.is_data_type(element) else None
