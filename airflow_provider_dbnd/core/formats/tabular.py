"""The part that file formats of tables share: containers on one side, a local file on the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from airflow_provider_dbnd.core.formats.base import Format, Written, reject_unknown_options
from airflow_provider_dbnd.core.formats.containers import container_for_type, container_for_value
from airflow_provider_dbnd.core.formats.fingerprint import CHECKSUM_SCHEME, Fingerprint, corrupted
from airflow_provider_dbnd.core.formats.frames import Outgoing, Stored

#: Options of reading: some columns, a range of rows (start, stop).
READ_OPTIONS = ("columns", "rows")


class TabularFormat(Format):
    """A format that stores Arrow batches together with their fingerprint."""

    name: str
    write_options: tuple[str, ...] = ()

    @override
    def write(
        self, value: Any, path: str, *, options: Mapping[str, Any], type_: Any = None
    ) -> Written:
        reject_unknown_options(self.name, options, self.write_options)
        outgoing = container_for_value(value).outgoing(value)
        fingerprint = self.write_batches(outgoing, path, options)
        return self.written(path, fingerprint)

    def written(self, path: str, fingerprint: Fingerprint) -> Written:
        """Describe the file at *path*."""
        return Written(
            digest=fingerprint.digest,
            checksum=self.checksum(path, fingerprint),
            rows=fingerprint.rows,
            schema=fingerprint.schema,
        )

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
        reject_unknown_options(self.name, options, READ_OPTIONS)
        stored = self.open(path, checksum=checksum, digest=digest)
        return container_for_type(type_).incoming(stored, options)

    def checksum(self, path: str, fingerprint: Fingerprint) -> str:  # noqa: ARG002
        """Return what covers the stored bytes; the fingerprint does where all reading uses it."""
        return fingerprint.checksum

    @abstractmethod
    def write_batches(
        self, outgoing: Outgoing, path: str, options: Mapping[str, Any]
    ) -> Fingerprint:
        """Write all batches and, as metadata, the fingerprint taken on the way."""

    @abstractmethod
    def open(self, path: str, *, checksum: str | None, digest: str | None) -> Stored:
        """Open a file and check its fingerprint; the data is checked as it is read."""


def check_fingerprint(
    fingerprint: Fingerprint | None, *, path: str, checksum: str | None, digest: str | None
) -> None:
    """Compare a file's fingerprint with the reference to it."""
    promised = checksum if checksum and checksum.startswith(CHECKSUM_SCHEME) else None
    if fingerprint is None:
        if promised or digest:
            raise corrupted(path, f"fingerprint {promised or digest}", "none")
        return
    if promised and fingerprint.checksum != promised:
        raise corrupted(path, f"checksum {promised}", fingerprint.checksum)
    if digest and fingerprint.digest != digest:
        raise corrupted(path, f"digest {digest}", fingerprint.digest)
