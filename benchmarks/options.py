"""What the command line sets."""

from __future__ import annotations

from dataclasses import dataclass

FULL_SIZE = 1000
QUICK_SIZE = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """``size`` is that of the largest frame in MB, ``full`` asks for 20 GB streams."""

    size: float = FULL_SIZE
    rounds: int = 3
    full: bool = False

    def more(self, factor: int) -> int:
        """Return more rounds for what is quick, unless everything is to be."""
        return self.rounds * factor if self.size >= QUICK_SIZE else self.rounds

    def target(self, value: float) -> float | None:
        """Return a target that is set for 1 GB: smaller frames inform only."""
        return value if self.size >= FULL_SIZE else None
