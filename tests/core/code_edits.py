"""Edits of a project, and whether each makes another version of ``run`` in its flow.py.

They are in code_edits.txt, each under a line "## same: ..." or "## other: ...". The lines of one
begin with a space in both versions, with "-" in the first only, with "+" in the second only. Under
"== file" stands a whole file; under "@@ file" an edit of that file of ``BASE``, "..." between two
places in it.

``python code_edits.py FOLDER`` writes every version below FOLDER and prints all digests as JSON; it
needs no test framework.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core.code import CodeFingerprint, fingerprint

Files = Mapping[str, str]

BASE: Files = {
    "flow.py": '''"""A flow."""

import math
from datetime import timedelta

import helpers
import settings as conf
from helpers import clean as tidy
from models import Model
from pkg.deep import deepest
from stars import *

LIMIT = 10
RATES = {"a": 1, "b": 2}
WAIT = timedelta(hours=1)
PARTS = (1, [2, 3], {"x", "y"})


def scale(values, factor=2):
    """Scale values."""
    result = []
    for value in values:
        result.append(value * factor)
    return result


def unused():
    return 1


def run(values: list[int], top: int = 3) -> float:
    # Keep the small ones.
    kept = [v for v in tidy(values) if v < LIMIT]
    model = Model(conf.THRESHOLD)
    total = sum(scale(kept)) + deepest(top) + starred(1) + len(PARTS)
    if WAIT:
        total += helpers.weigh(total, RATES)
    return math.sqrt(total) + model.predict(total)
''',
    "helpers.py": """import logging
import re

import decorators
from pkg import Colour

log = logging.getLogger(__name__)
WORDS = re.compile("a+")
STEPS = {"strip": lambda text: text.strip(), "colour": Colour.RED}


@decorators.logged("weigh")
def weigh(total, rates, *, power: int = 1):
    def inner(x):
        return x ** power

    log.debug("weigh")
    return inner(sum(rates.values()) * total)


def clean(values):
    return [v for v in values if not WORDS.match(str(v)) and STEPS]
""",
    "decorators.py": """import functools


def logged(name):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return finish(function(*args, **kwargs), name)

        return wrapper

    return decorate


def finish(value, name):
    return value
""",
    "settings.py": """import os

BASE = 4
THRESHOLD = BASE * 2
UNUSED = 3
""",
    "models.py": """from dataclasses import dataclass

from bases import Base


@dataclass
class Model(Base):
    threshold: float = 0.5

    @property
    def doubled(self):
        return self.threshold * 2

    def predict(self, total):
        return self.prepare(total) > self.doubled
""",
    "bases.py": """class Root:
    def prepare(self, total):
        return total


class Base(Root):
    size = 3
""",
    "stars.py": """def starred(x):
    return x + OFFSET


OFFSET = 1
""",
    "pkg/__init__.py": """import enum


class Colour(enum.Enum):
    RED = 1
    BLUE = 2
""",
    "pkg/deep.py": """from . import deeper


def deepest(n):
    from .lazy import late

    return deeper.level(n) if n else late(n)
""",
    "pkg/deeper.py": """def level(n):
    return n if n < 1 else other(n - 1)


def other(n):
    return level(n - 1) + 1
""",
    "pkg/lazy.py": """def late(n):
    return -n
""",
}


@dataclass(frozen=True)
class Edit:
    """One edit: two versions of a project, and whether ``flow.run`` is the same in both."""

    name: str
    before: Files
    after: Files
    same: bool


def edits(text: str) -> Iterator[Edit]:
    """Read a table of edits."""
    for block in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = block.partition("\n")
        verdict, _, name = title.partition(": ")
        assert verdict in ("same", "other"), title
        of_base = body.startswith("@@ ")
        before, after = (dict(BASE), dict(BASE)) if of_base else ({}, {})
        for part in re.split(r"^(?:==|@@) ", body, flags=re.MULTILINE)[1:]:
            file, _, lines = part.rstrip("\n").partition("\n")
            if of_base:
                after[file] = applied(lines, BASE.get(file, ""), name)
            else:
                before[file], after[file] = side(lines, "-"), side(lines, "+")
        yield Edit(name, present(before), present(after), verdict == "same")


def side(lines: str, mark: str) -> str:
    kept = [line for line in lines.split("\n") if not line or line[0] in f" {mark}"]
    return "".join(f"{line[1:]}\n" for line in kept)


def applied(hunks: str, text: str, name: str) -> str:
    for hunk in re.split(r"\n\.\.\.\n", hunks):
        old, new = side(hunk, "-"), side(hunk, "+")
        assert f"\n{text}".count(f"\n{old}") == 1, (name, old)
        text = f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:]
    return text


def present(files: Files) -> Files:
    return {name: text for name, text in files.items() if text}


EDITS = list(edits(Path(__file__).with_suffix(".txt").read_text()))


def write(files: Files, folder: Path) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@contextlib.contextmanager
def loaded(folder: Path, name: str = "flow") -> Iterator[Any]:
    """Import a module from a folder as if nothing had been imported from another one before."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    sys.dont_write_bytecode, written = True, sys.dont_write_bytecode
    try:
        yield importlib.import_module(name)
    finally:
        sys.dont_write_bytecode = written
        sys.path.remove(str(folder))
        for new in set(sys.modules) - before:
            if str(folder) in (getattr(sys.modules[new], "__file__", None) or ""):
                del sys.modules[new]


def fingerprint_in(folder: Path, **options: Any) -> CodeFingerprint:
    """Return the fingerprint of ``run`` in the flow.py of a folder."""
    with loaded(folder) as module:
        return fingerprint(module.run, **options)


if __name__ == "__main__":
    digests = {}
    for number, edit in enumerate(EDITS):
        for side, files in (("before", edit.before), ("after", edit.after)):
            folder = write(files, Path(sys.argv[1], str(number), side))
            try:
                digests[f"{edit.name}: {side}"] = fingerprint_in(folder).digest
            except (ImportError, SyntaxError) as error:
                digests[f"{edit.name}: {side}"] = type(error).__name__
    print(json.dumps(digests))
