"""The code fingerprint: which edits count, in any process, and what cannot be seen."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from code_edits import BASE, EDITS, Edit, fingerprint_in, loaded, write
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_dbnd.core.code import CodeFingerprint, fingerprint
from airflow_provider_dbnd.exceptions import ConfigurationError, FingerprintError

ROOT = Path(__file__).parent.parent.parent
SIDES = sorted({json.dumps(side, sort_keys=True) for e in EDITS for side in (e.before, e.after)})


def of(folder: Path, source: str, **others: str) -> CodeFingerprint:
    """Return the fingerprint of ``run`` in a flow.py with this text."""
    files = {"flow.py": source, **{f"{name}.py": text for name, text in others.items()}}
    return fingerprint_in(write(files, folder))


def changed(before: CodeFingerprint, after: CodeFingerprint) -> set[str]:
    """Return the names of the parts that make two versions differ."""
    if before.digest == after.digest:
        # Where things stand is part of their names, not of what they are.
        return set()
    return {name for name, _ in before.parts.items() ^ after.parts.items()}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_edit_is_the_same_version_or_another(edit: Edit, tmp_path: Path) -> None:
    before = fingerprint_in(write(edit.before, tmp_path / "before"))
    after = fingerprint_in(write(edit.after, tmp_path / "after"))

    assert (before.digest == after.digest) is edit.same, changed(before, after)
    assert bool(changed(before, after)) is not edit.same


@settings(max_examples=60, deadline=None)
@given(side=st.sampled_from(SIDES), blank=st.lists(st.integers(0, 9)), data=st.data())
def test_reformatting_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, side: str, blank: list[int], data: st.DataObject
) -> None:
    files: dict[str, str] = json.loads(side)
    chosen = data.draw(st.sets(st.sampled_from(sorted(files)), min_size=1))
    other = dict(files)
    for name in chosen:
        lines = ast.unparse(ast.parse(files[name])).splitlines()
        for place in blank:
            if place < len(lines) and not lines[place].startswith(" "):
                lines.insert(place, "# a comment\n\n")
        other[name] = "\n".join(lines)
    folder = tmp_path_factory.mktemp("reformatted")

    before = fingerprint_in(write(files, folder / "before"))
    after = fingerprint_in(write(other, folder / "after"))

    assert before == CodeFingerprint(digest=after.digest, parts=after.parts, blind=before.blind)


def all_digests(python: str, folder: Path, seed: str) -> Any:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [python, str(ROOT / "tests" / "core" / "code_edits.py"), str(folder)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_digests_are_the_same_in_every_process(tmp_path: Path) -> None:
    one = all_digests(sys.executable, tmp_path / "here", "1")

    assert len(one) == 2 * len(EDITS)
    assert one == all_digests(sys.executable, tmp_path / "there", "2")


def other_pythons() -> list[str]:
    """Return interpreters of other versions: those found, and those DBND_TEST_PYTHONS lists."""
    named = os.environ.get("DBND_TEST_PYTHONS", "").split(os.pathsep)
    found = [shutil.which(f"python3.{minor}") for minor in range(10, 15)]
    return [python for python in (*named, *found) if python and python != sys.executable]


def test_digests_are_the_same_in_other_versions_of_python(tmp_path: Path) -> None:
    here = all_digests(sys.executable, tmp_path / "here", "0")
    compared = []
    for python in other_pythons():
        needs = "import sys, blake3, pydantic, xxhash; print(sys.version_info[1])"
        asked = subprocess.run([python, "-c", needs], capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.strip() != str(sys.version_info[1]):
            assert all_digests(python, tmp_path / asked.stdout.strip(), "0") == here
            compared.append(asked.stdout)

    if not compared:
        pytest.skip(
            "no other Python with blake3, xxhash and pydantic; name one in DBND_TEST_PYTHONS"
        )


def test_parts_say_what_changed(tmp_path: Path) -> None:
    files = {**BASE, "pkg/deeper.py": BASE["pkg/deeper.py"].replace("+ 1", "+ 2")}
    files["settings.py"] = BASE["settings.py"].replace("BASE = 4", "BASE = 5")

    before = fingerprint_in(write(BASE, tmp_path / "before"))
    after = fingerprint_in(write(files, tmp_path / "after"))

    assert changed(before, after) == {"pkg.deeper.other", "settings.THRESHOLD"}


def test_parts_have_names_for_people(tmp_path: Path) -> None:
    assert set(fingerprint_in(write(BASE, tmp_path)).parts) == {
        "bases.Base",
        "bases.Root",
        "decorators.finish",
        "decorators.logged",
        "decorators.logged.decorate.wrapper",
        "decorators.logged.decorate.wrapper: name",
        "flow.LIMIT",
        "flow.PARTS",
        "flow.RATES",
        "flow.WAIT",
        "flow.run",
        "flow.scale",
        "helpers.<lambda>",
        "helpers.STEPS",
        "helpers.WORDS",
        "helpers.clean",
        "helpers.log",
        "helpers.weigh",
        "models.Model",
        "pkg.Colour",
        "pkg.deep.deepest",
        "pkg.deeper.level",
        "pkg.deeper.other",
        "pkg.lazy.late",
        "settings.THRESHOLD",
        "stars.OFFSET",
        "stars.starred",
    }


def test_spots_that_cannot_be_seen_are_named(tmp_path: Path) -> None:
    source = """
