"""Table formats that others read and write (csv, jsonl, excel): no types, no metadata.

Reading goes through the engine of the asked-for container, with that engine's options. Writing
reads the file back and refuses a table that changed on the way, unless ``lossy=True``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import signature
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.digest import FILE_SCHEME, file_checksum
from airflow_provider_dbnd.core.formats.annotations import is_stream, type_name
from airflow_provider_dbnd.core.formats.base import Format, Written, own_options
from airflow_provider_dbnd.core.formats.containers import (
    container_for_type,
    container_for_value,
    container_name,
)
from airflow_provider_dbnd.core.formats.conversion import convert, convert_in_memory
from airflow_provider_dbnd.core.formats.fingerprint import Fingerprint, fingerprint_of
from airflow_provider_dbnd.core.formats.unwritable import unwritable
from airflow_provider_dbnd.exceptions import FormatError

LOSSY = "lossy"

#: Last extension -> name of the compression, as pandas and Arrow have it.
COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zst": "zstd"}


class InterchangeFormat(Format):
    """Base of these formats; a subclass names a reader and a writer for each engine."""

    name: str

    def __init__(self, extension: str = "") -> None:
        self.compression = COMPRESSIONS.get(extension.rpartition(".")[2])

    @abstractmethod
    def reader(self, container: str) -> Callable[..., Any] | None:
        """Return ``read(path, **options)`` for a container's own engine, None if it has none."""

    @abstractmethod
    def writer(self, container: str) -> Callable[..., None] | None:
        """Return ``write(value, path, **options)``."""

    @override
    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        if isinstance(value, Iterator):
            raise FormatError(
                f"an iterator cannot be written as {self.name}; declare output.parquet or "
                "output.arrow, which take one part by part"
            )
        settings = own_options(options)
        lossy = settings.pop(LOSSY, False)
        attempt = partial(self._write, path=path, settings=settings)
        try:
            attempt(value)
        except (OSError, MemoryError):
            raise
        # Each engine has errors of its own for types it does not take.
        except Exception as error:
            if isinstance(error, TypeError) and settings:
                names = ", ".join(settings)
                raise FormatError(f"{self.name} cannot write with {names}: {error}") from error
            raise unwritable(self.name, value, error, attempt) from error
        checksum = file_checksum(path)
        fingerprint = _fingerprint(value)
        digest = fingerprint.digest
        if lossy:
            # What is stored is other data than what was given, so it has another name.
            digest = checksum.removeprefix(FILE_SCHEME)
        else:
            self._check(fingerprint, path, type(value), settings)
        return Written(
            digest=digest, checksum=checksum, rows=fingerprint.rows, schema=fingerprint.schema
        )

    @override
    def read(
        self,
        path: str,
        type_: Any,
        *,
        options: Mapping[str, Any],
        checksum: str | None = None,
        digest: str | None = None,
    ) -> Any:
        container_for_type(type_)
        options = own_options(options)
        reader = None if is_stream(type_) else self.reader(container_name(type_) or "")
        try:
            if reader is not None:
                return reader(path, **options)
            reader = self.reader(_FALLBACK)
            assert reader is not None
            return convert_in_memory(reader(path, **options), type_)
        except (FileNotFoundError, FormatError):
            raise
        # Each engine has errors of its own for bad files and bad options.
        except Exception as error:
            raise FormatError(
                f"{path} cannot be read as {self.name} into {type_name(type_)}: {error}"
            ) from error

    def _write(self, value: Any, path: str, settings: Mapping[str, Any]) -> None:
        writer = self.writer(container_name(type(value)) or "")
        if writer is None:
            writer, value = self.writer(_FALLBACK), convert(value, _FALLBACK)
        assert writer is not None
        writer(value, path, **settings)

    def _check(
        self, expected: Fingerprint, path: str, type_: Any, options: Mapping[str, Any]
    ) -> None:
        reader = self.reader(container_name(type_) or "") or self.reader(_FALLBACK)
        assert reader is not None
        known = signature(reader).parameters
        shared = {name: option for name, option in options.items() if name in known}
        try:
            restored = self.read(path, type_, options=shared)
        except FormatError as error:
            raise FormatError(
                f"{self.name} would lose this {type_name(type_)}: {error}; {_REMEDY}"
            ) from error
        found = _fingerprint(restored)
        if found.digest != expected.digest:
            raise FormatError(
                f"{self.name} would lose something: {difference(expected, found)}; {_REMEDY}"
            )


_FALLBACK = "pandas.DataFrame"
_REMEDY = "declare output.parquet, or pass lossy=True if that does not matter"


def pandas_version() -> tuple[int, ...]:
    """Return pandas' version as numbers to compare."""
    import pandas as pd

    return tuple(int(part) for part in pd.__version__.split(".")[:2])


def difference(expected: Fingerprint, found: Fingerprint) -> str:
    """Say in words where two fingerprints part."""
    if [c.name for c in expected.columns] != [c.name for c in found.columns]:
        return f"columns {_names(expected)} would come back as {_names(found)}"
    for before, after in zip(expected.columns, found.columns, strict=True):
        if before.type != after.type:
            return f"column {before.name!r} of type {before.type} would come back as {after.type}"
    if expected.rows != found.rows:
        return f"{expected.rows} rows would come back as {found.rows}"
    for before, after in zip(expected.columns, found.columns, strict=True):
        if before.hash != after.hash:
            return f"values of column {before.name!r} would come back changed"
    return f"index or dtypes {_plain(expected)} would come back as {_plain(found)}"


def _fingerprint(value: Any) -> Fingerprint:
    outgoing = container_for_value(value).outgoing(value)
    return fingerprint_of(outgoing.schema, outgoing.batches, outgoing.extras)


def _names(fingerprint: Fingerprint) -> str:
    return ", ".join(column.name or "''" for column in fingerprint.columns) or "none"


def _plain(fingerprint: Fingerprint) -> Any:
    return dict(fingerprint.extras) or "the defaults"
