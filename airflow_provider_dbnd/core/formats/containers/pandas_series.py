"""pandas.Series as a table of one column, with its name and index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.containers import pandas_frame
from airflow_provider_dbnd.core.formats.containers.pandas_index import check_label, label
from airflow_provider_dbnd.core.formats.frames import Container, Loaded, Outgoing, Stored
from airflow_provider_dbnd.exceptions import FormatError

ENGINE = "series"
_COLUMN = "values"


class PandasSeries(Container):
    """A Series comes back with its name and index too."""

    @override
    def outgoing(self, value: Any) -> Outgoing:
        frame = value.to_frame(_COLUMN)
        frame.attrs = value.attrs
        table, note = pandas_frame.frame_to_arrow(frame)
        extras: dict[str, Any] = {ENGINE: {"name": check_label(value.name, "name of the Series")}}
        if note:
            extras[pandas_frame.ENGINE] = note
        return Outgoing.of_table(table, extras)

    @override
    def incoming(self, stored: Stored, options: Mapping[str, Any]) -> Any:
        return self.from_arrow(stored.load(None, options.get("rows")))

    @override
    def from_arrow(self, loaded: Loaded) -> Any:
        frame = pandas_frame.frame_from_arrow(loaded)
        if len(frame.columns) != 1:
            raise FormatError(
                f"a Series has one column, but {len(frame.columns)} are stored: "
                f"{', '.join(map(str, frame.columns))}; annotate it as a DataFrame"
            )
        series = frame.iloc[:, 0]
        series.attrs = frame.attrs
        if ENGINE in loaded.extras:
            series.name = label(loaded.extras[ENGINE]["name"])
        return series
