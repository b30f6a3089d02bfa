"""pandas.DataFrame as tabular data, with its dtypes, index, column labels and attrs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.containers import pandas_columns as columns
from airflow_provider_dbnd.core.formats.containers import pandas_index as indexes
from airflow_provider_dbnd.core.formats.frames import Container, Loaded, Outgoing, Stored
from airflow_provider_dbnd.core.formats.same import same
from airflow_provider_dbnd.core.formats.threads import working_threads
from airflow_provider_dbnd.exceptions import FormatError

ENGINE = "pandas"

_WORTH_THREADS = 100_000


class PandasFrame(Container):
    """A frame comes back with the same dtypes, index, labels and attrs."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        table, note = frame_to_arrow(value)
        return Outgoing.of_table(table, {ENGINE: note} if note else {})

    @override
    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Any:
        wanted = options.get("columns")
        if wanted is not None:
            wanted = _stored_columns(wanted, stored.extras.get(ENGINE, {}), stored.schema)
        return self.from_arrow(stored.load(wanted, options.get("rows")))

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        return frame_from_arrow(loaded)


def frame_to_arrow(frame: Any) -> tuple[Any, dict[str, Any]]:
    """Return the Arrow table of a frame and the note on what its schema does not say."""
    import pandas as pd
    import pyarrow as pa

    if type(frame) is not pd.DataFrame:
        raise FormatError(
            f"a {type(frame).__module__}.{type(frame).__qualname__} would come back as a plain "
            "pandas.DataFrame; convert it with pandas.DataFrame(frame)"
        )
    names = _unique_names(frame.columns)
    arrays: dict[str, Any] = {}
    tags: dict[str, str] = {}
    values = [frame.iloc[:, position] for position in range(len(names))]
    # Arrow looks for missing values without the interpreter lock, which is most of the time here.
    map_ = working_threads().map if len(frame) >= _WORTH_THREADS else map
    for name, (array, tag) in zip(names, map_(columns.to_arrow, values, names), strict=True):
        arrays[name] = array
        if tag is not None:
            tags[name] = tag
    note: dict[str, Any] = {"dtypes": tags} if tags else {}
    if labels := indexes.labels_note(frame.columns):
        note["columns"] = labels
    if not indexes.is_default(frame.index):
        note["index"], levels = indexes.to_arrow(frame.index)
        _check_free(levels, names)
        arrays |= levels
    if not arrays and len(frame):
        # An Arrow table without columns has no rows.
        note["index"], _ = indexes.to_arrow(frame.index)
    if frame.attrs:
        note["attrs"] = _json_attrs(frame.attrs)
    if not frame.flags.allows_duplicate_labels:
        note["unique_labels"] = True
    table = pa.table(list(arrays.values()), names=list(arrays))
    _check_restored(frame, table, note)
    return table, note


def frame_from_arrow(loaded: Loaded) -> Any:
    """Rebuild a frame, on the loaded buffers themselves where the layouts agree."""
    import pandas as pd

    note = loaded.extras.get(ENGINE, {})
    tags = note.get("dtypes", {})
    levels = indexes.level_columns(note.get("index"))
    names = [name for name in loaded.table.column_names if name not in levels]

    def array(name: str, tag: str | None) -> Any:
        column = loaded.table.column(name)
        filled = name in loaded.filled
        try:
            return columns.to_pandas(column, tag, filled=filled, memory=loaded.memory)
        except NotImplementedError as error:
            raise FormatError(
                f"column {name!r} of type {column.type} cannot be brought to pandas: {error}; "
                "a pyarrow.Table can hold it"
            ) from error

    index = indexes.to_pandas(
        note.get("index"), array, first=loaded.first_row, rows=loaded.rows, whole=loaded.whole
    )
    data = {}
    for number, name in enumerate(names):
        values = array(name, tags.get(name))
        # With its dtype, because pandas infers another one for objects that all are strings.
        data[number] = pd.Series(values, dtype=values.dtype, copy=False)
    frame = pd.DataFrame(data, copy=False) if data else pd.DataFrame(index=index)
    frame.index = index
    frame.columns = _labels(note, names, loaded)
    frame.attrs = note.get("attrs", {})
    return frame.set_flags(allows_duplicate_labels=False) if "unique_labels" in note else frame


