"""Parquet, zstd level 1: the default on remote storage.

Parquet keeps the values of a categorical column but not its categories (their order, the unused
ones), so these are stored beside the fingerprint in the file's metadata.
"""

from __future__ import annotations

import base64
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.digest import bytes_digest, file_checksum
from airflow_provider_dbnd.core.formats import canonical
from airflow_provider_dbnd.core.formats.base import Draft, Written, reject_unknown_options
from airflow_provider_dbnd.core.formats.containers import container_for_value
from airflow_provider_dbnd.core.formats.fingerprint import (
    BLOCK_ROWS,
    Fingerprint,
    Fingerprinter,
    corrupted,
    dictionary_hash,
    fingerprint_of,
)
from airflow_provider_dbnd.core.formats.frames import Outgoing
from airflow_provider_dbnd.core.formats.parquet_footer import tail_size
from airflow_provider_dbnd.core.formats.parquet_groups import RowGroups
from airflow_provider_dbnd.core.formats.stored import StoredTable
from airflow_provider_dbnd.core.formats.tabular import TabularFormat, check_fingerprint
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, FormatError

FINGERPRINT_KEY = "dbnd.fingerprint"
SCHEMA_KEY = "dbnd.schema"
DICTIONARIES_KEY = "dbnd.dictionaries"

#: Covers all that is before the footer, where the footer is to tell the file from others.
BODY_KEY = "dbnd.body"

#: To be changed with what this module writes, as names of files depend on it.
_VERSION = "2"

#: A row group is written and read as a whole: a few blocks, and fewer where rows are long.
_GROUP_BLOCKS, _GROUP_BYTES = 8, 128 * 1024 * 1024

#: Values that are looked at to choose an encoding, and how often each has to come for a dictionary.
_SAMPLE, _REPEATS = 8192, 16


