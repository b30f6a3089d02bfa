"""Every code block of README.md and docs/ runs, and prints what the page says it prints.

A page gets a folder of its own, with a copy of ``dags_examples`` and its ``data/raw.csv``. Blocks run
in order, by the language of their fence:

- ``python``: executed; the blocks of a page share a namespace.
- ``pycon``: a session with ``>>>``, compared with the output shown.
- ``console``: ``$ command`` lines, compared with the output shown.
- ``toml``, ``json``, ``ini``: must parse.
- ``sh``: what a test cannot run (servers, installation). Scripts, options and extras named must exist.
- ``text``: not code.

``<!-- file: name -->`` on the line above a fence writes the block to that file instead of running it;
``<!-- needs: s3 -->`` anywhere gives the page an S3 server with the bucket ``my-bucket``. In expected output
``...`` stands for anything; run ids, dates of runs, times, sizes, digests and the folder's path may differ.

    DBND_WRITE_DOCS=1 python -m pytest tests/test_docs.py     # writes what is printed now into the pages
"""

from __future__ import annotations

import configparser
import contextlib
import doctest
import io
import json
import linecache
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITE = bool(os.environ.get("DBND_WRITE_DOCS"))

#: How the folder of a page is written in it.
SHOWN_FOLDER = "/project"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"<!-- (\w+): (.+?) -->\n\Z")
#: What differs from run to run, in order.
_VARIABLE = [
    (re.compile(r"\b(local|test|manual|scheduled)__[\w.:+-]+"), r"\1__ID"),
    (re.compile(r"\b[0-9a-f]{32}(-[0-9a-f]{12})?"), "DIGEST"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(Z|\+00:00)?"), "TIME"),
    (re.compile(r"--date \d{4}-\d\d-\d\d"), "--date DATE"),
    (re.compile(r"\b\d+\.\d+ s\b|\"seconds\": [\d.]+"), "SECONDS"),
    (re.compile(r"[\d,]+ bytes|\"size\": \d+"), "SIZE"),
    (re.compile(r"line \d+"), "line N"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" +$", re.MULTILINE), ""),
]


@dataclass
class Block:
    """A fenced block: ``start`` and ``end`` of its text in the page, ``line`` for messages."""

    language: str
    text: str
    start: int
    end: int
    line: int
    file: str | None


@dataclass
class Session:
    """A page being run in its folder."""

    page: Path
    folder: Path
    environment: dict[str, str]
    module: ModuleType
    exit_code: int = 0
    changes: list[tuple[int, int, str]] = field(default_factory=list)

    def check(self, block: Block, expected: str, got: str, where: tuple[int, int]) -> None:
        """Compare output, or note the change to write."""
        got = re.sub(r" +$", "", got.replace(str(self.folder), SHOWN_FOLDER), flags=re.MULTILINE)
        if _matches(expected, got):
            return
        if WRITE:
            self.changes.append((*where, got))
            return
        raise AssertionError(
            f"{self.page.name}, block at line {block.line}: expected\n{expected}\ngot\n{got}\n"
            "DBND_WRITE_DOCS=1 writes what is printed now into the page"
        )

    def run_python(self, block: Block) -> None:
        # At its own line in a file of its own, so that errors and inspect.getsource() find it.
        source = "\n" * (block.line - 1) + block.text
        self._remember(source)
        exec(compile(source, self._file, "exec"), vars(self.module))

    def run_pycon(self, block: Block) -> None:
        for example in doctest.DocTestParser().get_examples(block.text):
            before = block.text.splitlines(keepends=True)
            source_end = example.lineno + example.source.count("\n")
            start = block.start + len("".join(before[:source_end]))
            expected_lines = example.want.count("\n")
            end = block.start + len("".join(before[: source_end + expected_lines]))
            self.check(block, example.want, self._evaluate(example.source), (start, end))

    def _evaluate(self, source: str) -> str:
        self._remember(source)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(source, self._file, "single"), vars(self.module))
            except Exception as exc:
                last = "".join(traceback.format_exception_only(exc))
                printed.write(f"Traceback (most recent call last):\n  ...\n{_short(last)}")
        return printed.getvalue()

    @property
    def _file(self) -> str:
        return str(self.folder / f"{self.page.stem}_.py")

    def _remember(self, source: str) -> None:
        linecache.cache[self._file] = (
            len(source),
            None,
            source.splitlines(keepends=True),
            self._file,
        )

    def run_console(self, block: Block) -> None:
        for command, expected, start, end in _commands(block):
            # Each command has a shell of its own, which is told how the last one ended.
            shell = ["bash", "-c", f"(exit {self.exit_code}); {command}"]
            done = subprocess.run(
                shell,
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=180,
                check=False,
            )
            self.exit_code = done.returncode
            got = (
                done.stdout if done.stdout.endswith("\n") or not done.stdout else done.stdout + "\n"
            )
            self.check(block, expected, got, (start, end))


def _short(text: str) -> str:
    """Return an exception's last lines without the module of its class."""
    return re.sub(r"\A[\w.]*\.(\w+)", r"\1", text)


def _commands(block: Block) -> Iterator[tuple[str, str, int, int]]:
    """Yield (command, output shown, where that output is in the page)."""
    lines = block.text.splitlines(keepends=True)
    assert lines[0].startswith("$ "), f"a console block starts with a command (line {block.line})"
    number = 0
    while number < len(lines):
        command = lines[number][2:]
        number += 1
        while command.endswith("\\\n"):
            command += lines[number]
            number += 1
        first = number
        while number < len(lines) and not lines[number].startswith("$ "):
            number += 1
        start = block.start + len("".join(lines[:first]))
        shown = "".join(lines[first:number])
        yield command, shown, start, start + len(shown)


