"""matplotlib figures as pictures. What comes back is the picture, as bytes, not the figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.digest import FILE_SCHEME, file_checksum
from airflow_provider_dbnd.core.formats.annotations import data_type, type_name
from airflow_provider_dbnd.core.formats.base import Format, Written, own_options
from airflow_provider_dbnd.exceptions import FormatError

#: The date of drawing would give every run another digest.
_NO_DATE = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


class FigureFormat(Format):
    """A picture in the format of the extension."""

    name = "figure"

    def __init__(self, extension: str = "png") -> None:
        self.picture = extension

    @override
    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        settings = {"format": self.picture, "metadata": _NO_DATE.get(self.picture)}
        value.savefig(path, **(settings | own_options(options)))
        checksum = file_checksum(path)
        return Written(digest=checksum.removeprefix(FILE_SCHEME), checksum=checksum)

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
        if data_type(type_) is not bytes:
            raise FormatError(
                f"a stored figure comes back as its picture: annotate it as bytes or Path, "
                f"not {type_name(type_)}"
            )
        with open(path, "rb") as file:
            return file.read()
