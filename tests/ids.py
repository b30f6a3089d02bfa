"""Names of parametrized tests: the same in each process that pytest-xdist starts."""

from __future__ import annotations

import re
from typing import Any


def shown(value: Any) -> str:
    """Return the start of *value* as text, without the address that an object's text may hold."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:60]
