"""What the command line sets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    """``size`` is that of the largest frame in MB, ``full`` asks for 20 GB streams."""

    size: float = 1000
    rounds: int = 3
    full: bool = False
