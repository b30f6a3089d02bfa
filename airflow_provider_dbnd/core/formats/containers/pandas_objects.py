"""pandas columns of Python objects: stored where Arrow gives the very same objects back."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

from airflow_provider_dbnd.core.formats.same import all_same, same
from airflow_provider_dbnd.exceptions import FormatError


def objects_to_arrow(values: Any, name: str) -> tuple[Any, float | None]:
    """Convert, refusing a column whose values would not come back equal and of the same type.

    Also returns what stands for a missing value: NaN, as in text that pandas 2 reads, or None.
    """
    import pyarrow as pa

    items = list(values)
    missing = _missing(items)
    try:
        array = _array(items, from_pandas=missing is not None)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise FormatError(
            f"column {name!r} holds Python objects that are not of one storable type: {error}; "
            "give the column a dtype"
        ) from error
    restored = objects_from_arrow(array, exact=True, missing=missing).tolist()
    if not all_same(items, restored):
        before, after = next(both for both in zip(items, restored, strict=True) if not same(*both))
        raise FormatError(
            f"column {name!r} of dtype object would not come back equal: "
            f"{before!r} ({type(before).__name__}) as {after!r} ({type(after).__name__}); "
            "give the column a dtype"
        )
    return array, missing


def objects_from_arrow(array: Any, *, exact: bool, missing: float | None = None) -> Any:
    """Return a numpy object array.

    :param exact: give Python's own types (lists, datetimes), as written by
        :func:`objects_to_arrow`, rather than what pandas makes of foreign data
    """
    import numpy as np

    if not exact:
        return array.to_numpy(zero_copy_only=False).astype(object, copy=False)
    values = np.empty(len(array), dtype=object)
    values[:] = array.to_pylist()
    if missing is not None and array.null_count:
        values[array.is_null().to_numpy(zero_copy_only=False)] = missing
    return values


def _array(items: list[Any], *, from_pandas: bool) -> Any:
    import pyarrow as pa

    if UUID not in set(map(type, items)) or not hasattr(pa, "uuid"):
        return pa.array(items, from_pandas=from_pandas)
    # pyarrow 23 has the type, but does not infer it.
    data = [item.bytes if isinstance(item, UUID) else None for item in items]
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(data, pa.binary(16)))


def _missing(items: list[Any]) -> float | None:
    nan = [item for item in items if isinstance(item, float) and math.isnan(item)]
    return nan[0] if nan else None
