"""What a format is: it writes one local file and reads it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from airflow_provider_dbnd.core.digest import file_checksum
from airflow_provider_dbnd.exceptions import FormatError

#: The one option every format is given on reading; only formats that run code heed it.
ALLOW_PICKLE = "allow_pickle"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a reference says about a file just written.

    ``checksum`` is "blake3:<hex>" of the file's bytes, or in a scheme of the format's own, which
    the format then verifies itself when it reads. ``tail`` is how many bytes at the end of the file
    cover all others, where some do.
    """

    digest: str
    checksum: str
    rows: int | None = None
    schema: tuple[tuple[str, str], ...] | None = None
    tail: int = 0


@runtime_checkable
class Format(Protocol):
    """A file format. Instances are stateless; register one with :func:`register_format`."""

    name: str

    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        """Write *value* to the local file *path*.

        :param type_: the producer's annotation, for formats that restore a value by it
        """

    def read(
        self,
        path: str,
        type_: Any,
        *,
        options: Mapping[str, Any],
        checksum: str | None = None,
        digest: str | None = None,
    ) -> Any:
        """Read the local file *path* as *type_*, verifying what *checksum* and *digest* promise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A file that is about to be written.

    ``stem`` names its data and the form that is stored, where they are known before. ``write`` makes
    the file, and tells how many of its bytes are there that will not change any more.
    """

    stem: str | None
    write: Callable[[str, Callable[[int], None]], Written]


@runtime_checkable
class Drafts(Format, Protocol):
    """A format that has its files named, and sent, before all of their bytes are there."""

    def draft(self, value: Any, *, options: Mapping[str, Any]) -> Draft:
        """Prepare to write *value*; a stream has begun then."""


def file_written(path: str, digest: str) -> Written:
    """Describe a file that is covered by the checksum of its bytes."""
    return Written(digest=digest, checksum=file_checksum(path))


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are the format's, without the permission to unpickle."""
    return {name: option for name, option in options.items() if name != ALLOW_PICKLE}


def reject_unknown_options(
    format_name: str, options: Mapping[str, Any], allowed: tuple[str, ...] = ()
) -> None:
    """Refuse options the format does not have."""
    unknown = sorted(set(own_options(options)) - set(allowed))
    if unknown:
        known = ", ".join(allowed) or "none"
        raise FormatError(
            f"format {format_name!r} has no option {', '.join(map(repr, unknown))}; it has: {known}"
        )
