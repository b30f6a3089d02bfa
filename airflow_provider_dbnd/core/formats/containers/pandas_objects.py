"""pandas columns of Python objects: stored where Arrow gives the very same objects back."""

from __future__ import annotations

from typing import Any

from airflow_provider_dbnd.core.formats.same import same
from airflow_provider_dbnd.exceptions import FormatError


def objects_to_arrow(values: Any, name: str) -> Any:
    """Convert, refusing a column whose values would not come back equal and of the same type."""
    import pyarrow as pa

    items = list(values)
    try:
        array = pa.array(items, from_pandas=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise FormatError(
            f"column {name!r} holds Python objects that are not of one storable type: {error}; "
            "give the column a dtype"
        ) from error
    for item, restored in zip(items, objects_from_arrow(array, exact=True), strict=True):
        if not same(item, restored):
            raise FormatError(
                f"column {name!r} of dtype object would not come back equal: "
                f"{item!r} ({type(item).__name__}) as {restored!r} ({type(restored).__name__}); "
                "give the column a dtype"
            )
    return array


def objects_from_arrow(array: Any, *, exact: bool) -> Any:
    """Return a numpy object array.

    :param exact: give Python's own types (lists, datetimes), as written by
        :func:`objects_to_arrow`, rather than what pandas makes of foreign data
    """
    import numpy as np

    if not exact:
        return array.to_numpy(zero_copy_only=False).astype(object, copy=False)
    values = np.empty(len(array), dtype=object)
    values[:] = array.to_pylist()
    return values
