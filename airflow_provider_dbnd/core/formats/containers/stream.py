"""Iterators of tables: written and read part by part, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.fingerprint import blocks
from airflow_provider_dbnd.core.formats.frames import Container, Loaded, Outgoing, Stored
from airflow_provider_dbnd.exceptions import FormatError


class Stream(Container):
    """An iterator of the tables of another container.

    :param item: the container to read parts into; writing goes by the type of what is yielded
    """

    def __init__(self, item: Container | None) -> None:
        self._item = item

    @override
    def outgoing(self, value: Iterator[Any]) -> Outgoing:
        parts = enumerate(map(_outgoing, value), 1)
        _, first = next(parts, (0, None))
        if first is None:
            raise FormatError(
                "the iterator yielded nothing, so its columns are unknown; "
                "yield an empty table when there is no data"
            )
        batches = (batch for number, part in parts for batch in _checked(part, first, number))
        return Outgoing(
            schema=first.schema,
            batches=blocks(chain(first.batches, batches), first.schema, fleeting=True),
            extras=first.extras,
        )

    @override
    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Iterator[Any]:
        return map(self.from_arrow, stored.stream(options.get("columns")))

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        if self._item is None:
            raise FormatError("an iterator is read by its annotation: Iterator[pandas.DataFrame]")
        return self._item.from_arrow(loaded)


def _outgoing(value: Any) -> Outgoing:
    from airflow_provider_dbnd.core.formats.containers import container_for_value
    from airflow_provider_dbnd.core.formats.containers.pandas_frame import numbered, part_extras

    value = numbered(value)
    part = container_for_value(value).outgoing(value)
    return Outgoing(schema=part.schema, batches=part.batches, extras=part_extras(part.extras))


def _checked(part: Outgoing, first: Outgoing, number: int) -> Iterator[Any]:
    if part.schema.remove_metadata() != first.schema.remove_metadata():
        raise FormatError(
            f"part {number} of the iterator has other columns than the first: "
            f"expected {_short(first.schema)}, got {_short(part.schema)}"
        )
    if part.extras != first.extras:
        raise FormatError(
            f"part {number} of the iterator differs from the first in index or dtypes: "
            f"expected {first.extras or 'the defaults'}, got {part.extras or 'the defaults'}"
        )
    return part.batches


def _short(schema: Any) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
