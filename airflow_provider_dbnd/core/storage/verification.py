"""Whether what a store holds is what a reference promises."""

from __future__ import annotations

from airflow_provider_dbnd.core.storage.filesystem import parse, redact
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, ArtifactNotFoundError

_REMEDY_FOR_DAMAGED = "Delete it and run the task that makes it again"


def expect_size(uri: str, found: int | None, expected: int) -> None:
    """Raise an error where the object at *uri* is gone, or has not the bytes it should have."""
    if found is None:
        raise ArtifactNotFoundError(f"{uri} was there and is not any more; run the task again")
    if found != expected:
        raise ArtifactCorruptedError(
            f"{redact(uri)} is damaged or was changed: expected {expected} bytes, "
            f"found {found}. {_REMEDY_FOR_DAMAGED}"
        )


def verify_checksum(uri: str, path: str, checksum: str | None) -> None:
    """Raise ArtifactCorruptedError where the bytes of file *path* are not those of *checksum*.

    Only ``blake3:`` is one of bytes; others are verified by who reads the file.
    """
    if checksum is None or not checksum.startswith("blake3:"):
        return
    from airflow_provider_dbnd.core.digest import file_checksum

    found = file_checksum(path)
    if found != checksum:
        raise ArtifactCorruptedError(
            f"{redact(uri)} is damaged or was changed: expected {checksum}, found {found}. "
            f"{_REMEDY_FOR_DAMAGED}"
        )


def remedy_for_missing(uri: str, base: str = "") -> str:
    """Return what to do where nothing is at *uri*; *base* is where a relative path started."""
    if parse(uri).scheme == "file" and not base:
        return (
            "A local store is not shared between workers: if it was written on another machine, "
            "set [dbnd] store to a bucket or a shared folder; if it was deleted, run the task that "
            "makes it again"
        )
    if base:
        return f"Relative paths start from {redact(base)}"
    return "If it was deleted, run the task that makes it again"
