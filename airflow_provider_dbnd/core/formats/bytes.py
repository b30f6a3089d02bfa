"""Raw bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.digest import bytes_digest
from airflow_provider_dbnd.core.formats.base import (
    Format,
    Written,
    file_written,
    reject_unknown_options,
)


class BytesFormat(Format):
    """Takes bytes as they are."""

    name = "bytes"

    @override
    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        reject_unknown_options(self.name, options)
        with open(path, "wb") as file:
            file.write(value)
        return file_written(path, bytes_digest(value))

    @override
    def read(
        self,
        path: str,
        type_: Any,
        *,
        options: Mapping[str, Any],
        checksum: str | None = None,
        digest: str | None = None,
    ) -> Any:
        reject_unknown_options(self.name, options)
        with open(path, "rb") as file:
            return file.read()
