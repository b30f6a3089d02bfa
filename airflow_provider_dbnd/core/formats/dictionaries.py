"""Dictionaries of chunks made one, also those of structs, which Arrow's own function does not take."""

from __future__ import annotations

from typing import Any

from airflow_provider_dbnd.exceptions import FormatError


def unified_table(table: Any) -> Any:
    """Return *table* with one dictionary a column."""
    import pyarrow as pa

    named = zip(table.column_names, table.columns, strict=True)
    columns = [unified(column, name) for name, column in named]
    return pa.table(columns, schema=table.schema)


def unified(column: Any, name: str = "") -> Any:
    """Return a chunked array with one dictionary.

    :param name: for messages
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type) and column.num_chunks:
        first, *others = (chunk.dictionary for chunk in column.chunks)
        if all(other.equals(first) for other in others):
            return column
    try:
        return column.unify_dictionaries()
    except pa.ArrowNotImplementedError as error:
        raise FormatError(
            f"column {name!r} of type {column.type} has chunks of different categories: {error}; "
            "convert it to the type of its values"
        ) from error
