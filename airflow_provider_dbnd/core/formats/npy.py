"""numpy arrays: artifacts come through a private copy-on-write map, writable while the file stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.digest import FILE_SCHEME
from airflow_provider_dbnd.core.formats.base import (
    Format,
    Written,
    file_written,
    reject_unknown_options,
)
from airflow_provider_dbnd.exceptions import FormatError


class NpyFormat(Format):
    """One array a file."""

    name = "npy"

    @override
    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        import numpy as np

        reject_unknown_options(self.name, options)
        if type(value) not in (np.ndarray, np.memmap):
            raise FormatError(
                f"a {type(value).__module__}.{type(value).__qualname__} would come back as a plain "
                "numpy.ndarray; convert it with numpy.asarray(value)"
            )
        if value.dtype.hasobject:
            raise FormatError(
                f"a numpy array of dtype {value.dtype} holds Python objects; give it a dtype, or "
                "declare output.pickle"
            )
        if np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(value.dtype)) != value.dtype:
            raise FormatError(f"dtype {value.dtype} would not come back equal from npy")
        with open(path, "wb") as file:
            np.lib.format.write_array(file, value, version=(2, 0), allow_pickle=False)
        written = file_written(path, "")
        # The file is the header (dtype, shape, order) and the data: its checksum names the data.
        return Written(digest=written.checksum.removeprefix(FILE_SCHEME), checksum=written.checksum)

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
        import numpy as np

        reject_unknown_options(self.name, options)
        try:
            # Not a user's own file: one that is cut short under a map kills the process.
            array = np.load(path, mmap_mode="c" if checksum else None, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise FormatError(f"{path} is not an npy file of plain values: {error}") from error
        return array.view(np.ndarray)
