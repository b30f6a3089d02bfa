"""Where the project ends: what is in it is followed, what is outside counts by nothing."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import lru_cache

_INSTALLED = frozenset(("site-packages", "dist-packages"))


@lru_cache(maxsize=4096)
def is_inside(file: str | None) -> bool:
    """Tell whether a source file belongs to the user's code.

    It does unless it is of the standard library, of this package, of Spark, or installed in a
    ``site-packages`` folder; a package installed in editable mode belongs to it.
    """
    if not file or file.startswith("<"):
        return False
    path = os.path.abspath(file)
    if not _INSTALLED.isdisjoint(path.split(os.sep)):
        return False
    return not any(path.startswith(folder + os.sep) for folder in _outside())


@lru_cache(maxsize=1)
def _outside() -> tuple[str, ...]:
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(os.__file__))
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Spark puts its own Python files on the path of a driver without installing them.
    spark = os.environ.get("SPARK_HOME")
    found = {own, *standard, *(os.path.realpath(f) for f in standard), *([spark] if spark else [])}
    return tuple(sorted(found))


def is_outside_package(name: str) -> bool:
    """Tell whether a top-level module is installed or built in, without importing it."""
    if name in sys.stdlib_module_names:
        return True
    module = sys.modules.get(name)
    if module is not None:
        spec_file = getattr(module, "__file__", None)
        return spec_file is not None and not is_inside(spec_file)
    return _found_outside(name)


@lru_cache(maxsize=1024)
def _found_outside(name: str) -> bool:
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return False
    origin = spec.origin if spec is not None else None
    return origin is not None and not is_inside(origin)
