"""``dbnd check``: would Airflow find and parse this file, and what a newcomer trips over."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

from airflow_provider_dbnd.cli.dags import parse
from airflow_provider_dbnd.cli.loading import load_module, runnables
from airflow_provider_dbnd.decorators.pipeline import Pipeline
from airflow_provider_dbnd.exceptions import ConfigurationError

#: With ``[core] dag_discovery_safe_mode`` on, Airflow skips a file without both words.
SAFE_MODE_WORDS = (b"dag", b"airflow")


def check_files(paths: Iterable[str]) -> int:
    """Print what is found for each file; return 1 where Airflow would not run it."""
    failed = False
    for path in paths:
        problems = list(check(path))
        for level, text in problems:
            print(f"{path}: {level}: {text}")
        failed = failed or any(level == "error" for level, _ in problems)
    return 1 if failed else 0


def check(path: str) -> Iterator[tuple[str, str]]:
    """Yield ("error" | "warning" | "note" | "ok", what) for one file."""
    if not os.path.isfile(path):
        raise ConfigurationError(f"No such file: {path}.")
    with open(path, "rb") as file:
        content = file.read().lower()
    missing = [word.decode() for word in SAFE_MODE_WORDS if word not in content]
    if missing:
        yield (
            "error",
            f"Airflow skips files without the word {' and '.join(map(repr, missing))} in them "
            "([core] dag_discovery_safe_mode). Write `dag = your_pipeline.as_dag()`.",
        )
    # Airflow logs the traceback of an import error; it is printed here instead.
    logging.disable(logging.CRITICAL)
    try:
        bag = parse(path)
    finally:
        logging.disable(logging.NOTSET)
    for error in bag.import_errors.values():
        yield "error", f"import error in Airflow:\n{error}"
    if bag.import_errors:
        return
    if not bag.dags and not missing:
        yield from _no_dag(path)
    for dag in bag.dags.values():
        yield from _check_dag(dag)
        yield "ok", f"DAG {dag.dag_id}: {len(dag.task_dict)} tasks"


def _no_dag(path: str) -> Iterator[tuple[str, str]]:
    pipelines = [n for n, r in runnables(load_module(path)).items() if isinstance(r, Pipeline)]
    hint = f"; add `dag = {pipelines[0]}.as_dag()` at module level" if pipelines else ""
    yield "error", f"no DAG in this file{hint}."


def _check_dag(dag: Any) -> Iterator[tuple[str, str]]:
    bindings = [b for t in dag.tasks if (b := _binding(t)) is not None]
    if not bindings:
        return
    settings = bindings[0].dag.settings
    executor = _executor()
    if settings.store.startswith(("/", "file:")) and executor not in (
        "LocalExecutor",
        "SequentialExecutor",
    ):
        yield (
            "warning",
            f"the store {settings.store} ({settings.store_source}) is a local path, but "
            f"{executor} runs tasks on several machines. Set [dbnd] store to a bucket.",
        )
    fixed = sorted({p.key for b in bindings for p in b.dag.parameters.values() if p.fixed})
    if fixed:
        yield (
            "note",
            f"fixed when the DAG is parsed, so not in the trigger form: {', '.join(fixed)}",
        )


def _binding(task: Any) -> Any:
    function = getattr(task, "python_callable", None)
    return getattr(function, "binding", None)


def _executor() -> str:
    from airflow_provider_dbnd.hooks.settings import configuration

    return str(configuration().get("core", "executor", fallback="LocalExecutor"))
