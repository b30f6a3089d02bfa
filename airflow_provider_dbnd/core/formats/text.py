"""Text files in UTF-8."""

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
from airflow_provider_dbnd.exceptions import FormatError


class TextFormat(Format):
    """One str a file."""

    name = "text"

    @override
    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        reject_unknown_options(self.name, options)
        try:
            data = value.encode()
        except UnicodeEncodeError as error:
            raise FormatError(f"the text cannot be stored as UTF-8: {error}") from error
        with open(path, "wb") as file:
            file.write(data)
        return file_written(path, bytes_digest(data))

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
        reject_unknown_options(self.name, options, ("encoding",))
        with open(path, "rb") as file:
            data = file.read()
        encoding = options.get("encoding", "utf-8")
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path} is not {encoding} text: {error}; pass its encoding= or annotate it bytes"
            ) from error
