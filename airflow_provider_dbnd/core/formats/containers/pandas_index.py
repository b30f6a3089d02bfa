"""A pandas index to Arrow columns and back.

A row index that is not the default one is stored as columns after the data. Column labels that are
not plain strings are stored as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_dbnd.core.formats.containers import pandas_columns as columns
from airflow_provider_dbnd.core.formats.same import same
from airflow_provider_dbnd.exceptions import FormatError

LEVEL_PREFIX = "__index_level_"


def is_default(index: Any) -> bool:
    """Tell whether a row index is the one a new frame has: 0, 1, 2, ... without a name."""
    import pandas as pd

    return (
        isinstance(index, pd.RangeIndex)
        and index.name is None
        and (index.start, index.step) == (0, 1)
    )


def is_numbering(index: Any) -> bool:
    """Tell whether the labels of a row index are integers without a name."""
    import pandas as pd

    return index.nlevels == 1 and index.name is None and pd.api.types.is_integer_dtype(index.dtype)


def to_arrow(index: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a note in JSON and the Arrow columns for a row index that is not the default."""
    import pandas as pd

    names = [check_label(name, "name of an index level") for name in index.names]
    if isinstance(index, pd.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "names": names}, {}
    arrays: dict[str, Any] = {}
    tags: list[str | None] = []
    for number, level in enumerate(_levels(index)):
        array, tag = columns.to_arrow(level, f"index level {names[number]!r}")
        arrays[f"{LEVEL_PREFIX}{number}__"] = array
        tags.append(tag)
    note: dict[str, Any] = {
        "names": names,
        "tags": tags,
        "multi": index.nlevels > 1 or _multi(index),
    }
    freq = getattr(index, "freqstr", None) if _has_freq(index) else None
    return (note | {"freq": freq} if freq else note), arrays


def to_pandas(
    note: Any, level: Callable[[str, str | None], Any], *, first: int, rows: int, whole: bool
) -> Any:
    """Rebuild a row index; *level* gives the pandas array of a stored column and its tag."""
    import pandas as pd

    if note is None:
        return pd.RangeIndex(first, first + rows)
    names = [label(name) for name in note["names"]]
    if "range" in note:
        start, stop, step = note["range"]
        stored = pd.RangeIndex(start, stop, step, name=names[0])
        return stored if whole else stored[first : first + rows]
    levels = [level(f"{LEVEL_PREFIX}{n}__", tag) for n, tag in enumerate(note["tags"])]
    if note["multi"]:
        indexes = [pd.Index(values, dtype=values.dtype) for values in levels]
        return pd.MultiIndex.from_arrays(indexes, names=names)
    index = pd.Index(levels[0], dtype=levels[0].dtype, name=names[0], copy=False)
    if note.get("freq") and whole:
        index = type(index)(index, freq=note["freq"])
    return index


def level_columns(note: Any) -> list[str]:
    """Return the names of the columns an index is stored in."""
    return [f"{LEVEL_PREFIX}{n}__" for n in range(len((note or {}).get("tags", ())))]


def labels_note(labels: Any) -> dict[str, Any] | None:
    """Return a note in JSON for column labels, None for plain strings without a name."""
    import pandas as pd

    if labels.identical(pd.Index([str(label) for label in labels])):
        return None
    names = [check_label(name, "name of the column labels") for name in labels.names]
    note: dict[str, Any] = {"names": names}
    if isinstance(labels, pd.RangeIndex):
        note["range"] = [labels.start, labels.stop, labels.step]
    else:
        levels = _levels(labels)
        note["multi"] = _multi(labels)
        note["dtypes"] = [str(level.dtype) for level in levels]
        note["labels"] = [_label_values(level) for level in levels]
    restored = labels_from_note(note)
    if not (restored.identical(labels) and same(list(restored), list(labels))):
        raise FormatError(
            f"column labels {labels!r} would not come back equal; use strings as column names"
        )
    return note


def labels_from_note(note: dict[str, Any]) -> Any:
    """Rebuild column labels."""
    import pandas as pd

    names = [label(name) for name in note["names"]]
    if "range" in note:
        start, stop, step = note["range"]
        return pd.RangeIndex(start, stop, step, name=names[0])
    levels = [
        pd.Index([label(value) for value in values], dtype=dtype, tupleize_cols=False)
        for values, dtype in zip(note["labels"], note["dtypes"], strict=True)
    ]
    if note["multi"]:
        return pd.MultiIndex.from_arrays(levels, names=names)
    return levels[0].rename(names[0])


def check_label(value: Any, what: str) -> Any:
    """Return a label as JSON has it, refusing one that JSON cannot hold."""
    if isinstance(value, tuple):
        return [check_label(item, what) for item in value]
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise FormatError(f"{what} {value!r} ({type(value).__name__}) cannot be stored; use a string")


def label(value: Any) -> Any:
    """Return a label from its JSON form."""
    return tuple(map(label, value)) if isinstance(value, list) else value


def _label_values(level: Any) -> list[Any]:
    if level.dtype.kind in "mM":
        return [int(value) for value in level.asi8]
    return [check_label(value, "column label") for value in level.tolist()]


def _levels(index: Any) -> list[Any]:
    return [index.get_level_values(number) for number in range(index.nlevels)]


def _multi(index: Any) -> bool:
    import pandas as pd

    return isinstance(index, pd.MultiIndex)


def _has_freq(index: Any) -> bool:
    import pandas as pd

    return isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) and index.freq is not None


def is_counting(note: Any) -> bool:
    """Tell whether a note is of a nameless index that counts rows by one, from wherever."""
    return bool(note) and "range" in note and note["range"][2] == 1 and note["names"] == [None]
