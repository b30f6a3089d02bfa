"""Sorted lines on disk: sets of a million names in the memory of a few."""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack

#: Lines sorted in memory at once, some 30 MB of them.
CHUNK = 100_000


class Spool:
    """Lines that are added in any order and read sorted, equal ones once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lines: set[str] = set()
        self._files: list[str] = []

    def add(self, *fields: object) -> None:
        """Add a line of *fields*, none of which has a tab or a line break."""
        self._lines.add("\t".join(map(str, fields)))
        if len(self._lines) >= CHUNK:
            self._flush()

    def __iter__(self) -> Iterator[list[str]]:
        """Yield the fields of each line, sorted by the first, then the second..."""
        self._flush()
        with ExitStack() as stack:
            files = [stack.enter_context(open(f, encoding="utf-8")) for f in self._files]
            last = None
            for line in heapq.merge(*files, key=_fields):
                if line != last:
                    yield _fields(line)
                last = line

    def _flush(self) -> None:
        if not self._lines:
            return
        descriptor, path = tempfile.mkstemp(dir=self._folder)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in sorted(self._lines, key=_fields))
        self._files.append(os.path.join(self._folder, path))
        self._lines = set()


class Among:
    """Tells of ascending names whether they are in a spool, reading that once."""

    def __init__(self, spool: Spool) -> None:
        self._names = iter(spool)
        self._next: str | None = ""
        self._advance()

    def __contains__(self, name: str) -> bool:
        while self._next is not None and self._next < name:
            self._advance()
        return self._next == name

    def _advance(self) -> None:
        self._next = next(self._names, [None])[0]


def _fields(line: str) -> list[str]:
    return line.rstrip("\n").split("\t")
