"""Excel sheets (.xlsx), by pandas and openpyxl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.interchange import InterchangeFormat


class ExcelFormat(InterchangeFormat):
    """The first sheet, unless an option names another."""

    name = "excel"

    @override
    def reader(self, container: str) -> Callable[..., Any] | None:
        return _read if container == "pandas.DataFrame" else None

    @override
    def writer(self, container: str) -> Callable[..., None] | None:
        return _write if container == "pandas.DataFrame" else None


def _read(path: str, **options: Any) -> Any:
    import pandas as pd

    return pd.read_excel(path, **options)


def _write(frame: Any, path: str, **options: Any) -> None:
    frame.to_excel(path, **{"index": False, **options})
