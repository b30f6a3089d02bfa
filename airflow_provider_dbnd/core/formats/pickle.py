"""Python objects by pickle, joblib or skops: only where declared, on both sides.

Loading a pickle runs code that is in the file. So reading needs the option ``allow_pickle``, which
the caller sets when the parameter or the producing output declares the format.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.digest import FILE_SCHEME, file_checksum
from airflow_provider_dbnd.core.formats.annotations import type_name
from airflow_provider_dbnd.core.formats.base import (
    ALLOW_PICKLE,
    Format,
    Written,
    own_options,
    reject_unknown_options,
)
from airflow_provider_dbnd.exceptions import FormatError


class _Unpickler(pickle.Unpickler):
    """Names the class that is not there: an error of its module alone does not."""

    @override
    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (AttributeError, ImportError) as error:
            raise ImportError(f"it needs {module}.{name}, which is not there: {error}") from error


class PickleFormat(Format):
    """Python's own pickle; base of those like it."""

    name = "pickle"
    write_options: tuple[str, ...] = ()
    read_options: tuple[str, ...] = ()

    @override
    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        reject_unknown_options(self.name, options, self.write_options)
        settings = own_options(options)
        try:
            self.dump(value, path, settings)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise FormatError(
                f"a {type_name(type(value))} cannot be stored by {self.name}: {error}"
            ) from error
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
        reject_unknown_options(self.name, options, self.read_options)
        if options.get(ALLOW_PICKLE) is not True:
            raise FormatError(
                f"{path} is a {self.name} file, and loading one runs the code in it; "
                f"if you trust where it comes from, declare the format: parameter.{self.name}"
            )
        settings = own_options(options)
        try:
            return self.load(path, settings)
        except (pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
            raise FormatError(f"{path} cannot be loaded by {self.name}: {error}") from error
        except (AttributeError, ImportError) as error:
            raise FormatError(
                f"{path} cannot be loaded by {self.name}: {error}. Where its class was renamed, moved or "
                "changed since, bring back what it was stored with, or run again the task that made it; "
                "where its library is missing, install it."
            ) from error

    def dump(self, value: Any, path: str, options: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Write the object; *options* are checked."""
        with open(path, "wb") as file:
            pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)

    def load(self, path: str, options: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Load the object; *options* are checked."""
        with open(path, "rb") as file:
            return _Unpickler(file).load()


class JoblibFormat(PickleFormat):
    """joblib, which stores large numpy arrays in the object well."""

    name = "joblib"
    write_options = ("compress",)
    read_options = ("mmap_mode",)

    @override
    def dump(self, value: Any, path: str, options: Mapping[str, Any]) -> None:
        import joblib

        joblib.dump(value, path, **options)

    @override
    def load(self, path: str, options: Mapping[str, Any]) -> Any:
        import joblib

        return joblib.load(path, **options)


class SkopsFormat(PickleFormat):
    """Checks types before it loads; ``trusted`` lists those to accept beyond its own."""

    name = "skops"
    read_options = ("trusted",)

    @override
    def dump(self, value: Any, path: str, options: Mapping[str, Any]) -> None:
        from skops import io

        io.dump(value, path)

    @override
    def load(self, path: str, options: Mapping[str, Any]) -> Any:
        from skops import io

        return io.load(path, trusted=options.get("trusted"))
