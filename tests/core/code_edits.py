"""Edits of a project, and whether each is another version of its ``run``; no test framework needed.

``python code_edits.py FOLDER`` writes every version below FOLDER and prints all digests as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
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


EDITS: list[Edit] = []


def base(file: str, old: str, new: str, *, same: bool, name: str) -> None:
    assert BASE[file].count(old) == 1, (name, BASE[file].count(old))
    after = {**BASE, file: BASE[file].replace(old, new)}
    EDITS.append(Edit(name, BASE, after, same))


def flow(before: str, after: str, *, same: bool, name: str, **files: str | tuple[str, str]) -> None:
    """Two versions of flow.py; *files* are other modules, as one text or as two."""
    pairs = {"flow": (before, after), **files}
    sides = [
        {
            f"{module}.py": each if isinstance(each, str) else each[i]
            for module, each in pairs.items()
        }
        for i in (0, 1)
    ]
    EDITS.append(Edit(name, sides[0], sides[1], same))


# What does not count --------------------------------------------------------------------------

base("flow.py", "# Keep the small ones.", "# Keep those below.", same=True, name="a comment")
base("flow.py", "    # Keep the small ones.\n", "", same=True, name="a comment removed")
base("flow.py", '"""Scale values."""', '"""Scale the values."""', same=True, name="a docstring")
base("flow.py", '    """Scale values."""\n', "", same=True, name="a docstring removed")
base("flow.py", '"""A flow."""\n', "", same=True, name="a module docstring removed")
base("flow.py", "\n\nLIMIT", "\n\n\n\n\nLIMIT", same=True, name="blank lines above")
base(
    "flow.py",
    "value * factor",
    "(\n            value\n            * factor\n        )",
    same=True,
    name="formatting",
)
base(
    "flow.py",
    '{"a": 1, "b": 2}',
    "{'a': 1, 'b': 2,}",
    same=True,
    name="quotes and a trailing comma",
)
base("flow.py", "LIMIT = 10", "LIMIT = 0xA", same=True, name="a constant written in another base")
base(
    "flow.py",
    "LIMIT = 10",
    "LIMIT = 5 + 5",
    same=True,
    name="a constant computed to the same value",
)
base("flow.py", "LIMIT = 10", "LIMIT: int = 10", same=True, name="a constant annotated")
base("flow.py", "timedelta(hours=1)", "timedelta(minutes=60)", same=True, name="an equal timedelta")
base("flow.py", '{"x", "y"}', '{"y", "x"}', same=True, name="a set written in another order")
base(
    "settings.py",
    "THRESHOLD = BASE * 2",
    "THRESHOLD = 8",
    same=True,
    name="a constant not computed any more",
)
base("settings.py", "UNUSED = 3", "UNUSED = 4", same=True, name="a constant nobody uses")
base("settings.py", "import os\n", "", same=True, name="an unused import removed")
base("flow.py", "    return 1", "    return 2", same=True, name="a function nobody calls")
base(
    "flow.py", "def unused():\n    return 1\n\n\n", "", same=True, name="an unused function removed"
)
base(
    "flow.py",
    "def unused",
    "def added():\n    return 1\n\n\ndef unused",
    same=True,
    name="a function added",
)
base(
    "flow.py",
    "    kept = [v for v in tidy(values) if v < LIMIT]",
    "    kept = [each for each in tidy(values) if each < LIMIT]",
    same=True,
    name="a variable of a comprehension renamed",
)
EDITS.append(
    Edit(
        "local variables renamed",
        BASE,
        {
            **BASE,
            "flow.py": BASE["flow.py"]
            .replace("kept", "small")
            .replace("total", "result_")
            .replace("model.", "m.")
            .replace("model =", "m ="),
        },
        True,
    )
)
EDITS.append(
    Edit(
        "a loop variable renamed",
        BASE,
        {
            **BASE,
            "flow.py": BASE["flow.py"]
            .replace("for value in", "for each in")
            .replace("(value *", "(each *"),
        },
        True,
    )
)
EDITS.append(
    Edit(
        "an import alias renamed",
        BASE,
        {
            **BASE,
            "flow.py": BASE["flow.py"].replace("as tidy", "as neat").replace("tidy(", "neat("),
        },
        True,
    )
)
EDITS.append(
    Edit(
        "from-import instead of import",
        BASE,
        {
            **BASE,
            "flow.py": BASE["flow.py"]
            .replace("import settings as conf", "from settings import THRESHOLD")
            .replace("conf.THRESHOLD", "THRESHOLD"),
        },
        True,
    )
)
EDITS.append(
    Edit(
        "from math import sqrt",
        BASE,
        {
            **BASE,
            "flow.py": BASE["flow.py"]
            .replace("import math", "from math import sqrt")
            .replace("math.sqrt", "sqrt"),
        },
        True,
    )
)
EDITS.append(
    Edit(
        "a star import spelled out",
        BASE,
        {
            **BASE,
            "flow.py": BASE["flow.py"].replace("from stars import *", "from stars import starred"),
        },
        True,
    )
)
EDITS.append(
    Edit(
        "a module renamed",
        BASE,
        {
            **{k: v for k, v in BASE.items() if k != "stars.py"},
            "galaxy.py": BASE["stars.py"],
            "flow.py": BASE["flow.py"].replace("from stars", "from galaxy"),
        },
        True,
    )
)
EDITS.append(
    Edit(
        "a constant renamed",
        BASE,
        {**BASE, "flow.py": BASE["flow.py"].replace("LIMIT", "MAXIMUM")},
        True,
    )
)
EDITS.append(
    Edit(
        "a helper moved to another module",
        BASE,
        {
            **BASE,
            "flow.py": BASE["flow.py"].replace(
                "from stars import *", "from settings import starred"
            ),
            "settings.py": BASE["settings.py"] + BASE["stars.py"],
        },
        True,
    )
)
base(
    "pkg/deeper.py",
    "def level(n):\n    return n if n < 1 else other(n - 1)\n\n\ndef other(n):\n    return level(n - 1) + 1\n",
    "def other(n):\n    return level(n - 1) + 1\n\n\ndef level(n):\n    return n if n < 1 else other(n - 1)\n",
    same=True,
    name="functions reordered",
)
base(
    "flow.py",
    "import helpers\nimport settings as conf\n",
    "import settings as conf\nimport helpers\n",
    same=True,
    name="imports reordered",
)
base(
    "helpers.py",
    '    log.debug("weigh")\n',
    '    log.debug("weigh")\n    pass\n',
    same=True,
    name="pass",
)
base(
    "models.py",
    "class Model(Base):\n",
    'class Model(Base):\n    """A model."""\n\n',
    same=True,
    name="a class docstring",
)
base("helpers.py", 're.compile("a+")', 're.compile("a" + "+")', same=True, name="an equal regex")
base(
    "pkg/deep.py",
    "from . import deeper",
    "from pkg import deeper",
    same=True,
    name="an absolute import instead of a relative one",
)
base(
    "flow.py",
    "if WAIT:\n        total += helpers.weigh(total, RATES)",
    "if WAIT: total += getattr(helpers, 'weigh')(total, RATES)",
    same=True,
    name="getattr with the name written out",
)
base(
    "flow.py",
    "def run(",
    "if __name__ == '__main__':\n    print(run([1]))\n\n\ndef run(",
    same=True,
    name="a main guard",
)

# What counts ----------------------------------------------------------------------------------

base(
    "flow.py",
    "math.sqrt(total)",
    "math.cbrt(total)",
    same=False,
    name="another function of a library",
)
base("flow.py", "v < LIMIT", "v <= LIMIT", same=False, name="an operator")
base("flow.py", "LIMIT = 10", "LIMIT = 11", same=False, name="a constant")
base("flow.py", "LIMIT = 10", "LIMIT = 10.0", same=False, name="a constant of another type")
base(
    "flow.py", "LIMIT = 10", "LIMIT = True", same=False, name="a constant that is equal but a bool"
)
base("flow.py", '"b": 2', '"b": 3', same=False, name="a value in a dict")
base("flow.py", '{"a": 1, "b": 2}', '{"b": 2, "a": 1}', same=False, name="the order of a dict")
base("flow.py", "(1, [2, 3]", "(1, [3, 2]", same=False, name="the order of a list in a tuple")
base("flow.py", "(1, [2, 3]", "(1, (2, 3)", same=False, name="a list made a tuple")
base("flow.py", '{"x", "y"}', '{"x", "z"}', same=False, name="an element of a set")
base("flow.py", "timedelta(hours=1)", "timedelta(hours=2)", same=False, name="a timedelta")
base("flow.py", "factor=2", "factor=3", same=False, name="a default of a helper")
base("flow.py", "top: int = 3", "top: int = 4", same=False, name="a default of the function")
base("flow.py", "top: int", "top: float", same=False, name="an annotation")
base("flow.py", "value * factor", "value / factor", same=False, name="a helper's body")
base("flow.py", "kept = [v ", "kept = [v + 1 ", same=False, name="a comprehension's body")
base("flow.py", "sum(scale(kept))", "max(scale(kept))", same=False, name="another builtin")
base(
    "flow.py",
    "sum(scale(kept)) + deepest(top)",
    "deepest(top) + sum(scale(kept))",
    same=False,
    name="the order of calls",
)
base("flow.py", "scale(kept)", "tidy(kept)", same=False, name="another helper called")
base("helpers.py", "x ** power", "x * power", same=False, name="a nested function")
base(
    "helpers.py",
    "power: int = 1",
    "power: int = 2",
    same=False,
    name="a keyword default of a decorated helper",
)
base("helpers.py", '"weigh")\ndef', '"heavy")\ndef', same=False, name="an argument of a decorator")
base("helpers.py", '@decorators.logged("weigh")\n', "", same=False, name="a decorator removed")
base(
    "decorators.py",
    "return finish(function(*args, **kwargs), name)",
    "return function(*args, **kwargs)",
    same=False,
    name="a decorator's wrapper",
)
base(
    "decorators.py",
    "    return value\n",
    "    return value + 1\n",
    same=False,
    name="what a decorator's wrapper calls",
)
base("helpers.py", '"a+"', '"b+"', same=False, name="a regex")
base("helpers.py", '"a+"', '"a+", re.I', same=False, name="a regex's flags")
base("helpers.py", "text.strip()", "text.lstrip()", same=False, name="a lambda in a dict")
base("helpers.py", "Colour.RED", "Colour.BLUE", same=False, name="another member of an enum")
base("pkg/__init__.py", "RED = 1", "RED = 3", same=False, name="the value of an enum's member")
base("settings.py", "BASE = 4", "BASE = 5", same=False, name="what a constant is computed from")
base(
    "models.py",
    "self.threshold * 2",
    "self.threshold * 3",
    same=False,
    name="a property of a class",
)
base("models.py", "> self.doubled", ">= self.doubled", same=False, name="a method")
base(
    "models.py",
    "threshold: float = 0.5",
    "threshold: float = 0.6",
    same=False,
    name="a field's default",
)
base(
    "models.py",
    "@dataclass\n",
    "@dataclass(frozen=True)\n",
    same=False,
    name="an option of a class decorator",
)
base("models.py", "(Base)", "", same=False, name="a base class removed")
base("bases.py", "return total", "return -total", same=False, name="a method of a base's base")
base("bases.py", "size = 3", "size = 4", same=False, name="an attribute of a base class")
base("stars.py", "OFFSET = 1", "OFFSET = 2", same=False, name="a constant behind a star import")
base("stars.py", "x + OFFSET", "x - OFFSET", same=False, name="a function behind a star import")
base(
    "pkg/deeper.py",
    "level(n - 1) + 1",
    "level(n - 1) + 2",
    same=False,
    name="a helper four calls down, in a cycle",
)
base("pkg/lazy.py", "-n", "+n", same=False, name="a module imported in a function")
base(
    "flow.py",
    "import math\n",
    "import cmath as math\n",
    same=False,
    name="another library under the same name",
)

# Versions of one file -----------------------------------------------------------------------

flow(
    "def run(a):\n    b = 1\n    c = 2\n    return a + b - c\n",
    "def run(a):\n    c = 1\n    b = 2\n    return a + b - c\n",
    same=False,
    name="two locals swapped",
)
flow(
    "def run(a):\n    return a\n",
    "def run(b):\n    return b\n",
    same=False,
    name="a parameter renamed: callers may name it",
)
flow(
    "def run(a):\n    x = a\n    return a.query('v > @x')\n",
    "def run(a):\n    y = a\n    return a.query('v > @x')\n",
    same=False,
    name="a local renamed that a string names",
)
flow(
    "def run(a):\n    x = a\n    y = 2\n    return eval('x')\n",
    "def run(a):\n    y = a\n    x = 2\n    return eval('x')\n",
    same=False,
    name="locals swapped that eval sees",
)
flow(
    "def run(a):\n    x = a\n    del x\n    return locals()\n",
    "def run(a):\n    y = a\n    del y\n    return locals()\n",
    same=False,
    name="a local renamed that locals() sees",
)
flow(
    "def run(a):\n    try:\n        a()\n    except ValueError as e:\n        return str(e)\n",
    "def run(a):\n    try:\n        a()\n    except ValueError as error:\n        return str(error)\n",
    same=True,
    name="an exception's name",
)
flow(
    "def run(a):\n    with a as b, a:\n        for (x, *y), z in b:\n            print(x, y, z)\n",
    "def run(a):\n    with a as f, a:\n        for (i, *j), k in f:\n            print(i, j, k)\n",
    same=True,
    name="targets renamed",
)
flow(
    "def run(a):\n    match a:\n        case [x, *rest] | {'k': x, **rest}:\n            return x, rest\n",
    "def run(a):\n    match a:\n        case [head, *tail] | {'k': head, **tail}:\n            return head, tail\n",
    same=True,
    name="names in a match statement",
)
flow(
    "def run(a):\n    match a:\n        case [x, _]:\n            return x\n",
    "def run(a):\n    match a:\n        case [_, x]:\n            return x\n",
    same=False,
    name="a match pattern",
)
flow(
    "def run(a):\n    if (n := len(a)) > 1:\n        return n\n",
    "def run(a):\n    if (m := len(a)) > 1:\n        return m\n",
    same=True,
    name="a walrus",
)
flow(
    "def run(a):\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n    up()\n    return n\n",
    "def run(a):\n    k = 0\n    def up():\n        nonlocal k\n        k += 1\n    up()\n    return k\n",
    same=True,
    name="a nonlocal renamed",
)
flow(
    "def run(a):\n    return sorted(a, key=lambda r: r[0])\n",
    "def run(a):\n    return sorted(a, key=lambda r: r[1])\n",
    same=False,
    name="a lambda",
)
flow(
    "def run(a):\n    return f'{a!r:>10} x'\n",
    "def run(a):\n    return f'{a!r:>11} x'\n",
    same=False,
    name="an f-string's format",
)
flow(
    "def run(a):\n    return f'{a}' 'b' f'{a}'\n",
    "def run(a):\n    return f'{a}b{a}'\n",
    same=True,
    name="an f-string joined",
)
flow(
    "def run(a):\n    return a\n",
    "def run(a):\n    yield a\n",
    same=False,
    name="a function made a generator",
)
flow(
    "def run(a, /, b):\n    return a\n",
    "def run(a, b):\n    return a\n",
    same=False,
    name="a positional-only parameter",
)
flow(
    "x = 1\ndef run(a):\n    x = 2\n    return [x for x in [x]]\n",
    "x = 3\ndef run(a):\n    x = 2\n    return [x for x in [x]]\n",
    same=True,
    name="a global that a local hides",
)
flow(
    "x = [1]\ndef run(a):\n    return [x for x in x]\n",
    "x = [2]\ndef run(a):\n    return [x for x in x]\n",
    same=False,
    name="a global iterated in a comprehension that hides it",
)
flow(
    "x = 1\nclass C:\n    y = x\n    def m(self):\n        return self.y\ndef run(a):\n    return C().m()\n",
    "x = 2\nclass C:\n    y = x\n    def m(self):\n        return self.y\ndef run(a):\n    return C().m()\n",
    same=False,
    name="a global read in a class body",
)
flow(
    "def make(n):\n    def add(x):\n        return x + n\n    return add\nadd = make(1)\ndef run(a):\n    return add(a)\n",
    "def make(n):\n    def add(x):\n        return x + n\n    return add\nadd = make(2)\ndef run(a):\n    return add(a)\n",
    same=False,
    name="a variable in a closure",
)
flow(
    "def make(f):\n    def add(x):\n        return f(x)\n    return add\ndef one(x):\n    return 1\nadd = make(one)\ndef run(a):\n    return add(a)\n",
    "def make(f):\n    def add(x):\n        return f(x)\n    return add\ndef one(x):\n    return 2\nadd = make(one)\ndef run(a):\n    return add(a)\n",
    same=False,
    name="a function in a closure",
)
flow(
    "fs = []\nfor i in range(2):\n    fs.append(lambda x, i=i: x * i)\ndef run(a):\n    return fs[1](a)\n",
    "fs = []\nfor i in range(3):\n    fs.append(lambda x, i=i: x * i)\ndef run(a):\n    return fs[1](a)\n",
    same=False,
    name="functions made in a loop",
)
flow(
    "from functools import partial\ndef f(x, y):\n    return x + y\ng = partial(f, 1)\ndef run(a):\n    return g(a)\n",
    "from functools import partial\ndef f(x, y):\n    return x + y\ng = partial(f, 2)\ndef run(a):\n    return g(a)\n",
    same=False,
    name="an argument of a partial",
)
flow(
    "from functools import partial\ndef f(x, y):\n    return x + y\ng = partial(f, 1)\ndef run(a):\n    return g(a)\n",
    "from functools import partial\ndef f(x, y):\n    return x - y\ng = partial(f, 1)\ndef run(a):\n    return g(a)\n",
    same=False,
    name="the function of a partial",
)
flow(
    "from functools import lru_cache\n@lru_cache(None)\ndef f(x):\n    return x\ndef run(a):\n    return f(a)\n",
    "from functools import lru_cache\n@lru_cache(None)\ndef f(x):\n    return -x\ndef run(a):\n    return f(a)\n",
    same=False,
    name="a cached helper",
)
flow(
    "from functools import lru_cache\ndef f(x):\n    return x\ng = lru_cache(None)(f)\ndef run(a):\n    return g(a)\n",
    "from functools import lru_cache\ndef f(x):\n    return x\ng = lru_cache(8)(f)\ndef run(a):\n    return g(a)\n",
    same=False,
    name="a wrapper made by a call",
)
flow(
    "from contextlib import contextmanager\n@contextmanager\ndef f():\n    yield 1\ndef run(a):\n    with f() as x:\n        return x\n",
    "from contextlib import contextmanager\n@contextmanager\ndef f():\n    yield 2\ndef run(a):\n    with f() as x:\n        return x\n",
    same=False,
    name="a context manager",
)
flow(
    "from functools import singledispatch\n@singledispatch\ndef f(x):\n    return 0\n@f.register\ndef _(x: int):\n    return 1\ndef run(a):\n    return f(a)\n",
    "from functools import singledispatch\n@singledispatch\ndef f(x):\n    return 0\n@f.register\ndef _(x: int):\n    return 2\ndef run(a):\n    return f(a)\n",
    same=False,
    name="a registered implementation of a generic function",
)
flow(
    "STEPS = {}\ndef step(f):\n    STEPS[f.__name__] = f\n    return f\n@step\ndef one(x):\n    return 1\ndef run(a):\n    return STEPS['one'](a)\n",
    "STEPS = {}\ndef step(f):\n    STEPS[f.__name__] = f\n    return f\n@step\ndef one(x):\n    return 2\ndef run(a):\n    return STEPS['one'](a)\n",
    same=False,
    name="a function in a registry",
)
flow(
    "TABLE = {}\ndef put(k, v):\n    TABLE[k] = v\nput('a', 1)\ndef run(a):\n    return TABLE[a]\n",
    "TABLE = {}\ndef put(k, v):\n    TABLE[k] = v\nput('a', 2)\ndef run(a):\n    return TABLE[a]\n",
    same=False,
    name="what a call put into a global",
)
flow(
    "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef run(a):\n    return P(1, 2)\n",
    "from collections import namedtuple\nP = namedtuple('P', 'y x')\ndef run(a):\n    return P(1, 2)\n",
    same=False,
    name="a named tuple",
)
flow(
    "class M:\n    def __init__(self, n):\n        self.n = n\nm = M(1)\ndef run(a):\n    return m.n\n",
    "class M:\n    def __init__(self, n):\n        self.n = n\nm = M(2)\ndef run(a):\n    return m.n\n",
    same=False,
    name="the statement that makes an object",
)
flow(
    "class M:\n    def f(self):\n        return 1\nm = M()\ndef run(a):\n    return m.f()\n",
    "class M:\n    def f(self):\n        return 2\nm = M()\ndef run(a):\n    return m.f()\n",
    same=False,
    name="the class of a global object",
)
flow(
    "class M:\n    pass\nm = M()\nm.n = 1\ndef run(a):\n    return m.n\n",
    "class M:\n    pass\nm = M()\nm.n = 2\ndef run(a):\n    return m.n\n",
    same=False,
    name="an attribute set on a global object",
)
flow(
    "def f(x):\n    return f.n\nf.n = 1\ndef run(a):\n    return f(a)\n",
    "def f(x):\n    return f.n\nf.n = 2\ndef run(a):\n    return f(a)\n",
    same=False,
    name="an attribute of a function",
)
flow(
    "class C:\n    pass\ndef m(self):\n    return 1\nC.m = m\ndef run(a):\n    return C().m()\n",
    "class C:\n    pass\ndef m(self):\n    return 2\nC.m = m\ndef run(a):\n    return C().m()\n",
    same=False,
    name="a method added to a class",
)
flow(
    "class A:\n    def g(self):\n        return 1\n    def f(self):\n        return self.g()\nm = A.f\ndef run(a):\n    return m(A)\n",
    "class A:\n    def g(self):\n        return 2\n    def f(self):\n        return self.g()\nm = A.f\ndef run(a):\n    return m(A)\n",
    same=False,
    name="what a method taken by itself calls",
)
flow(
    "class A:\n    @classmethod\n    def f(cls):\n        return 1\n    @staticmethod\n    def g():\n        return 2\nm = A.f\ndef run(a):\n    return m()\n",
    "class A:\n    @classmethod\n    def f(cls):\n        return 3\n    @staticmethod\n    def g():\n        return 2\nm = A.f\ndef run(a):\n    return m()\n",
    same=False,
    name="a bound class method",
)
flow(
    "class Meta(type):\n    n = 1\nclass C(metaclass=Meta):\n    pass\ndef run(a):\n    return C.n\n",
    "class Meta(type):\n    n = 2\nclass C(metaclass=Meta):\n    pass\ndef run(a):\n    return C.n\n",
    same=False,
    name="a metaclass",
)
flow(
    "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def wrapper(self):\n        return f(self) + 1\n    return wrapper\nclass C:\n    @deco\n    def m(self):\n        return 1\ndef run(a):\n    return C().m()\n",
    "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def wrapper(self):\n        return f(self) + 2\n    return wrapper\nclass C:\n    @deco\n    def m(self):\n        return 1\ndef run(a):\n    return C().m()\n",
    same=False,
    name="a decorator of a method",
)
flow(
    "class M:\n    n = 1\ndef run(a: 'M'):\n    return a.n\n",
    "class M:\n    n = 2\ndef run(a: 'M'):\n    return a.n\n",
    same=False,
    name="a class in a quoted annotation",
)
flow(
    "from typing import Literal\nfast = 1\ndef run(a: Literal['fast', 'slow']):\n    return a\n",
    "from typing import Literal\nfast = 2\ndef run(a: Literal['fast', 'slow']):\n    return a\n",
    same=True,
    name="a global named as a literal",
)
flow(
    "def run(a):\n    return a\n",
    "from __future__ import annotations\ndef run(a):\n    return a\n",
    same=True,
    name="annotations postponed",
)
flow(
    "counter = 0\ndef run(a):\n    global counter\n    counter += 1\n    return counter\n",
    "counter = 5\ndef run(a):\n    global counter\n    counter += 1\n    return counter\n",
    same=False,
    name="where a counter starts",
)
flow(
    "import helpers\ndef run(a):\n    return getattr(helpers, a)()\n",
    "import helpers\ndef run(a):\n    return getattr(helpers, a)()\n",
    same=False,
    name="a module in which a name is looked up",
    helpers=("def f():\n    return 1\n", "def f():\n    return 2\n"),
)
flow(
    "import importlib\ndef run(a):\n    return importlib.import_module('helpers').f()\n",
    "import importlib\ndef run(a):\n    return importlib.import_module('helpers').f()\n",
    same=False,
    name="a module imported by its written name",
    helpers=("def f():\n    return 1\n", "def f():\n    return 2\n"),
)
flow(
    "def run(a):\n    import helpers as h\n    return h.f()\n",
    "def run(a):\n    import helpers as h\n    return h.f()\n",
    same=False,
    name="import as in a function",
    helpers=("def f():\n    return 1\n", "def f():\n    return 2\n"),
)
flow(
    "def run(a):\n    import helpers as h\n    return h.f()\n",
    "def run(a):\n    import helpers as g\n    return g.f()\n",
    same=True,
    name="an alias in a function renamed",
    helpers="def f():\n    return 1\n",
)
flow(
    "import a\ndef run(x):\n    return a.f(x)\n",
    "import a\ndef run(x):\n    return a.f(x)\n",
    same=False,
    name="a helper that is re-exported",
    a="from b import f\n",
    b=("def f(x):\n    return 1\n", "def f(x):\n    return 2\n"),
)
flow(
    "import a\ndef run(x):\n    return a.f(x)\n",
    "import a\ndef run(x):\n    return a.f(x)\n",
    same=False,
    name="another helper re-exported under the name",
    a=("from b import f\n", "from b import g as f\n"),
    b="def f(x):\n    return 1\ndef g(x):\n    return 2\n",
)
flow(
    "import a\na.f = lambda x: 1\ndef run(x):\n    return a.f(x)\n",
    "import a\na.f = lambda x: 2\ndef run(x):\n    return a.f(x)\n",
    same=False,
    name="a helper patched at import",
    a="def f(x):\n    return 0\n",
)
flow(
    "import decimal\ndecimal.getcontext().prec = 10\ndef run(x):\n    return decimal.Decimal(x) / 3\n",
    "import decimal\ndecimal.getcontext().prec = 12\ndef run(x):\n    return decimal.Decimal(x) / 3\n",
    same=False,
    name="a setting of a library made at import",
)
flow(
    "try:\n    import json\nexcept ImportError:\n    json = None\ndef run(x):\n    return json.dumps(x)\n",
    "try:\n    import pickle as json\nexcept ImportError:\n    json = None\ndef run(x):\n    return json.dumps(x)\n",
    same=False,
    name="which of two libraries is there",
)
flow(
    "from datetime import date, datetime, timezone\nD = date(2024, 1, 1)\nT = datetime(2024, 1, 1, tzinfo=timezone.utc)\ndef run(x):\n    return D, T\n",
    "from datetime import date, datetime, timezone\nD = date(2024, 1, 1)\nT = datetime(2024, 1, 1)\ndef run(x):\n    return D, T\n",
    same=False,
    name="the zone of a datetime",
)
flow(
    "from pathlib import Path\nP = Path('a') / 'b'\ndef run(x):\n    return P\n",
    "from pathlib import Path\nP = Path('a/b')\ndef run(x):\n    return P\n",
    same=True,
    name="an equal path",
)
flow(
    "from pathlib import Path\nP = Path(__file__).parent / 'a'\ndef run(x):\n    return P\n",
    "from pathlib import Path\nP = Path(__file__).resolve().with_name('a')\ndef run(x):\n    return P\n",
    same=True,
    name="a path in the project, the same on another machine",
)
flow(
    "from pathlib import Path\nSQL = Path(__file__).with_name('q.py').read_text()\ndef run(x):\n    return SQL\n",
    "from pathlib import Path\nSQL = Path(__file__).with_name('q.py').read_text()\ndef run(x):\n    return SQL\n",
    same=False,
    name="a file read at import",
    q=("a = 1\n", "a = 2\n"),
)
flow(
    "from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int\nCONF = C(1)\ndef run(a):\n    return CONF.x\n",
    "from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int\nCONF = C(x=2)\ndef run(a):\n    return CONF.x\n",
    same=False,
    name="a field of a dataclass value",
)
flow(
    "from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int\nCONF = C(1)\ndef run(a):\n    return CONF.x\n",
    "from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int\nCONF = C(x=1)\ndef run(a):\n    return CONF.x\n",
    same=True,
    name="an equal dataclass value",
)
flow(
    "X = float('nan'), -0.0, 1j, 10**5000, b'a', ...\ndef run(a):\n    return X\n",
    "X = float('nan'), 0.0, 1j, 10**5000, b'a', ...\ndef run(a):\n    return X\n",
    same=False,
    name="the sign of zero",
)
flow(
    "X = []\nX.append(X)\ndef run(a):\n    return X\n",
    "X = []\nX.append(X)\nX.append(1)\ndef run(a):\n    return X\n",
    same=False,
    name="a list that holds itself",
)
flow(
    "class A:\n    def f(self):\n        return B\nclass B(A):\n    n = 1\ndef run(a):\n    return A\n",
    "class A:\n    def f(self):\n        return B\nclass B(A):\n    n = 2\ndef run(a):\n    return A\n",
    same=False,
    name="classes that refer to one another",
)
flow(
    "def run(a, cache={}):\n    cache[a] = 1\n    return cache\n",
    "def run(a, cache={1: 2}):\n    cache[a] = 1\n    return cache\n",
    same=False,
    name="a mutable default",
)
flow(
    "def f(a):\n    return 1\ndef run(a, key=f):\n    return key(a)\n",
    "def f(a):\n    return 2\ndef run(a, key=f):\n    return key(a)\n",
    same=False,
    name="a function as a default",
)
flow(
    "Rows = list[dict[str, int]]\ndef run(a: Rows):\n    return a\n",
    "Rows = list[dict[str, float]]\ndef run(a: Rows):\n    return a\n",
    same=False,
    name="a type alias",
)
flow(
    "async def get(a):\n    return [x async for x in a]\ndef run(a):\n    return get(a)\n",
    "async def get(a):\n    return [x + 1 async for x in a]\ndef run(a):\n    return get(a)\n",
    same=False,
    name="an async helper",
)
flow(
    "def run(a):\n    def f():\n        return 1\n    return f()\n",
    "def run(a):\n    def g():\n        return 1\n    return g()\n",
    same=False,
    name="a nested function renamed: its name can be seen",
)
flow(
    "def f(a):\n    return 1\ndef run(a):\n    return f(a)\n",
    "def g(a):\n    return 1\ndef run(a):\n    return g(a)\n",
    same=False,
    name="a helper renamed: its name can be seen",
)
flow(
    "a, b = (lambda x: 1), (lambda x: 2)\ndef run(x):\n    return a(x)\n",
    "a, b = (lambda x: 3), (lambda x: 2)\ndef run(x):\n    return a(x)\n",
    same=False,
    name="one of two lambdas on a line",
)

# Tasks --------------------------------------------------------------------------------------

TASK = "from airflow_provider_dbnd import output, parameter, task\n"
flow(
    TASK
    + "@task\ndef sub(a: int) -> int:\n    return a\n@task\ndef run(a: int) -> int:\n    return sub(a)\n",
    TASK
    + "@task\ndef sub(a: int) -> int:\n    return -a\n@task\ndef run(a: int) -> int:\n    return sub(a)\n",
    same=False,
    name="a task called inside",
)
flow(
    TASK + "@task\ndef run(a: int) -> int:\n    return a\n",
    TASK + "@task(retries=3, pool='x')\ndef run(a: int) -> int:\n    return a\n",
    same=True,
    name="how Airflow runs a task",
)
flow(
    TASK
    + "@task\ndef sub(a: int) -> int:\n    return a\n@task\ndef run(a: int) -> int:\n    return sub(a)\n",
    TASK
    + "@task(retries=1)\ndef sub(a: int) -> int:\n    return a\n@task\ndef run(a: int) -> int:\n    return sub(a)\n",
    same=True,
    name="how Airflow runs a task called inside",
)
flow(
    TASK + "@task(result=output.json)\ndef run(a: int) -> int:\n    return a\n",
    TASK + "@task(result=output.pickle)\ndef run(a: int) -> int:\n    return a\n",
    same=False,
    name="the declaration of an output",
)
flow(
    TASK + "@task(a=parameter(default=1))\ndef run(a: int) -> int:\n    return a\n",
    TASK + "@task(a=parameter(default=2))\ndef run(a: int) -> int:\n    return a\n",
    same=False,
    name="the declaration of a parameter",
)
flow(
    TASK + "@task\ndef run(a: int) -> int:\n    return a\n",
    TASK + "import helpers\n@task\n@helpers.twice\ndef run(a: int) -> int:\n    return a\n",
    same=False,
    name="another decorator below @task",
    helpers="import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(a: int) -> int:\n        return 2 * f(a)\n    return g\n",
)
flow(
    TASK
    + "@task\ndef sub(a: int, b: int) -> int:\n    return a\nsubs = sub.partial(b=1)\n@task\ndef run(a: int) -> int:\n    return subs.expand(a=[a])\n",
    TASK
    + "@task\ndef sub(a: int, b: int) -> int:\n    return a\nsubs = sub.partial(b=2)\n@task\ndef run(a: int) -> int:\n    return subs.expand(a=[a])\n",
    same=False,
    name="an argument set by partial()",
)


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