import importlib, sys
from pathlib import Path
import helpers
HERE = Path(__file__).parent
CACHE = {}
def run(name):
    a = getattr(helpers, name)
    b = importlib.import_module(name)
    helpers.LIMIT = 3
    setattr(helpers, name, 1)
    CACHE[name] = eval(name) + globals()[name]
    text = (Path(__file__).parent / "q.sql").read_text()
    return sys.modules[name], run.__doc__, HERE, inner(name)
def inner(name):
    self = object()
    setattr(self, name, 1)
    return getattr(self, "fixed")
"""

    found = of(tmp_path, source, helpers="LIMIT = 2\n").blind

    assert found == (
        "getattr with a computed name in flow.run, line 8",
        "import_module with a computed name in flow.run, line 9",
        "assignment to helpers.LIMIT in flow.run, line 10",
        "setattr with a computed name in flow.run, line 11",
        "eval() in flow.run, line 12",
        "globals() in flow.run, line 12",
        "__file__, beside which files may be read, in flow.run, line 13",
        "sys.modules in flow.run, line 14",
        "a docstring, which does not count, in flow.run, line 14",
        "flow.CACHE, changed by code in line 12: what it held at first counts",
        "flow.HERE, a path in the project: files count only when declared",
    )


def test_a_file_touched_without_a_change_is_the_same(tmp_path: Path) -> None:
    with loaded(write(BASE, tmp_path)) as flow:
        before = fingerprint(flow.run)
        os.utime(tmp_path / "helpers.py", ns=(1, 1))

        assert fingerprint(flow.run) == before


def test_a_file_that_is_not_what_runs_is_refused(tmp_path: Path) -> None:
    with loaded(write(BASE, tmp_path)) as flow:
        fingerprint(flow.run)
        (tmp_path / "stars.py").write_text(BASE["stars.py"].replace("+", "-"))

        with pytest.raises(FingerprintError) as error:
            fingerprint(flow.run)

    assert str(error.value) == (
        f"{tmp_path}/stars.py was changed after starred() was loaded from it, so what runs is not "
        "what the file says. Start a new process, or reload the module."
    )


def test_a_comment_added_after_loading_is_not_refused(tmp_path: Path) -> None:
    with loaded(write(BASE, tmp_path)) as flow:
        before = fingerprint(flow.run)
        (tmp_path / "stars.py").write_text(BASE["stars.py"] + "# The end.\n")

        assert fingerprint(flow.run) == before


def test_what_running_fills_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    source = """
CACHE, COUNT = {}, 0
def memo(f):
    seen = {}
    def wrapper(x):
        seen[x] = f(x)
        return seen[x]
    return wrapper
