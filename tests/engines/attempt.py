"""One attempt of one task, as a worker makes it: in this process, or in one that may be killed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

WORK = '''
import time
from pathlib import Path

from airflow_provider_dbnd import task


@task
def work(seconds: float = 0, fail: str = "", flag: str = "") -> int:
    """Say that it runs, wait, and fail if it is to."""
    if flag:
        with open(flag, "a") as file:
            file.write("ran\\n")
    time.sleep(seconds)
    if fail:
        raise ValueError(fail)
    return 42
'''

RUN = "run-1"


def attempt(
    project: str,
    *,
    options: dict[str, Any] | None = None,
    arguments: dict[str, Any] | None = None,
    try_number: int = 1,
) -> Any:
    """Run the task of *project* on its engine and return the manifest."""
    from airflow_provider_dbnd.core.execute import TaskSpec
    from airflow_provider_dbnd.core.manifest import Identity
    from airflow_provider_dbnd.core.resolution import Value
    from airflow_provider_dbnd.core.settings import load_settings
    from airflow_provider_dbnd.core.storage.store import ArtifactStore
    from airflow_provider_dbnd.engines.launch import _context, launch
    from airflow_provider_dbnd.engines.selection import select_engine

    settings = load_settings(project, file=Path(project, "dbnd.toml"))
    definition = _definition(Path(project, "work.py"))
    chosen = select_engine(definition, settings)
    definition = definition.with_options(**{chosen.type: options or {}})
    identity = Identity(
        pipeline="flow",
        run_id=RUN,
        task_id="work",
        map_index=-1,
        try_number=try_number,
        logical_date=None,
        partition=None,
    )
    given = {
        name: Value(value=value, source="the call", base=project)
        for name, value in (arguments or {}).items()
    }
    for name, parameter in definition.signature.inputs.items():
        given.setdefault(name, Value(value=parameter.default, source="default", base=project))
    spec = TaskSpec(identity=identity, arguments=given, store=ArtifactStore(settings.store))
    engine = select_engine(definition, settings)
    return launch(spec, definition, engine, settings, context=_context(identity))


def start(project: str, **given: Any) -> subprocess.Popen[str]:
    """Make the attempt in a process of its own."""
    call = [sys.executable, "-m", __name__, json.dumps([project, given])]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        call, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _definition(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("work_of_test", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.work.definition


if __name__ == "__main__":
    project, given = json.loads(sys.argv[1])
    print(attempt(project, **given).outputs["result"])
