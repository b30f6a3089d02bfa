"""One pandas column to Arrow and back, exactly, without copying where the layouts agree.

Most dtypes are what Arrow's own type becomes in pandas ("natural") and need no note. The others
(nullable, Arrow-backed, object, ...) are noted by a tag, which the reader turns back into a dtype.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from airflow_provider_dbnd.core.formats import canonical
from airflow_provider_dbnd.core.formats.containers.pandas_objects import (
    objects_from_arrow,
    objects_to_arrow,
)
from airflow_provider_dbnd.core.formats.dictionaries import unified
from airflow_provider_dbnd.exceptions import FormatError

_ARROW_BACKED = "arrow"
_OBJECT = "object"
_OBJECT_NAN = "object[nan]"
_INTERVAL = "interval["


def to_arrow(values: Any, name: str) -> tuple[Any, str | None]:
    """Convert a pandas Series or Index to one Arrow array and the tag of its dtype.

    :param name: for messages
    """
    import pandas as pd
    import pyarrow as pa

    dtype = values.dtype
    if isinstance(dtype, pd.SparseDtype):
        raise _lost(name, dtype, "sparse storage", "use .sparse.to_dense()")
    if isinstance(dtype, pd.CategoricalDtype):
        return _categories_to_arrow(values.array, name)
    if isinstance(dtype, pd.IntervalDtype):
        array = _intervals_to_arrow(values.array, name)
        return array, _checked_tag(dtype, array.type, name)
    if pd.api.types.is_object_dtype(dtype):
        array, missing = objects_to_arrow(values, name)
        return array, _tag(dtype, array.type) if missing is None else _OBJECT_NAN
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise FormatError(f"column {name!r} of dtype {dtype} cannot be stored: {error}") from error
    if isinstance(array, pa.ChunkedArray):
        array = _one_chunk(array)
    if canonical.is_extension(array.type) and not isinstance(dtype, pd.ArrowDtype):
        # A reader without pandas does not know pandas' own Arrow extension types (period).
        array = array.storage
    return array, _checked_tag(dtype, array.type, name)


def _categories_to_arrow(values: Any, name: str) -> tuple[Any, str | None]:
    import pyarrow as pa

    categories, tag = to_arrow(values.categories, name)
    array = pa.DictionaryArray.from_arrays(
        values.codes, categories, ordered=values.ordered, from_pandas=True
    )
    return array, f"category[{tag}]" if tag else None


def _intervals_to_arrow(values: Any, name: str) -> Any:
    """Return the bounds side by side; pandas itself does not take those of time zones to Arrow."""
    import pyarrow as pa

    bounds = [to_arrow(side, name)[0] for side in (values.left, values.right)]
    missing = values.isna()
    mask = pa.array(missing) if missing.any() else None
    return pa.StructArray.from_arrays(bounds, ["left", "right"], mask=mask)


def _checked_tag(dtype: Any, type_: Any, name: str) -> str | None:
    """Return the tag, refusing a dtype that has no name to find it by."""
    tag = _tag(dtype, type_)
    try:
        dtype_of(tag, type_)
    except TypeError as error:
        raise FormatError(
            f"column {name!r} cannot be stored: pandas has no name for its dtype {dtype}; convert "
            "it, a time zone with .dt.tz_convert('Europe/Berlin')"
        ) from error
    return tag


def _tag(dtype: Any, type_: Any) -> str | None:
    """Return what brings *dtype* back from Arrow *type_*, None where Arrow does so by itself."""
    import pandas as pd

    if dtype == natural_dtype(type_):
        # What pandas makes of nested Arrow values are arrays, not the lists and dicts there were,
        # and bytes of UUIDs.
        others = canonical.is_nested(type_) or canonical.is_extension(type_)
        return _OBJECT if pd.api.types.is_object_dtype(dtype) and others else None
    if isinstance(dtype, pd.ArrowDtype):
        return _ARROW_BACKED
    if isinstance(dtype, pd.StringDtype) and dtype.na_value is pd.NA:
        return f"string[{dtype.storage}]"
    return str(dtype)


def dtype_of(tag: str | None, type_: Any) -> Any:
    """Return the dtype that :func:`to_arrow` made *tag* of."""
    import numpy as np
    import pandas as pd

    if tag is None:
        return natural_dtype(type_)
    if tag == _ARROW_BACKED:
        return pd.ArrowDtype(type_)
    if tag == _OBJECT_NAN:
        return np.dtype(object)
    if tag.startswith(_INTERVAL):
        # pandas cannot read its own name for intervals of a time zone.
        subtype, _, closed = tag.removeprefix(_INTERVAL).removesuffix("]").rpartition(", ")
        side: Any = closed
        bound: Any = pd.api.types.pandas_dtype(subtype)
        return pd.IntervalDtype(bound, side)
    return pd.api.types.pandas_dtype(tag)


def to_pandas(column: Any, tag: str | None, *, filled: bool, memory: Any) -> Any:
    """Convert an Arrow chunked array to the pandas array of the dtype noted by *tag*."""
    import pandas as pd
    import pyarrow as pa

    array = _one_chunk(column)
    if pa.types.is_dictionary(array.type):
        return _categorical(array, tag, filled=filled, memory=memory)
    dtype: Any = dtype_of(tag, array.type)
    if pd.api.types.is_object_dtype(dtype):
        missing = float("nan") if tag == _OBJECT_NAN else None
        return objects_from_arrow(array, exact=tag is not None, missing=missing)
    if isinstance(dtype, _nullable_dtypes()):
        return _nullable(array, dtype, memory)
    if isinstance(dtype, pd.IntervalDtype):
        return _intervals(array, dtype)
    if isinstance(dtype, pd.DatetimeTZDtype) or _is_plain(dtype):
        return _plain(array, dtype, filled=filled, memory=memory)
    if isinstance(dtype, pd.api.extensions.ExtensionDtype):
        extension: Any = dtype
        return extension.__from_arrow__(array)
    return array.to_pandas().array


def natural_dtype(type_: Any) -> Any:
    """Return the dtype pandas gives a column of Arrow *type_*."""
    return _natural_dtype(type_)


@lru_cache(maxsize=256)
def _natural_dtype(type_: Any) -> Any:
    import pyarrow as pa

    # Of a table: an empty array of strings becomes one of objects before pyarrow 26.
    return pa.table({"": pa.array([], type_)}).to_pandas().dtypes.iloc[0]


def _is_plain(dtype: Any) -> bool:
    import numpy as np

    return isinstance(dtype, np.dtype) and dtype.kind in "iufmM"


def _plain(array: Any, dtype: Any, *, filled: bool, memory: Any) -> Any:
    """Numbers and times whose buffer is that of a numpy array."""
    import numpy as np
    import pandas as pd

    if array.null_count and not filled:
        if dtype.kind in "iu":
            # Only from other engines: pandas has no missing values in this dtype.
            return _nullable(array, _nullable_of(dtype), memory)
        return array.to_pandas().array
    if dtype.kind not in "mM":
        return writable(array, dtype, memory)
    values = writable(array, np.int64, memory)
    if isinstance(dtype, np.dtype):
        values = values.view(dtype)
    return pd.array(values, dtype=dtype, copy=False)


def _nullable_dtypes() -> tuple[type, ...]:
    import pandas as pd

    sizes = (8, 16, 32, 64)
    integers = (getattr(pd, f"{kind}{size}Dtype") for kind in ("Int", "UInt") for size in sizes)
    return (pd.BooleanDtype, pd.Float32Dtype, pd.Float64Dtype, *integers)


def _nullable_of(dtype: Any) -> Any:
    return next(d() for d in _nullable_dtypes() if getattr(d(), "numpy_dtype", None) == dtype)


def _nullable(array: Any, dtype: Any, memory: Any) -> Any:
    """Nullable dtypes: pandas keeps a byte for each row where Arrow keeps a bit."""
    import numpy as np

    valid = canonical.validity(array)
    mask = np.zeros(len(array), bool) if valid is None else ~valid
    if dtype.kind != "b":
        values = writable(array, dtype.numpy_dtype, memory)
    elif len(array):
        values = canonical.bits(array.buffers()[1], array.offset, len(array))
    else:
        values = np.empty(0, bool)
    return dtype.construct_array_type()(values, mask, copy=False)


def _categorical(array: Any, tag: str | None, *, filled: bool, memory: Any) -> Any:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    categories_tag = tag.removeprefix("category[").removesuffix("]") if tag else None
    categories = to_pandas(array.dictionary, categories_tag, filled=False, memory=None)
    index = pd.Index(categories, dtype=categories.dtype)
    dtype = pd.CategoricalDtype(index, ordered=array.type.ordered)
    indices = array.indices
    code_type = np.dtype(array.type.index_type.to_pandas_dtype())
    if code_type.kind == "i" and (filled or not indices.null_count):
        codes = writable(indices, code_type, memory)
    else:
        codes = indices.cast(pa.int64()).fill_null(-1).to_numpy()
    return pd.Categorical.from_codes(codes, dtype=dtype, validate=False)


def _intervals(array: Any, dtype: Any) -> Any:
    import pandas as pd

    left, right = (to_pandas(side, None, filled=False, memory=None) for side in array.flatten())
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=dtype.closed)


def writable(array: Any, dtype: Any, memory: Any) -> Any:
    """Return the data buffer of *array* as a numpy array its owner may write to.

    That is a view into the private map *memory* where there is one, as Arrow itself takes its
    buffers to be immutable there.
    """
    import numpy as np
    import pyarrow as pa

    buffer = array.buffers()[1]
    dtype = np.dtype(dtype)
    if memory is not None and len(array):
        start = buffer.address - pa.py_buffer(memory).address
        # Chunks put together lie outside of the map.
        if 0 <= start < len(memory):
            return np.frombuffer(memory, dtype, len(array), start + array.offset * dtype.itemsize)
    values = canonical.values_of(buffer, dtype, array.offset, len(array))
    return values if values.flags.writeable else values.copy()


def _one_chunk(column: Any) -> Any:
    import pyarrow as pa

    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.num_chunks == 0:
        return pa.nulls(0, column.type)
    return pa.concat_arrays(unified(column).chunks)


def _lost(name: str, dtype: Any, what: str, remedy: str) -> FormatError:
    return FormatError(f"column {name!r} of dtype {dtype} would lose its {what}; {remedy}")
