"""``dbnd replay --as-test``: a pytest case of a recorded attempt, on small inputs cut from the real ones."""

from __future__ import annotations

import inspect
import os
import pprint
from collections.abc import Mapping
from typing import Any

from airflow_provider_dbnd.cli.replay_hidden import HiddenArguments
from airflow_provider_dbnd.cli.run import print_error
from airflow_provider_dbnd.core.conversion import type_text
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, arguments_in_memory
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.resolution import shown
from airflow_provider_dbnd.core.values import is_plain
from airflow_provider_dbnd.exceptions import ConfigurationError, FormatError

#: Rows that are kept of each table.
ROWS = 20

_READERS = {
    "pandas": "pandas.read_parquet",
    "polars": "polars.read_parquet",
    "pyarrow": "pyarrow.parquet.read_table",
}
_ASSERTIONS = {
    "pandas": "pandas.testing.assert_frame_equal({got}, {expected})",
    "polars": "polars.testing.assert_frame_equal({got}, {expected})",
    "pyarrow": "assert {got}.equals({expected})",
}
_IMPORTS = {
    "pandas": ("import pandas.testing",),
    "polars": ("import polars", "import polars.testing"),
    "pyarrow": ("import pyarrow.parquet",),
}

_TEMPLATE = '''"""Task {task!r} of {pipeline!r}, as run {run_id} had it, on the first rows of its inputs.{needs}"""

from __future__ import annotations

{standard}
from pathlib import Path

{imports}
DATA = Path(__file__).parent / {data!r}
sys.path.insert(0, str((Path(__file__).parent / {code!r}).resolve()))

from {module} import {name}  # noqa: E402


def test_{name}_gives_what_it_gave() -> None:
    result = {name}(
{arguments}
    )

{checks}
'''


def write_test(recorded: Manifest, definition: Definition, spec: TaskSpec, file: str) -> int:
    """Write a test to *file* and its data to a folder beside it; run nothing but the function."""
    if os.path.exists(file):
        raise ConfigurationError(f"{file} exists. Name another file, or delete it.")
    function = inspect.unwrap(definition.function)
    if "." in function.__qualname__:
        raise ConfigurationError(
            f"task {definition.name!r} is {function.__qualname__}, which a test cannot import by one name."
        )
    cut = {name: _cut(value) for name, value in arguments_in_memory(spec, definition).items()}
    hidden = HiddenArguments.of(spec, cut)
    args, kwargs = definition.signature.spread(cut)
    try:
        result = definition.function(*args, **kwargs)
    except Exception as exc:  # noqa: BLE001 - the task's own error: shown as `dbnd run` shows it
        print_error(recorded.identity.task_id, exc, hidden.texts)
        print(f"{file} is not written: the task gives no result to compare with.")
        return 1
    outputs = definition.signature.split(result)
    written = {**{n: v for n, v in cut.items() if n not in hidden.variables}, **outputs}
    hidden.check({name: _told(value) for name, value in written.items()})
    home = os.path.dirname(os.path.abspath(file))
    data = os.path.splitext(os.path.basename(file))[0] + "_data"
    os.makedirs(os.path.join(home, data), exist_ok=True)
    writer = _Writer(os.path.join(home, data))
    arguments = {
        name: hidden.expressions.get(name) or writer.expression(name, value)
        for name, value in cut.items()
    }
    checks = list(writer.checks(outputs, definition))
    source = function.__code__.co_filename
    text = _TEMPLATE.format(
        task=recorded.identity.task_id,
        pipeline=recorded.identity.pipeline,
        run_id=recorded.identity.run_id,
        needs=hidden.needs(),
        standard="\n".join(sorted({"import sys", *hidden.imports()})),
        imports="".join(f"{line}\n" for line in sorted(writer.imports)),
        data=data,
        code=os.path.relpath(os.path.dirname(source), home),
        module=os.path.splitext(os.path.basename(source))[0],
        name=function.__name__,
        arguments="\n".join(f"        {name}={text}," for name, text in arguments.items()),
        checks="\n".join(f"    {line}" for line in checks),
    )
    with open(file, "w", encoding="utf-8") as out:
        out.write(text)
    print(f"wrote {file}, and its data to {os.path.join(home, data)}")
    for name, variable in hidden.variables.items():
        print(f"parameter {name!r} is hidden: set {variable} where the test runs")
    return 0


def _told(value: Any) -> str:
    """Return all of a value as text."""
    library = _library(value)
    if library is None:
        return repr(value)
    if library == "pandas":
        return str(value.to_dict("split"))
    return str(value.to_dicts() if library == "polars" else value.to_pylist())


def _library(value: Any) -> str | None:
    """Return the library of a table, None for what is none."""
    library = type(value).__module__.partition(".")[0]
    is_table = type(value).__name__ in ("DataFrame", "Table")
    return library if is_table and library in _READERS else None


def _cut(value: Any) -> Any:
    library = _library(value)
    if library is None:
        return value
    return value.slice(0, ROWS) if library == "pyarrow" else value.head(ROWS)


class _Writer:
    """Writes values as Python expressions, tables as files."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.imports: set[str] = set()

    def expression(self, name: str, value: Any) -> str:
        library = _library(value)
        if library is None:
            if not is_plain(value):
                raise FormatError(
                    f"parameter or result {name!r} is {shown(value)}, a {type_text(type(value))}, which a test "
                    "cannot hold: expected tables of pandas, polars or pyarrow and plain values."
                )
            return pprint.pformat(value)
        file = f"{name}.parquet"
        self._write(library, value, os.path.join(self._folder, file))
        self.imports.update(_IMPORTS[library])
        return f"{_READERS[library]}(DATA / {file!r})"

    def checks(self, outputs: Mapping[str, Any], definition: Definition) -> Any:
        """Yield lines that compare each output with what it is now."""
        shape = definition.signature.shape
        if shape == "none":
            yield "assert result is None"
        for position, (name, value) in enumerate(outputs.items()):
            got = {"single": "result", "tuple": f"result[{position}]"}.get(shape, f"result.{name}")
            expected = self.expression(f"expected_{name}", value)
            library = _library(value)
            check = _ASSERTIONS[library] if library else "assert {got} == {expected}"
            yield check.format(got=got, expected=expected)

    @staticmethod
    def _write(library: str, value: Any, path: str) -> None:
        if library == "pandas":
            value.to_parquet(path)
        elif library == "polars":
            value.write_parquet(path)
        else:
            import pyarrow.parquet

            pyarrow.parquet.write_table(value, path)