def _matches(expected: str, got: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.DONT_ACCEPT_BLANKLINE
    return doctest.OutputChecker().check_output(_plain(expected), _plain(got), flags)


def _plain(text: str) -> str:
    for pattern, word in _VARIABLE:
        text = pattern.sub(word, text)
    return text


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        directive = _DIRECTIVE.search(text[: match.start()])
        assert directive is None or directive[1] == "file", directive
        found.append(
            Block(
                language=match[1],
                text=match[2],
                start=match.start(2),
                end=match.end(2),
                line=text.count("\n", 0, match.start(2)) + 1,
                file=directive[2] if directive else None,
            )
        )
    return found


@pytest.fixture
def bin_folder(tmp_path: Path) -> str:
    """The folder of ``dbnd``: that of the interpreter, or where the package is not installed a stand-in."""
    here = Path(sys.executable).parent
    if (here / "dbnd").exists():
        return str(here)
    made = tmp_path / "bin"
    made.mkdir()
    (made / "dbnd").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m airflow_provider_dbnd.cli "$@"\n'
    )
    (made / "dbnd").chmod(0o755)
    return f"{made}:{here}"


@pytest.fixture
def session(
    page: Path,
    tmp_path: Path,
    bin_folder: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Session]:
    folder = tmp_path / "project"
    shutil.copytree(
        ROOT / "dags_examples",
        folder / "dags_examples",
        ignore=shutil.ignore_patterns("__pycache__", ".dbnd"),
    )
    shutil.copytree(ROOT / "dags_examples" / "data", folder / "data")
    home = folder / "airflow"
    (home / "dags").mkdir(parents=True)
    environment = {
        **{
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("AIRFLOW", "DBND", "AWS", "PYTEST"))
        },
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
    text = page.read_text()
    if re.search(r"^\$ (.* )?airflow ", text, re.MULTILINE):
        request.getfixturevalue("airflow_db")
        _copy_database(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db", home / "airflow.db")
    if "<!-- needs: s3 -->" in text:
        environment |= request.getfixturevalue("s3")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    known = set(sys.modules)
    module = ModuleType(f"{page.stem}_page")
    sys.modules[module.__name__] = module
    yield Session(page=page, folder=folder, environment=environment, module=module)
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if name == module.__name__ or file.startswith(str(folder)):
            del sys.modules[name]


def _copy_database(source: Path, target: Path) -> None:
    # A plain copy would leave out what is still in the write-ahead log.
    with (
        contextlib.closing(sqlite3.connect(source)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    """An S3 server with the bucket ``my-bucket``; yields the environment that leads there."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    ).create_bucket(Bucket="my-bucket")
    yield environment
    server.stop()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs_and_prints_what_it_says(page: Path, session: Session) -> None:
    runners: dict[str, Callable[[Block], Any]] = {
        "python": session.run_python,
        "pycon": session.run_pycon,
        "console": session.run_console,
        "toml": lambda block: tomllib.loads(block.text),
        "json": lambda block: json.loads(block.text),
        "ini": lambda block: configparser.ConfigParser(interpolation=None).read_string(block.text),
        "sh": lambda block: check_shell(block.text),
        "text": lambda block: None,
    }
    found = blocks(page)
    for number, block in enumerate(found):
        assert block.language in runners, (
            f"{page.name}:{block.line}: a fence needs one of {', '.join(runners)}"
        )
        if block.file is None:
            runners[block.language](block)
            continue
        path = session.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        if block.language == "python":
            later = [
                b.text
                for b in found[number + 1 :]
                if b.language in ("python", "pycon", "console") and not b.file
            ]
            assert any(path.stem in text for text in later), (
                f"{page.name}:{block.line}: nothing runs {block.file}"
            )
        else:
            runners[block.language](block)

    if session.changes:
        text = page.read_text()
        for start, end, got in sorted(session.changes, reverse=True):
            text = text[:start] + got + text[end:]
        page.write_text(text)


def check_shell(text: str) -> None:
    """Check what commands name: scripts and files of this repository, options of dbnd, extras."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for word in words:
            if re.match(r"\.?/?(scripts|\.ci|benchmarks|docs|dags_examples|tests|docker)/", word):
                assert (ROOT / word).exists(), f"{line}: there is no {word}"
            for extra in re.findall(r"airflow-provider-dbnd\[(.+?)\]", word):
                assert set(extra.split(",")) <= extras(), f"{line}: there is no such extra"
        if words[:1] == ["dbnd"] or words[:2] == ["airflow", "dbnd"]:
            check_options(words[words.index("dbnd") + 1 :])


def check_options(words: list[str]) -> None:
    import typer.main

    from airflow_provider_dbnd.cli.main import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if not words or words[0].startswith("-"):
        return
    assert words[0] in commands, f"dbnd has no command {words[0]}"
    known = {"--help"} | {
        option for parameter in commands[words[0]].params for option in parameter.opts
    }
    assert {word.partition("=")[0] for word in words[1:] if word.startswith("-")} <= known, words


def extras() -> set[str]:
    return set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)

    links = [
        link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link
    ]

    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_readme_shows_code_by_line_25() -> None:
    assert blocks(ROOT / "README.md")[0].line <= 25
