"""Arrow's own containers: Table, RecordBatch, RecordBatchReader, Dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.fingerprint import blocks, empty_batch
from airflow_provider_dbnd.core.formats.frames import Container, Loaded, Outgoing, Stored
from airflow_provider_dbnd.exceptions import FormatError

ENGINE = "arrow"

#: Metadata of other libraries, which says again what the types or their own extras say.
_DERIVED_METADATA = (b"ARROW:", b"PARQUET:", b"_PL_")


class ArrowTable(Container):
    """A table in memory."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        return Outgoing.of_table(value, schema_extras(value.schema))

    @override
    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Any:
        return self.from_arrow(stored.load(options.get("columns"), options.get("rows")))

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        return loaded.table


class ArrowBatch(ArrowTable):
    """One record batch; chunks are put together on reading."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        import pyarrow as pa

        return super().outgoing(pa.Table.from_batches([value]))

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        batches = loaded.table.combine_chunks().to_batches()
        return batches[0] if batches else empty_batch(loaded.table.schema)


class ArrowReader(ArrowTable):
    """Streams both ways, in constant memory."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        return streamed(value.schema, iter(value))

    @override
    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Any:
        import pyarrow as pa

        columns = options.get("columns")
        schema = stored.schema
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns], schema.metadata)
        parts = stored.stream(columns)
        batches = (batch for part in parts for batch in part.table.to_batches())
        return pa.RecordBatchReader.from_batches(schema, batches)

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        return loaded.table.to_reader()


class ArrowDataset(ArrowTable):
    """Read lazily, so verified as a whole before it is handed out."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        return streamed(value.schema, value.to_batches())

    @override
    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Any:
        for _ in stored.stream(options.get("columns")):
            pass
        return stored.dataset()

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        from pyarrow import dataset

        return dataset.dataset(loaded.table)


def streamed(schema: Any, batches: Iterator[Any]) -> Outgoing:
    """Make blocks of a stream of record batches."""
    check_unique(schema)
    return Outgoing(schema=schema, batches=blocks(batches, schema), extras=schema_extras(schema))


def schema_extras(schema: Any) -> dict[str, Any]:
    """Return what an Arrow schema says beyond names and types: metadata, columns without nulls."""
    check_unique(schema)
    note: dict[str, Any] = {}
    if metadata := _own_metadata(schema.metadata):
        note["metadata"] = metadata
    fields = {field.name: _own_metadata(field.metadata) for field in schema}
    if fields := {name: metadata for name, metadata in fields.items() if metadata}:
        note["fields"] = fields
    if required := [field.name for field in schema if not field.nullable]:
        note["required"] = required
    return {ENGINE: note} if note else {}


def check_unique(schema: Any) -> None:
    """Refuse two columns of one name."""
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        raise FormatError(f"column {repeated[0]!r} occurs more than once; rename one of them")


def _own_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {
        key.decode("latin-1"): value.decode("latin-1")
        for key, value in (metadata or {}).items()
        if not key.startswith(_DERIVED_METADATA) and not _says_nothing(key, value)
    }


def _says_nothing(key: bytes, value: bytes) -> bool:
    """Tell whether this is pandas' note on a frame that has the default index."""
    if key != b"pandas":
        return False
    index = json.loads(value).get("index_columns", [])
    return all(isinstance(i, dict) and (i.get("start"), i.get("step")) == (0, 1) for i in index)
