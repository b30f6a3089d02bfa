"""The "did you mean" half of an error message."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


def closest(name: str, known: Collection[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that *name* most likely is a slip of.

    >>> closest("ratio", ["prepare.ratio", "raw"]), closest("x", ["ratio"])
    ('prepare.ratio', None)
    """
    # A parameter given without its task is the commonest slip.
    spelled = {each.rpartition(".")[2]: each for each in sorted(known)}
    spelled |= {each: each for each in known}
    close = difflib.get_close_matches(name, sorted(spelled), n=1, cutoff=cutoff)
    return spelled[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" or, where nothing is close, the list of what exists.

    >>> did_you_mean("tresh", ["thresh", "n"])
    "; did you mean 'thresh'?"
    """
    known = sorted(known)
    close = closest(name, known)
    if close is not None:
        return f"; did you mean {close!r}?"
    return f"; there are: {', '.join(known)}." if known else "; there are none."
