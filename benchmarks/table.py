"""A measured row, and the table of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "MISS", "aim", "-"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement: a ratio of ours to another way where nothing else is said; lower is better.

    ``must`` and ``aim`` are the largest values that reach the target; without them a row only informs.
    """

    subject: str
    what: str
    value: float
    unit: str = "x"
    must: float | None = None
    aim: float | None = None
    detail: str = ""

    @property
    def verdict(self) -> Verdict:
        """Tell how the value compares with its targets."""
        if self.must is None:
            return "-"
        if self.value > self.must:
            return "MISS"
        return "aim" if self.aim is not None and self.value <= self.aim else "pass"

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        return (
            self.what,
            number(self.value, self.unit),
            "" if self.must is None else f"<= {number(self.must, self.unit)}",
            "" if self.aim is None else number(self.aim, self.unit),
            self.verdict,
            self.detail,
        )


HEAD = ("what", "ours", "must", "aim", "verdict", "medians")


def number(value: float, unit: str) -> str:
    """Write a value with its unit, to three digits.

    >>> number(0.0512, "x"), number(1234, "MB"), number(3.14159, "s")
    ('0.051x', '1234 MB', '3.14 s')
    """
    text = (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
        if abs(value) < 1
        else f"{value:.2f}"
    )
    text = f"{value:.2g}" if abs(value) < 0.1 else text
    return f"{text}{unit}" if unit == "x" else f"{text} {unit}"


def markdown(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table, aligned to be read as text too."""
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def seconds(value: float) -> str:
    """Write a duration.

    >>> seconds(0.0123), seconds(12.3)
    ('12.3 ms', '12.3 s')
    """
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
