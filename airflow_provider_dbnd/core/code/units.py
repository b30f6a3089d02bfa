"""The things that a function reaches, each once, in the order in which they are met."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from airflow_provider_dbnd.core.digest import bytes_digest, digest_of

_NUMBER = re.compile("\x02(\\d+)\x03")


@dataclass(frozen=True)
class _Unit:
    label: str
    text: Callable[[], str]
    held: Any


class Units:
    """Numbered texts that refer to one another by number.

    So neither the names of modules nor cycles matter, and all texts together are equal when, and
    only when, everything that was reached is.
    """

    def __init__(self) -> None:
        self._units: list[_Unit] = []
        self._numbers: dict[Hashable, int] = {}
        self._labels: dict[str, int] = {}
        self._texts: list[str] = []

    def number(self, key: Hashable, label: str, held: Any, text: Callable[[str], str]) -> str:
        """Return the reference to a thing, which is added at its first mention.

        :param label: its name for people, which may get a number of its own
        :param held: stays alive, as *key* may hold its id
        :param text: returns its content, given the final label
        """
        number = self._numbers.get(key)
        if number is None:
            count = self._labels[label] = self._labels.get(label, 0) + 1
            label = label if count == 1 else f"{label} #{count}"
            number = self._numbers[key] = len(self._units)
            self._units.append(_Unit(label, lambda: text(label), held))
        return f"\x02{number}\x03"

    def complete(self) -> None:
        """Get the texts of all things; each may add more."""
        while len(self._texts) < len(self._units):
            self._texts.append(self._units[len(self._texts)].text())

    def digest(self) -> str:
        """Return the digest of everything."""
        return digest_of(text.encode() for text in self._texts).hex()

    def parts(self) -> dict[str, str]:
        """Return a short digest of each thing by its label."""

        def labelled(match: re.Match[str]) -> str:
            return self._units[int(match[1])].label

        return {
            unit.label: bytes_digest(_NUMBER.sub(labelled, text).encode())[:12]
            for unit, text in zip(self._units, self._texts, strict=True)
        }
