"""``dbnd replay``: run a recorded attempt again, and say what differs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

from airflow_provider_dbnd.cli.run import assigned, print_error
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, execute, hidden_texts_of
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.masking import masked
from airflow_provider_dbnd.core.past.history import last_attempts, newest_run
from airflow_provider_dbnd.core.past.replay import (
    Replay,
    recorded_definition,
    replay_spec,
    run_again,
    working_definition,
)
from airflow_provider_dbnd.core.resolution import Sources, shown
from airflow_provider_dbnd.core.settings import Settings
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError, ConfigurationError

_TASK = re.compile(r"(?P<name>.*?)(?:\[(?P<index>\d+)\])?")


def replay(
    pipeline: str,
    run_id: str,
    task: str,
    *,
    store: ArtifactStore,
    settings: Settings,
    file: str | None = None,
    recorded_code: bool = False,
    assignments: Sequence[str] = (),
    debug: bool = False,
    as_test: str | None = None,
) -> int:
    """Run the attempt again; return 0 where everything is as recorded, else 1."""
    run_id = newest_run(store, pipeline) if run_id == "latest" else run_id
    recorded = _attempt(store, pipeline, run_id, task)
    if as_test is not None and recorded_code:
        raise ConfigurationError(
            "--as-test writes a test of the code that is here, which outlives this command. Leave "
            "--recorded-code out."
        )
    sources = Sources(
        settings=settings, root=recorded.identity.task_id, run_time=(assigned(assignments),)
    )
    with contextlib.ExitStack() as untold:
        folder = tempfile.mkdtemp(prefix="dbnd-replay-")
        untold.callback(shutil.rmtree, folder, ignore_errors=True)
        definition = (
            recorded_definition(recorded, store, os.path.join(folder, "code"))
            if recorded_code
            else working_definition(recorded, os.getcwd(), file)
        )
        into = ArtifactStore(
            os.path.join(folder, "store"),
            storage_options=settings.storage_options,
            trusts=(store.url,),
        )
        spec = replay_spec(recorded, definition, sources, into)
        if as_test is not None:
            from airflow_provider_dbnd.cli.replay_test import write_test

            return write_test(recorded, definition, spec, as_test)
        print(f"dbnd replay {pipeline} {run_id} {task}  (results in {into.url})")
        untold.pop_all()
    return _run(recorded, definition, spec, store, debug=debug)


def _run(
    recorded: Manifest,
    definition: Definition,
    spec: TaskSpec,
    store: ArtifactStore,
    *,
    debug: bool,
) -> int:
    try:
        found = run_again(recorded, definition, spec, store, _debugged if debug else execute)
    except Exception as exc:  # noqa: BLE001 - the task's own error: shown as `dbnd run` shows it
        hidden = hidden_texts_of(spec, definition)
        print_error(recorded.identity.task_id, exc, hidden)
        return _print_failure(recorded, exc, hidden)
    return _print(found)


def _attempt(store: ArtifactStore, pipeline: str, run_id: str, task: str) -> Manifest:
    match = _TASK.fullmatch(task)
    assert match is not None
    attempts = last_attempts(store, pipeline, run_id, match["name"])
    index = int(match["index"]) if match["index"] else attempts[0].identity.map_index
    if match["index"] is None and len(attempts) > 1:
        raise ArtifactNotFoundError(
            f"task {task!r} is mapped: name one of its {len(attempts)} instances, such as {task}[0]."
        )
    for attempt in attempts:
        if attempt.identity.map_index == index:
            return attempt
    raise ArtifactNotFoundError(f"task {match['name']!r} has no instance {index} in that run.")


def _debugged(spec: TaskSpec, definition: Definition) -> Manifest:
    import pdb  # noqa: T100 - asked for by --pdb

    try:
        return execute(spec, definition)
    except Exception as exc:
        pdb.post_mortem(exc.__traceback__)
        raise


def _print_failure(recorded: Manifest, error: Exception, hidden: Sequence[str]) -> int:
    before = recorded.error
    if before is None:
        print(f"status: recorded {recorded.status}, now failed")
        return 1
    now = {"type": type(error).__name__, "message": masked(str(error), hidden)}
    if all(before.get(name) == value for name, value in now.items()):
        print("status: failed as recorded")
        return 0
    print(f"status: failed, but recorded {before.get('type')}: {before.get('message')}")
    return 1


def _print(found: Replay) -> int:
    differs = found.recorded.status != found.made.status
    if differs:
        print(f"status: recorded {found.recorded.status}, now {found.made.status}")
    for name, difference in found.outputs() if found.recorded.status == "success" else ():
        if difference is None:
            print(f"{name}: as recorded")
            continue
        differs = True
        print(f"{name}: differs")
        from airflow_provider_dbnd.cli.artifacts_diff import print_difference

        print_difference(difference)
    for name, before, after in found.metrics():
        differs = True
        print(f"metric {name}: recorded {_text(before)}, now {_text(after)}")
    was, now = found.recorded.seconds, found.made.seconds
    print(f"took {now:.2f} s, recorded {was:.2f} s")
    return int(differs)


def _text(value: Any) -> str:
    return "nothing" if value is None else shown(value)
