"""A file the task made itself: stored as it is, read by its own extension."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.digest import FILE_SCHEME, file_checksum
from airflow_provider_dbnd.core.formats.annotations import data_type
from airflow_provider_dbnd.core.formats.base import Format, Written, reject_unknown_options
from airflow_provider_dbnd.exceptions import FormatError


class FileFormat(Format):
    """Takes a path to a file, not a folder."""

    name = "file"

    @override
    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        reject_unknown_options(self.name, options)
        if not os.path.isfile(value):
            what = "a folder" if os.path.isdir(value) else "missing"
            raise FormatError(f"output file {str(value)!r} is {what}; return the path of one file")
        shutil.copyfile(value, path)
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
        from airflow_provider_dbnd.core.formats.registry import extension_of, format_for_input

        type_ = data_type(type_)
        if type_ in (Path, "pathlib.Path", "pathlib.PosixPath"):
            return Path(path)
        if type_ is bytes:
            return Path(path).read_bytes()
        format_ = format_for_input(type_, format=None, extension=extension_of(path))
        return format_.read(path, type_, options=options)