@memo
def slow(x, known=[]):
    known.append(x)
    return x
def run(x):
    global COUNT
    COUNT += 1
    CACHE[x] = [slow(x)]
    CACHE[x].append(1)
    return CACHE[x]
"""
    with loaded(write({"flow.py": source}, tmp_path)) as flow:
        before = fingerprint(flow.run)
        flow.run(1)

        assert fingerprint(flow.run) == before
    assert [spot.partition(",")[0] for spot in before.blind] == [
        "flow.COUNT",
        "flow.CACHE",
        "flow.memo.wrapper: seen",
    ]


def test_a_value_patched_before_the_run_counts(tmp_path: Path) -> None:
    with loaded(write(BASE, tmp_path)) as flow:
        before = fingerprint(flow.run)
        flow.conf.THRESHOLD = 9

        assert changed(before, fingerprint(flow.run)) == {"settings.THRESHOLD"}


def test_code_without_a_source_file_is_refused() -> None:
    names: dict[str, Any] = {"__name__": "flow"}
    exec("def run():\n    return 1", names)

    with pytest.raises(FingerprintError, match="expected a function of the project, got one from"):
        fingerprint(names["run"])


def test_a_helper_made_by_exec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FingerprintError) as error:
        of(tmp_path, "exec('def f():\\n    return 1')\ndef run():\n    return f()\n")

    assert str(error.value) == (
        "f() was typed into an interpreter or made by exec(): expected a function from a file, got "
        "one from <string>. Code without a source file cannot be fingerprinted; write it to a "
        "module."
    )


def test_a_function_typed_into_an_interpreter_is_refused() -> None:
    typed = (
        "from airflow_provider_dbnd.core.code import fingerprint\n"
        "def run():\n    return 1\n\nfingerprint(run)\n"
    )

    done = subprocess.run(
        [sys.executable, "-i"], input=typed, cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert "FingerprintError: run() was typed into an interpreter or made by exec()" in done.stderr


@pytest.mark.parametrize("function", [len, "run", pd.DataFrame])
def test_what_is_no_function_is_refused(function: Any) -> None:
    with pytest.raises(FingerprintError, match="expected a function written in Python, got"):
        fingerprint(function)


def test_an_object_that_cannot_be_looked_into_is_a_typed_error(tmp_path: Path) -> None:
    source = (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    x: int = 1\n"
        "    def __getattribute__(self, name):\n        raise RuntimeError('closed')\n"
        "C_ = C.__new__(C)\ndef run():\n    return C_\n"
    )

    with pytest.raises(FingerprintError, match=r"cannot be looked into \(RuntimeError: closed\)"):
        of(tmp_path, source)


def test_a_lazy_proxy_is_not_asked_what_it_stands_for(tmp_path: Path) -> None:
    source = (
        "class Lazy:\n    @property\n    def __class__(self):\n        raise RuntimeError('made')\n"
        "    def __getattr__(self, name):\n        raise RuntimeError('made')\n"
        "lazy = Lazy()\ndef run():\n    return lazy.x\n"
    )

    assert set(of(tmp_path, source).parts) == {"flow.run", "flow.lazy", "flow.Lazy"}


def test_the_same_file_by_another_name_is_the_same(tmp_path: Path) -> None:
    """Airflow gives DAG files names of its own, `python flow.py` calls it __main__."""
    expected = fingerprint_in(write(BASE, tmp_path)).digest
    main = (
        "import runpy, sys; sys.path.insert(0, '.')\n"
        "from airflow_provider_dbnd.core.code import fingerprint\n"
        "print(fingerprint(runpy.run_path('flow.py', run_name=NAME)['run']).digest)"
    )

    for name in ("__main__", "unusual_prefix_0a1b_flow"):
        done = subprocess.run(
            [sys.executable, "-c", f"NAME = {name!r}\n{main}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == expected, done.stderr


def test_a_project_in_a_zip_file_is_the_same(tmp_path: Path) -> None:
    expected = fingerprint_in(write(BASE, tmp_path / "folder"))
    archive = tmp_path / "project.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in BASE.items():
            file.writestr(name, text)

    assert fingerprint_in(archive) == expected


def test_folders_without_init_are_followed(tmp_path: Path) -> None:
    source = "import parts.inner.helpers as h\nimport parts\ndef run():\n    return h.f() + parts.inner.other.g()\n"
    files = {
        "flow.py": source + "import parts.inner.other\n",
        "parts/inner/helpers.py": "def f():\n    return 1\n",
        "parts/inner/other.py": "def g():\n    return 1\n",
    }

    found = fingerprint_in(write(files, tmp_path))

    assert set(found.parts) == {"flow.run", "parts.inner.helpers.f", "parts.inner.other.g"}


def test_an_installed_package_is_followed_only_from_its_own_functions(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "site-packages"
    write(
        {
            "company/__init__.py": "",
            "company/tasks.py": "from company.base import f\ndef run():\n    return f()\n",
        },
        site,
    )
    write({"company/base.py": "import vendor\ndef f():\n    return vendor.v()\n"}, site)
    write({"vendor.py": "def v():\n    return 1\n"}, site)
    write(
        {"flow.py": "import company.tasks\ndef run():\n    return company.tasks.run()\n"}, tmp_path
    )

    with loaded(site, "company.tasks") as tasks, loaded(tmp_path) as flow:
        inside, outside = fingerprint(tasks.run), fingerprint(flow.run)

    assert set(inside.parts) == {"company.tasks.run", "company.base.f"}
    assert set(outside.parts) == {"flow.run"}


def test_frames_and_arrays_count_by_content(tmp_path: Path) -> None:
    write({"rates.csv": "a,b\n1,2\n"}, tmp_path)
    source = f"""
