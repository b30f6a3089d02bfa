"""The canonical bytes of an Arrow array: what a digest is computed over.

Two arrays holding the same values of the same logical type give the same bytes, whatever their
offsets, physical layout (string, large_string, string_view) and whatever lies under their nulls.
Buffers that already are canonical are hashed in place; others are rewritten a slice at a time.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from airflow_provider_dbnd.exceptions import FormatError

_FLOAT_NAN = {2: 0x7E00, 4: 0x7FC00000, 8: 0x7FF8000000000000}
_NOT_A_TIME = 1 << 63


def logical_type(type_: Any) -> str:
    """Return the name of an Arrow type, one for all layouts of the same values."""
    from pyarrow import types

    if types.is_primitive(type_):
        return str(type_)
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "string"
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_):
        return "binary"
    if types.is_dictionary(type_):
        return _dictionary_type(type_)
    if types.is_map(type_):
        return f"map<{logical_type(type_.key_type)}, {logical_type(type_.item_type)}>"
    if types.is_fixed_size_list(type_):
        return f"list<{logical_type(type_.value_type)}>[{type_.list_size}]"
    if _is_list(type_):
        return f"list<{logical_type(type_.value_type)}>"
    if types.is_struct(type_):
        fields = (f"{json.dumps(field.name)}: {logical_type(field.type)}" for field in type_)
        return f"struct<{', '.join(fields)}>"
    if types.is_run_end_encoded(type_):
        return logical_type(type_.value_type)
    if types.is_union(type_):
        raise FormatError(f"Arrow type {type_} is not supported: union; use a struct or strings")
    if is_extension(type_):
        return _extension_type(type_)
    return str(type_)


def _dictionary_type(type_: Any) -> str:
    if is_extension(type_.value_type):
        raise FormatError(
            f"Arrow type {type_} is not supported: its categories would come back as "
            f"{type_.value_type.storage_type}; convert it to the type of its values"
        )
    order = ", ordered" if type_.ordered else ""
    return f"dictionary<{logical_type(type_.value_type)}{order}>"


def _extension_type(type_: Any) -> str:
    if not hasattr(type_, "__arrow_ext_serialize__"):
        return str(type_)  # one of Arrow's own, such as uuid
    parameters = type_.__arrow_ext_serialize__()
    storage = logical_type(type_.storage_type)
    return f"extension<{type_.extension_name}, {parameters!r}, {storage}>"


def is_extension(type_: Any) -> bool:
    """Tell whether an Arrow type is an extension type, known to this process or not."""
    import pyarrow as pa

    return isinstance(type_, pa.BaseExtensionType)


def is_nested(type_: Any) -> bool:
    """Tell whether values of an Arrow type hold other values."""
    from pyarrow import types

    return bool(types.is_nested(type_))


def needs_validation(type_: Any) -> bool:
    """Tell whether :func:`update` has Arrow follow offsets, which damage may have changed."""
    from pyarrow import types

    if is_extension(type_):
        return needs_validation(type_.storage_type)
    views = types.is_string_view(type_) or types.is_binary_view(type_)
    return is_nested(type_) or bool(views)


def update(hasher: Any, array: Any) -> bool:
    """Feed the canonical bytes of *array* to *hasher*.

    Returns whether the data buffer is canonical as it lies, nulls included: then a reader may drop
    the validity bitmap and use the buffer alone (NaN, NaT, code -1).
    """
    from pyarrow import types

    type_ = array.type
    if types.is_primitive(type_):
        valid = _update_validity(hasher, array)
        if types.is_boolean(type_):
            return _update_booleans(hasher, array, valid)
        return _update_fixed_width(hasher, array, valid)
    if types.is_run_end_encoded(type_):
        import pyarrow.compute as pc

        return update(hasher, pc.run_end_decode(array))
    if is_extension(type_):
        return update(hasher, array.storage)
    if types.is_null(type_):
        hasher.update(struct.pack("<Q", len(array)))
        return False
    if types.is_dictionary(type_):
        return _update_codes(hasher, array, _update_head(hasher, array))
    valid = _update_validity(hasher, array)
    if types.is_struct(type_):
        for child in array.flatten():
            update(hasher, child)
    elif _is_list(type_) or types.is_fixed_size_list(type_) or types.is_map(type_):
        _update_lists(hasher, array)
    elif types.is_string_view(type_) or types.is_binary_view(type_):
        return _update_views(hasher, array, valid)
    elif logical_type(type_) in ("string", "binary"):
        _update_strings(hasher, array, valid)
    else:
        return _update_fixed_width(hasher, array, valid)
    return False


def _update_head(hasher: Any, array: Any) -> Any:
    """Feed the length of *array* and whether it has nulls; return its validity."""
    valid = validity(array)
    hasher.update(struct.pack("<Q?", len(array), valid is not None))
    return valid


def _update_validity(hasher: Any, array: Any) -> Any:
    valid = _update_head(hasher, array)
    if valid is not None:
        hasher.update(_packed_bits(array.buffers()[0], array.offset, len(array)))
    return valid


def _is_list(type_: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )


def validity(array: Any) -> Any:
    """Return the positions that hold a value as a numpy bool array, or None when all do."""
    if array.null_count == 0:
        return None
    return bits(array.buffers()[0], array.offset, len(array))


def bits(buffer: Any, offset: int, length: int) -> Any:
    """Unpack *length* bits from *offset* on."""
    import numpy as np

    first = offset // 8
    packed = np.frombuffer(buffer, np.uint8)[first : (offset + length + 7) // 8]
    start = offset - first * 8
    return np.unpackbits(packed, bitorder="little")[start : start + length].view(bool)


def _packed(flags: Any) -> Any:
    import numpy as np

    return np.packbits(flags, bitorder="little")


def _packed_bits(buffer: Any, offset: int, length: int) -> Any:
    """Return *length* bits from *offset* on as bytes that start with the first of them."""
    import numpy as np

    if offset % 8:
        return _packed(bits(buffer, offset, length))
    packed = np.frombuffer(buffer, np.uint8)[offset // 8 : (offset + length + 7) // 8]
    if length % 8:
        packed = packed.copy()
        packed[-1] &= (1 << length % 8) - 1
    return packed


def values_of(buffer: Any, dtype: Any, offset: int, length: int) -> Any:
    """View *length* items of a data buffer, which Arrow may leave out when there are none."""
    import numpy as np

    dtype = np.dtype(dtype)
    if length == 0:
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype, length, offset * dtype.itemsize)


def _update_fixed_width(hasher: Any, array: Any, valid: Any) -> bool:
    import numpy as np

    width = array.type.bit_width // 8
    plain = width in (1, 2, 4, 8)
    dtype = np.dtype(f"u{width}") if plain else np.dtype(f"V{width}")
    values = values_of(array.buffers()[1], dtype, array.offset, len(array))
    if valid is None:
        hasher.update(values.view(np.uint8))
        return True
    filler = np.zeros(1, dtype)
    if plain:
        filler[0] = _filler(array.type, width)
    marks_missing = plain and bool(filler[0])
    # Without a branch on each value: where nulls are spread, those cost more than a second look.
    filled = marks_missing and bool(((values == filler) | valid).all())
    hasher.update((values if filled else np.where(valid, values, filler)).view(np.uint8))
    return filled


def _filler(type_: Any, width: int) -> int:
    """Return the bits pandas keeps at a missing value, so that its buffers are canonical."""
    from pyarrow import types

    if types.is_floating(type_):
        return _FLOAT_NAN[width]
    if types.is_timestamp(type_) or types.is_duration(type_):
        return _NOT_A_TIME
    return 0


def _update_codes(hasher: Any, array: Any, valid: Any) -> bool:
    import numpy as np

    indices = array.indices
    codes = values_of(
        indices.buffers()[1],
        indices.type.to_pandas_dtype(),
        indices.offset,
        len(indices),
    )
    canonical = codes.astype(np.int32)
    if valid is not None:
        canonical[~valid] = -1
    hasher.update(canonical.view(np.uint8))
    return valid is None or np.array_equal(canonical, codes)


def _update_booleans(hasher: Any, array: Any, valid: Any) -> bool:
    if len(array):
        packed = _packed_bits(array.buffers()[1], array.offset, len(array))
        hasher.update(packed if valid is None else packed & _packed(valid))
    return False


def _update_lists(hasher: Any, array: Any) -> None:
    import numpy as np
    import pyarrow as pa
    from pyarrow import compute, types

    if types.is_map(array.type):
        pairs = pa.struct([array.type.key_field, array.type.item_field])
        array = array.cast(pa.list_(pairs))
    lengths = compute.fill_null(compute.list_value_length(array), 0).to_numpy()
    hasher.update(lengths.astype(np.int64).view(np.uint8))
    # flatten() leaves out what lies under null lists.
    update(hasher, array.flatten())


def _update_views(hasher: Any, array: Any, valid: Any) -> bool:
    """Hash strings held by views; a view under a null must be empty, for Arrow looks at it too."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import types

    wide = pa.large_string() if types.is_string_view(array.type) else pa.large_binary()
    if valid is None:
        _update_strings(hasher, array.cast(wide), None)
        return True
    _, views_buffer, *data = array.buffers()
    views = values_of(views_buffer, "V16", array.offset, len(array))
    clean = np.where(valid, views, np.zeros(1, "V16"))
    buffers = [pa.py_buffer(_packed(valid)), pa.py_buffer(clean.view(np.uint8)), *data]
    array = pa.Array.from_buffers(array.type, len(array), buffers)
    _update_strings(hasher, array.cast(wide), valid)
    return np.array_equal(clean, views)


def _update_strings(hasher: Any, array: Any, valid: Any) -> None:
    import numpy as np
    import pyarrow as pa
    from pyarrow import types

    large = types.is_large_string(array.type) or types.is_large_binary(array.type)
    _, offsets_buffer, data = array.buffers()
    if len(array) == 0:
        return
    offsets = np.frombuffer(
        offsets_buffer,
        np.int64 if large else np.int32,
        len(array) + 1,
        array.offset * (8 if large else 4),
    )
    if valid is not None and np.diff(offsets)[~valid].any():
        # Arrow allows bytes under a null; take() leaves them out, and trusts what it reads.
        array.validate(full=True)
        _update_strings(hasher, array.take(pa.array(np.arange(len(array)))), valid)
        return
    first, last = int(offsets[0]), int(offsets[-1])
    hasher.update((offsets.astype(np.int64, copy=False) - first).view(np.uint8))
    if data is not None:
        hasher.update(np.frombuffer(data, np.uint8)[first:last])
