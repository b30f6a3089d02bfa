"""What every format must do; a test class of a format inherits :class:`FormatContract`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd.core.digest import FILE_SCHEME, file_checksum
from airflow_provider_dbnd.core.formats import Written, format_for_input, format_for_output
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, FormatError


def write(name: str, value: Any, path: Path, type_: Any = None, **options: Any) -> Written:
    format_, _ = format_for_output(type_ or type(value), medium="local", name=name)
    return format_.write(value, str(path), options=options, type_=type_)


def read(name: str, path: Path, type_: Any, written: Written | None = None, **options: Any) -> Any:
    format_ = format_for_input(type_, format=name, extension=None)
    if written is None:
        return format_.read(str(path), type_, options=options)
    return format_.read(
        str(path), type_, options=options, checksum=written.checksum, digest=written.digest
    )


def verify_like_the_store(path: Path, written: Written) -> None:
    """The store checks "blake3:" itself before it lets a format read."""
    if written.checksum.startswith(FILE_SCHEME) and file_checksum(path) != written.checksum:
        raise ArtifactCorruptedError(f"{path} differs from {written.checksum}")


class FormatContract:
    """Override the attributes and, for values without ``==``, :meth:`assert_equal`."""

    name: str
    read_options: dict[str, Any] = {}

    def values(self) -> list[Any]:
        """Some values, all different."""
        raise NotImplementedError

    def type_of(self, value: Any) -> Any:
        return type(value)

    def assert_equal(self, expected: Any, found: Any) -> None:
        assert type(found) is type(expected)
        assert found == expected

    def round_trip(self, value: Any, path: Path) -> Any:
        written = write(self.name, value, path, self.type_of(value))
        verify_like_the_store(path, written)
        return read(self.name, path, self.type_of(value), written, **self.read_options)

    def test_a_value_comes_back_equal(self, tmp_path: Path) -> None:
        for number, value in enumerate(self.values()):
            self.assert_equal(value, self.round_trip(value, tmp_path / str(number)))

    def test_digest_is_the_same_each_time_and_differs_between_values(self, tmp_path: Path) -> None:
        def digests() -> list[str]:
            return [
                write(self.name, value, tmp_path / "f", self.type_of(value)).digest
                for value in self.values()
            ]

        first = digests()

        assert first == digests()
        assert len(set(first)) == len(first)
        assert all(len(digest) == 32 and int(digest, 16) >= 0 for digest in first)

    def test_a_changed_byte_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        value = self.values()[0]
        written = write(self.name, value, path, self.type_of(value))
        good = path.read_bytes()
        for position in range(0, len(good), max(1, len(good) // 60)):
            path.write_bytes(
                good[:position] + bytes([good[position] ^ 0x20]) + good[position + 1 :]
            )
            self._assert_refused_or_unharmed(value, path, written)

    def test_a_truncated_file_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        value = self.values()[0]
        written = write(self.name, value, path, self.type_of(value))
        good = path.read_bytes()
        for length in (0, 1, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:length])
            with pytest.raises(ArtifactCorruptedError, match=str(path)):
                self._verified_read(value, path, written)

    def test_an_option_it_does_not_have_is_refused(self, tmp_path: Path) -> None:
        value = self.values()[0]

        with pytest.raises(FormatError, match="colour"):
            write(self.name, value, tmp_path / "f", self.type_of(value), colour="red")

    def _verified_read(self, value: Any, path: Path, written: Written) -> Any:
        verify_like_the_store(path, written)
        return read(self.name, path, self.type_of(value), written, **self.read_options)

    def _assert_refused_or_unharmed(self, value: Any, path: Path, written: Written) -> None:
        """Bytes that mean nothing (padding) may change; a value that differs must not get out."""
        with contextlib.suppress(ArtifactCorruptedError):
            self.assert_equal(value, self._verified_read(value, path, written))