class ParquetFormat(TabularFormat):
    """Compressed columns, read in part where only some are wanted."""

    name = "parquet"
    write_options = ("compression", "compression_level", "row_group_size")

    def draft(self, value: Any, *, options: Mapping[str, Any]) -> Draft:
        """Prepare to write; the stem covers what the bytes depend on, but the compression library."""
        reject_unknown_options(self.name, options, self.write_options)
        outgoing = container_for_value(value).outgoing(value)
        fingerprint = _fingerprint_of_whole(outgoing)

        def write(path: str, grown: Callable[[int], None]) -> Written:
            found = self._write(outgoing, path, options, fingerprint, grown)
            written = self.written(path, found)
            return replace(written, tail=tail_size(path) if fingerprint else 0)

        stem = f"{fingerprint.digest}-{_form(outgoing, options)}" if fingerprint else None
        return Draft(stem=stem, write=write)

    @override
    def write_batches(
        self, outgoing: Outgoing, path: str, options: Mapping[str, Any]
    ) -> Fingerprint:
        return self._write(outgoing, path, options)

    def _write(
        self,
        outgoing: Outgoing,
        path: str,
        options: Mapping[str, Any],
        known: Fingerprint | None = None,
        grown: Callable[[int], None] = lambda _size: None,
    ) -> Fingerprint:
        import pyarrow as pa

        _check_types(outgoing.schema)
        first = next(outgoing.batches)
        settings: dict[str, Any] = {"compression": "zstd"}
        if "compression" not in options:
            settings["compression_level"] = 1  # other codecs may have no levels
        settings |= {**_encodings(first), **_pages(), **options}
        group_rows = settings.pop("row_group_size", _group_rows(first))
        fingerprinter = Fingerprinter(outgoing.schema)
        try:
            schema = _parquet_schema(outgoing.schema)
            with open(path, "wb") as file:
                groups = RowGroups(file, schema, settings)
                for batch in chain([first], outgoing.batches):
                    _check_fixed_lists(batch)
                    if known is None:
                        fingerprinter.add(batch)
                    table = _with_structs(pa.Table.from_batches([batch])).cast(schema)
                    for _ in groups.write(_cut(table, group_rows)):
                        grown(file.tell())
                    fingerprinter.settle()  # as in arrow.py
                fingerprint = known or fingerprinter.finish(outgoing.extras)
                metadata = {
                    FINGERPRINT_KEY: fingerprint.to_bytes().decode(),
                    SCHEMA_KEY: _text(outgoing.schema.serialize()),
                    DICTIONARIES_KEY: _text(_dictionaries(batch)),
                }
                if known:
                    metadata[BODY_KEY] = file_checksum(path)
                groups.finish(metadata)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise FormatError(
                f"parquet cannot hold this table: {error}; declare output.arrow"
            ) from error
        grown(os.path.getsize(path))
        return fingerprint

    @override
    def checksum(self, path: str, fingerprint: Fingerprint) -> str:
        # Decoders are not safe with damaged bytes, and compressed ones are quickly checked.
        return file_checksum(path)

    @override
    def open(self, path: str, *, checksum: str | None, digest: str | None) -> StoredTable:
        if os.path.isdir(path):
            from airflow_provider_dbnd.core.formats.parquet_folder import open_folder

            return open_folder(path)
        return self.open_file(path, path, checksum=checksum, digest=digest)

    def open_file(
        self, file: Any, path: str, *, checksum: str | None = None, digest: str | None
    ) -> ParquetFile:
        """Open *file*, a path or something to read ranges from, which messages call *path*."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        fingerprint = None
        try:
            # Else the reader keeps all compressed bytes. Only artifacts are mapped: nothing writes over
            # them, and a file that is cut short under a map kills the process.
            mapped = checksum is not None
            reader = pq.ParquetFile(file, memory_map=mapped, page_checksum_verification=True)
            metadata = reader.metadata.metadata or {}
            if FINGERPRINT_KEY.encode() in metadata:
                fingerprint = Fingerprint.from_bytes(metadata[FINGERPRINT_KEY.encode()])
            check_fingerprint(fingerprint, path=path, checksum=checksum, digest=digest)
            return ParquetFile(path, reader, metadata, fingerprint)
        except (FileNotFoundError, ArtifactCorruptedError, FormatError):
            raise
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
            if checksum or digest:
                raise corrupted(path, "a parquet file", str(error)) from error
            raise FormatError(f"{path} is not a parquet file: {error}") from error


def _fingerprint_of_whole(outgoing: Outgoing) -> Fingerprint | None:
    if outgoing.whole is None:
        return None
    return fingerprint_of(outgoing.schema, iter([outgoing.whole]), outgoing.extras)


def _group_rows(batch: Any) -> int:
    block: int = BLOCK_ROWS * batch.nbytes // max(batch.num_rows, 1)
    return BLOCK_ROWS * max(min(_GROUP_BYTES // max(block, 1), _GROUP_BLOCKS), 1)


def _cut(table: Any, rows: int) -> Iterator[Any]:
    """Cut a table into row groups, one at least."""
    for start in range(0, max(len(table), 1), rows):
        yield table.slice(start, rows)


def _form(outgoing: Outgoing, options: Mapping[str, Any]) -> str:
    import pyarrow as pa

    extras = json.dumps(outgoing.extras, sort_keys=True)
    settings = repr(sorted(options.items()))
    form = [
        _VERSION,
        pa.__version__,
        outgoing.schema.serialize().to_pybytes().hex(),
        extras,
        settings,
    ]
    return bytes_digest("\0".join(form).encode())[:12]


def _check_fixed_lists(batch: Any) -> None:
    """Refuse what pyarrow before 26 writes but cannot read: a null among lists of a fixed size."""
    import pyarrow as pa

    if int(pa.__version__.partition(".")[0]) >= 26:
        return
    for field, column in zip(batch.schema, batch.columns, strict=True):
        type_ = field.type.storage_type if canonical.is_extension(field.type) else field.type
        if pa.types.is_fixed_size_list(type_) and column.null_count:
            raise FormatError(
                f"parquet cannot hold the nulls of column {field.name!r}, of type {field.type}, with "
                f"pyarrow {pa.__version__}; install pyarrow 26, or declare output.arrow"
            )


class ParquetFile(StoredTable):
    """An opened parquet file; decoded values are brought back to the exact stored types."""

    format = "parquet"

    def __init__(
        self,
        path: str,
        reader: Any,
        metadata: Mapping[bytes, bytes],
        fingerprint: Fingerprint | None,
    ) -> None:
        import pyarrow as pa

        schema = reader.schema_arrow
        self._dictionaries: dict[str, Any] = {}
        if fingerprint is not None:
            schema = pa.ipc.read_schema(pa.py_buffer(_bytes(metadata[SCHEMA_KEY.encode()])))
            self._dictionaries = _verified_dictionaries(
                _bytes(metadata[DICTIONARIES_KEY.encode()]), fingerprint
            )
        super().__init__(path, schema, reader.metadata.num_rows, fingerprint)
        self._reader = reader
        self._last: tuple[list[int], list[str], Any] = ([-1], [], None)

    @override
    def read_rows(self, columns: list[str], start: int, stop: int) -> Any:
        import pyarrow as pa

        groups = []
        first = skipped = 0
        for number in range(self._reader.metadata.num_row_groups):
            last = first + self._reader.metadata.row_group(number).num_rows
            if first < stop and last > start:
                groups.append(number)
            elif last <= start:
                skipped = last
            first = last
        table = self._read_groups(groups, columns).slice(start - skipped, stop - start)
        arrays = [self._restored(table.column(name), self.schema.field(name)) for name in columns]
        fields = [self.schema.field(name) for name in columns]
        return pa.table(arrays, schema=pa.schema(fields, self.schema.metadata))

    def _read_groups(self, groups: list[int], columns: list[str]) -> Any:
        """Read row groups, keeping the last ones: a stream comes back for each of their blocks."""
        import pyarrow as pa

        if self._last[:2] != (groups, columns):
            try:
                table = self._reader.read_row_groups(groups, columns=columns)
            except (pa.ArrowException, OSError) as error:
                raise corrupted(self.path, "readable row groups", str(error)) from error
            self._last = (groups, columns, table)
        return self._last[2]

    def _restored(self, column: Any, field: Any) -> Any:
        import pyarrow as pa

        dictionary = self._dictionaries.get(field.name)
        if dictionary is None:
            return column if column.type == field.type else column.cast(field.type)
        values = dictionary.cast(_without_view(dictionary.type))
        chunks = [
            pa.DictionaryArray.from_arrays(
                _indices(chunk, values).cast(field.type.index_type),
                dictionary,
                ordered=field.type.ordered,
            )
            for chunk in column.chunks or [pa.array([], values.type)]
        ]
        return pa.chunked_array(chunks, field.type)


def _indices(chunk: Any, values: Any) -> Any:
    """Return where in *values* each value of a chunk is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(chunk.type):
        return _indices(chunk.dictionary, values).take(chunk.indices)
    if pa.types.is_struct(values.type):
        return _struct_indices(chunk, values)
    return pc.index_in(chunk.cast(values.type), values, skip_nulls=True)