def _unique_names(labels: Any) -> list[str]:
    names = [str(label) for label in labels]
    repeated = (
        sorted({name for name in names if names.count(name) > 1})
        if len(set(names)) < len(names)
        else []
    )
    if repeated:
        raise FormatError(
            f"column {', '.join(map(repr, repeated))} occurs more than once; "
            "stored columns need names that differ as strings"
        )
    return names


def _check_free(levels: Mapping[str, Any], names: list[str]) -> None:
    taken = sorted(set(levels) & set(names))
    if taken:
        raise FormatError(f"column {taken[0]!r} has the name the index is stored under; rename it")


def _json_attrs(attrs: dict[Any, Any]) -> dict[str, Any]:
    try:
        restored: dict[str, Any] = json.loads(json.dumps(attrs))
    except (TypeError, ValueError) as error:
        raise FormatError(f"DataFrame.attrs cannot be stored as JSON: {error}") from error
    if not same(attrs, restored):
        raise FormatError(
            f"DataFrame.attrs would come back as {restored!r} from JSON, not {attrs!r}; "
            "use string keys, and lists for tuples"
        )
    return restored


def _check_restored(frame: Any, table: Any, note: dict[str, Any]) -> None:
    """Refuse a frame whose dtypes would come back changed, tried on none of its rows."""
    empty = Loaded(table=table.slice(0, 0), schema=table.schema, extras={ENGINE: note}, whole=False)
    restored = frame_from_arrow(empty)
    for name, expected, found in zip(
        table.column_names, frame.dtypes, restored.dtypes, strict=False
    ):
        _check_same_dtype(f"column {name!r}", expected, found)
    for number in range(frame.index.nlevels):
        expected = frame.index.get_level_values(number).dtype
        found = restored.index.get_level_values(number).dtype
        _check_same_dtype(f"index level {number}", expected, found)


def _check_same_dtype(what: str, expected: Any, found: Any) -> None:
    import pandas as pd

    equal = expected == found
    if equal and isinstance(expected, pd.CategoricalDtype):
        equal = expected.categories.equals(found.categories) and (
            expected.categories.dtype == found.categories.dtype
        )
    if not equal:
        raise FormatError(
            f"{what} of dtype {expected} would come back as {found}; convert it with .astype()"
        )


def _labels(note: Mapping[str, Any], names: list[str], loaded: Loaded) -> Any:
    """Return the column labels of the stored columns *names*."""
    import pandas as pd

    if "columns" not in note:
        return pd.Index(names)
    labels = indexes.labels_from_note(note["columns"])
    stored = _data_names(note, loaded.schema)
    return labels if names == stored else labels.take([stored.index(name) for name in names])


def _data_names(note: Mapping[str, Any], schema: Any) -> list[str]:
    levels = indexes.level_columns(note.get("index"))
    return [name for name in schema.names if name not in levels]


def _stored_columns(wanted: list[Any], note: Mapping[str, Any], schema: Any) -> list[str]:
    """Translate column labels to stored names, and add the columns of the index."""
    names = _data_names(note, schema)
    if "columns" in note:
        labels = list(indexes.labels_from_note(note["columns"]))
        by_label = dict(zip(labels, names, strict=True))
        wanted = [by_label.get(label, label) for label in wanted]
    return [*map(str, wanted), *indexes.level_columns(note.get("index"))]


def numbered(part: Any) -> Any:
    """Return a part of a stream without row labels that only number it.

    A filter leaves gaps in them and an empty part has none, so they differ from part to part.
    """
    import pandas as pd

    if type(part) is not pd.DataFrame or not indexes.is_numbering(part.index):
        return part
    return part.reset_index(drop=True)


def part_extras(extras: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the extras of a part of a stream, where an index that counts on says nothing."""
    note = dict(extras.get(ENGINE, {}))
    if indexes.is_counting(note.get("index")):
        del note["index"]
    others = {engine: extra for engine, extra in extras.items() if engine != ENGINE}
    return others | ({ENGINE: note} if note else {})
