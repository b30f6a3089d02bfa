"""One output of a task in one run: what its manifests say of it, and its data once asked for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact, is_reference
from airflow_provider_dbnd.core.attempt import current_attempt
from airflow_provider_dbnd.core.conversion import (
    accepts_none,
    convert,
    elements_of,
    type_text,
    values_of,
)
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.parameters import Parameter
from airflow_provider_dbnd.core.past.addresses import Address, partition_of
from airflow_provider_dbnd.core.past.history import ended
from airflow_provider_dbnd.core.references import data_digest, in_store, references
from airflow_provider_dbnd.core.scratch import process_folder
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.core.values import Decoder, select
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError, ParameterError


@dataclass(frozen=True, kw_only=True, repr=False)
class Version:
    """One output of a task in one run. Nothing is read before :meth:`load`.

    ``encoded`` is the JSON of its manifest: an inline value, a reference, lists and dicts of them;
    for a mapped task a list with that of each instance.
    """

    address: Address
    run_id: str
    encoded: Any
    ended: dt.datetime
    mapped: bool = False
    partition: str | None = None
    store: ArtifactStore = field(compare=False)

    def load(self, type: Any = Any, *, load_options: Mapping[str, Any] | None = None) -> Any:
        """Return the value, verified as it is read; for a mapped task a list.

        :param type: what to load it as: ``polars.DataFrame``, ``Iterator[DataFrame]``, ``Path``,
            ``Artifact``...; by default what the task returned.
        :param load_options: of the format, such as ``{"columns": ["x"]}``.
        """
        if (attempt := current_attempt()) is not None:
            attempt.loaded[self.name] = self.encoded
        reader = _Reader(self, load_options or {})
        if self.mapped:
            return [reader.read(each, type) for each in self.encoded]
        return reader.read(self.encoded, type)

    @property
    def name(self) -> str:
        """How this very version is written: ``PIPELINE/TASK/OUTPUT@RUN``."""
        return f"{self.address}@{self.run_id}"

    @property
    def digest(self) -> str:
        """The digest of the data: equal for equal data, whichever run made it."""
        return data_digest(self.encoded)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The references in it: one for a table, none for a small value."""
        return tuple(map(Artifact.from_json, references(self.encoded)))

    @property
    def size(self) -> int | None:
        """Bytes stored, None for a small value, which is in the manifest itself."""
        artifacts = self.artifacts
        return sum(artifact.size for artifact in artifacts) if artifacts else None

    @property
    def rows(self) -> int | None:
        """Rows of a table, of all tables where there are several."""
        rows = [artifact.rows for artifact in self.artifacts]
        return sum(n for n in rows if n is not None) if any(n is not None for n in rows) else None

    @property
    def type(self) -> str:
        """The name of its type."""
        if is_reference(self.encoded):
            return str(self.encoded["type"])
        return formats.type_name(type(self.encoded))

    def __repr__(self) -> str:
        rows = [] if self.rows is None else [f"{self.rows} rows"]
        size = [] if self.size is None else [f"{self.size:,} bytes"]
        return f"<{self.name}  {', '.join([self.type, *rows, *size, self.digest[:12]])}>"


def outputs_of(
    store: ArtifactStore, manifests: Sequence[Manifest], address: Address
) -> dict[str, Version]:
    """Return the outputs *address* names out of the attempts of one task in one run."""
    first = manifests[0]
    mapped = first.identity.map_index >= 0 and address.index is None
    names = list(first.outputs) if address.output is None else [address.output]
    return {
        name: Version(
            store=store,
            address=replace(address, output=name),
            run_id=first.identity.run_id,
            encoded=_encoded(manifests, replace(address, output=name), mapped=mapped),
            ended=max(map(ended, manifests)),
            mapped=mapped,
            partition=partition_of(first.identity),
        )
        for name in names
    }


def is_version(manifests: Sequence[Manifest], address: Address) -> bool:
    """Tell whether these attempts, one of each instance, left a result."""
    return all(m.status == "success" for m in manifests) and first_gap(manifests, address) is None


def first_gap(manifests: Sequence[Manifest], address: Address) -> int | None:
    """Return the first instance of a mapped task that is missing before its last one."""
    indexes = [m.identity.map_index for m in manifests]
    if address.index is not None or indexes[0] < 0:
        return None
    return next((i for i, index in enumerate(indexes) if i != index), None)


class _Reader:
    """Loads the parts of one version."""

    def __init__(self, version: Version, load_options: Mapping[str, Any]) -> None:
        self._version = version
        self._declaration = Parameter(load_options=load_options)
        self._decoder = Decoder(store=version.store, scratch=process_folder())

    def read(self, encoded: Any, type_: Any) -> Any:
        """Return the value of one encoded output."""
        if any(True for _ in references(encoded)):
            return self._stored(in_store(self._version.store, encoded), type_)
        if type_ in (Any, object) or (encoded is None and accepts_none(type_)):
            return encoded
        if formats.is_data_type(type_) or type_ in (Path, Artifact):
            raise ParameterError(
                f"{self._version.name} is a small {type(encoded).__name__}, kept in the manifest: "
                f"it has no file to load as {type_text(type_)}. Leave type out."
            )
        try:
            return convert(encoded, type_, Parameter())
        except ValueError as exc:
            raise ParameterError(
                f"{self._version.name}: expected {type_text(type_)}, got {encoded!r}. {exc}"
            ) from exc

    def _stored(self, encoded: Any, type_: Any) -> Any:
        if is_reference(encoded):
            return self._decoder.load(encoded, self._version.name, type_, self._declaration, "")
        if isinstance(encoded, list):
            types = elements_of(type_, len(encoded)) if _is_sequence(type_) else None
            return [
                self._stored(each, type_ if types is None else types[position])
                for position, each in enumerate(encoded)
            ]
        if isinstance(encoded, dict):
            each_type = type_ if values_of(type_) is Any else values_of(type_)
            return {name: self._stored(each, each_type) for name, each in encoded.items()}
        return encoded


def _is_sequence(type_: Any) -> bool:
    return getattr(type_, "__origin__", None) in (list, tuple)


def _encoded(manifests: Sequence[Manifest], address: Address, *, mapped: bool) -> Any:
    each = [_output(manifest, address) for manifest in manifests]
    return each if mapped else each[0]


def _output(manifest: Manifest, address: Address) -> Any:
    assert address.output is not None
    if address.output not in manifest.outputs:
        raise ArtifactNotFoundError(
            f"Task {address.task!r} of {address.pipeline!r} has no output {address.output!r} in run "
            f"{manifest.identity.run_id!r}{did_you_mean(address.output, manifest.outputs)}"
        )
    return select(manifest.outputs[address.output], address.path)