def _struct_indices(chunk: Any, values: Any) -> Any:
    """Look up structs field by field, as Arrow looks up plain values only."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found, known = pa.repeat(0, len(chunk)), pa.repeat(0, len(values))
    for given, options in zip(chunk.flatten(), values.flatten(), strict=True):
        size = pa.scalar(len(values), pa.int64())
        numbers = pc.index_in(given.cast(options.type), options)
        keys = pc.add(pc.multiply(known, size), pc.index_in(options, options))
        found = pc.index_in(pc.add(pc.multiply(found, size), numbers), keys)
        known = pc.index_in(keys, keys)
    return pc.if_else(chunk.is_valid(), found, None)


def _check_types(schema: Any) -> None:
    import pyarrow as pa

    for field in schema:
        if canonical.is_nested(field.type) and "dictionary<" in canonical.logical_type(field.type):
            raise FormatError(
                f"column {field.name!r} of type {field.type} would lose the order of its "
                "categories in parquet; declare output.arrow"
            )
        if pa.types.is_run_end_encoded(field.type):
            raise FormatError(
                f"column {field.name!r} of type {field.type} cannot be stored in parquet; "
                "declare output.arrow"
            )


def _encodings(batch: Any) -> dict[str, Any]:
    """Choose encodings by type and by a sample: parquet's default tries a dictionary on every column.

    That is a quarter of the time for columns of numbers, and pays only where few values come again
    and again. Differences of other whole numbers and times come out smaller.
    """
    if any(canonical.is_nested(field.type) for field in _parquet_schema(batch.schema)):
        return {}  # their leaves have paths of their own
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    plain = {n for n, c in columns.items() if _is_number(c.type) and not _repeats(c)}
    return {
        "use_dictionary": [name for name in columns if name not in plain],
        "column_encoding": {
            name: "DELTA_BINARY_PACKED" for name in plain if not _is_float(columns[name].type)
        },
    }


def _is_number(type_: Any) -> bool:
    from pyarrow import types

    numbers = (types.is_integer, types.is_timestamp, types.is_date, types.is_time)
    return _is_float(type_) or any(is_(type_) for is_ in numbers)


def _is_float(type_: Any) -> bool:
    from pyarrow import types

    return bool(types.is_floating(type_))


def _repeats(column: Any) -> bool:
    """Tell from a sample of all of a column whether it has few distinct values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    step = max(len(column) // _SAMPLE, 1)
    sample = column.take(pa.array(range(0, len(column), step), pa.int64()))
    return bool(pc.count_distinct(sample).as_py() * _REPEATS <= len(sample))


@functools.cache
def _pages() -> dict[str, Any]:
    """Return the settings of pages: 20,000 rows, pyarrow's limit, compress less well and slower."""
    import inspect

    import pyarrow.parquet as pq

    # pyarrow 23 brought the limit, and the setting.
    known = inspect.signature(pq.ParquetWriter.__init__).parameters
    return {"max_rows_per_page": BLOCK_ROWS} if "max_rows_per_page" in known else {}


def _parquet_schema(schema: Any) -> Any:
    """Return what parquet can write: it does not take dictionaries of structs or string views."""
    import pyarrow as pa

    fields = []
    for field in schema:
        if _is_struct_dictionary(field.type):
            fields.append(field.with_type(field.type.value_type))
        elif pa.types.is_dictionary(field.type):
            values = _without_view(field.type.value_type)
            type_ = pa.dictionary(field.type.index_type, values, field.type.ordered)
            fields.append(field.with_type(type_))
        else:
            fields.append(field)
    return pa.schema(fields, schema.metadata)


def _with_structs(table: Any) -> Any:
    """Put the structs themselves, such as intervals, for codes of them, which Arrow cannot cast."""
    for position, field in enumerate(table.schema):
        if _is_struct_dictionary(field.type):
            chunks = [chunk.dictionary_decode() for chunk in table.column(position).chunks]
            table = table.set_column(position, field.with_type(field.type.value_type), chunks)
    return table


def _is_struct_dictionary(type_: Any) -> bool:
    import pyarrow as pa

    return (
        pa.types.is_dictionary(type_)
        and pa.types.is_struct(type_.value_type)
        and not any(canonical.is_nested(field.type) for field in type_.value_type)
    )


def _without_view(type_: Any) -> Any:
    import pyarrow as pa

    return pa.large_string() if pa.types.is_string_view(type_) else type_


def _dictionaries(batch: Any) -> Any:
    """Serialise the dictionaries of a batch, without its rows."""
    import pyarrow as pa

    _check_categories(batch)
    columns = {
        field.name: column.slice(0, 0)
        for field, column in zip(batch.schema, batch.columns, strict=True)
        if pa.types.is_dictionary(field.type)
    }
    sink = pa.BufferOutputStream()
    table = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(table)
    return sink.getvalue()


def _check_categories(batch: Any) -> None:
    """Refuse a dictionary that has a value twice: parquet has values, not the codes."""
    import pyarrow as pa

    for field, column in zip(batch.schema, batch.columns, strict=True):
        if not pa.types.is_dictionary(field.type):
            continue
        values = column.dictionary.cast(_without_view(column.dictionary.type))
        if _indices(values, values).to_pylist() != list(range(len(values))):
            raise FormatError(
                f"column {field.name!r} of type {field.type} has a category twice, which parquet "
                "cannot hold; declare output.arrow"
            )


def _verified_dictionaries(data: bytes, fingerprint: Fingerprint) -> dict[str, Any]:
    import pyarrow as pa

    table = pa.ipc.open_stream(data).read_all()
    arrays = {name: table.column(name).chunk(0) for name in table.column_names}
    for column in fingerprint.columns:
        if column.dictionary is not None:
            arrays[column.name].dictionary.validate(full=True)
            if dictionary_hash(arrays[column.name]) != column.dictionary:
                raise ValueError(f"the categories of column {column.name!r} are damaged")
    return {name: array.dictionary for name, array in arrays.items()}


def _text(data: Any) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: bytes) -> bytes:
    return base64.b64decode(text, validate=True)