import numpy as np
import pandas as pd
RATES = pd.read_csv({str(tmp_path / "rates.csv")!r})
WEIGHTS = np.array([1, 2])
def run():
    return RATES, WEIGHTS
"""
    with loaded(write({"flow.py": source}, tmp_path)) as flow:
        before = fingerprint(flow.run)
        flow.RATES = pd.DataFrame({"a": [1], "b": [2]})
        assert fingerprint(flow.run) == before

        flow.RATES = pd.DataFrame({"a": [1], "b": [3]})
        assert changed(before, fingerprint(flow.run)) == {"flow.RATES"}

        flow.WEIGHTS[0] = 3
        assert changed(before, fingerprint(flow.run)) == {"flow.RATES", "flow.WEIGHTS"}


def test_an_import_in_a_function_that_is_not_there_counts_by_its_name(tmp_path: Path) -> None:
    source = "def run():\n    try:\n        from {} import f\n    except ImportError:\n        f = None\n    return f\n"

    one = of(tmp_path / "1", source.format("nowhere_a"))

    assert one.digest == of(tmp_path / "2", source.format("nowhere_a")).digest
    assert one.digest != of(tmp_path / "3", source.format("nowhere_b")).digest
    assert one.digest != of(tmp_path / "4", source.format("nowhere_a"), nowhere_a="f = 1\n").digest


def test_a_module_that_fails_when_a_function_imports_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FingerprintError) as error:
        of(tmp_path, "def run():\n    import bad\n    return bad.f()\n", bad="1 / 0\n")

    assert str(error.value) == (
        "flow imports bad in a function, and that fails: ZeroDivisionError('division by zero')."
    )


def test_modules_that_import_from_one_another_end(tmp_path: Path) -> None:
    files = {
        "flow.py": "import one\ndef run():\n    return one.f()\n",
        "one.py": "globals()['Z'] = 1\ndef f():\n    return g() + X + Z\nimport two\nfrom two import *\n",
        "two.py": "import one\nfrom one import *\nX = 1\ndef g():\n    return one.f\n",
    }

    found = fingerprint_in(write(files, tmp_path))

    assert set(found.parts) == {"flow.run", "one.f", "two.g", "two.X", "one.Z"}


def test_a_chain_of_thousands_of_helpers_ends(tmp_path: Path) -> None:
    chain = "".join(f"def f{n}():\n    return f{n + 1}()\n" for n in range(3000))

    found = of(tmp_path, f"{chain}def f3000():\n    return 1\ndef run():\n    return f0()\n")

    assert len(found.parts) == 3002


def test_a_loader_that_changes_what_it_loads_is_named(tmp_path: Path) -> None:
    def run() -> None:
        assert tmp_path

    (spot,) = [each for each in fingerprint(run).blind if "Loader" in each or "Hook" in each]

    assert spot == "test_code, which AssertionRewritingHook changes while it loads it"


def test_declared_packages_count_by_their_version(tmp_path: Path) -> None:
    def version(number: str) -> CodeFingerprint:
        folder = tmp_path / number
        write({"flow.py": "def run():\n    return 1\n"}, folder)
        write(
            {
                f"madeup{number}-{number}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: madeup{number}\nVersion: {number}\n"
            },
            folder,
        )
        return fingerprint_in(folder, declared=[f"madeup{number}", "pandas", "yaml"])

    one = version("1")

    assert one.parts["package madeup1"] == "1"
    assert one.parts["package pandas"] == importlib.metadata.version("pandas")
    assert one.parts["module yaml"] == f"PyYAML {importlib.metadata.version('PyYAML')}"
    assert one.digest != version("2").digest


@pytest.mark.parametrize(
    ("declared", "file", "text", "same"),
    [
        ("sql/q.sql", "sql/q.sql", "select 2", False),
        ("sql", "sql/q.sql", "select 2", False),
        ("sql", "sql/new.sql", "", False),
        ("sql/q.sql", "sql/new.sql", "", True),
        ("extra", "extra.py", "x = 2\n", False),
        ("extra", "extra.py", "x = 1  # the same\n", True),
        ("pkg", "pkg/inner.py", "x = 2\n", False),
        ("pkg.inner", "pkg/inner.py", "x = 2\n", False),
    ],
)
def test_declared_files_and_modules_count_by_content(
    tmp_path: Path, declared: str, file: str, text: str, same: bool
) -> None:
    files = {
        "flow.py": "def run():\n    return 1\n",
        "sql/q.sql": "select 1",
        "extra.py": "x = 1\n",
        "pkg/__init__.py": "",
        "pkg/inner.py": "x = 1\n",
    }

    before = fingerprint_in(write(files, tmp_path / "1"), declared=[declared])
    after = fingerprint_in(write({**files, file: text}, tmp_path / "2"), declared=[declared])

    assert (before.digest == after.digest) is same


def test_declared_names_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    write({"flow.py": "def run():\n    return 1\n"}, tmp_path)

    with pytest.raises(ConfigurationError) as error:
        fingerprint_in(tmp_path, declared=["nowhere/at_all"])

    assert str(error.value) == (
        f"declared dependency 'nowhere/at_all' is not there: expected a file or folder in "
        f"{tmp_path}, an installed package, or a module that can be imported."
    )


def test_a_warm_fingerprint_takes_less_than_two_milliseconds_a_function(tmp_path: Path) -> None:
    with loaded(write(BASE, tmp_path)) as flow:
        parts = len(fingerprint(flow.run).parts)
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            fingerprint(flow.run)
            seconds.append(time.perf_counter() - start)

    assert min(seconds) / parts < 0.002
