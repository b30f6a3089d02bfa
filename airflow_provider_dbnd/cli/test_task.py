"""``dbnd test-task``: one task of an Airflow DAG, on the upstream results of a past run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_dbnd.cli.dags import dags_folder, parse
from airflow_provider_dbnd.cli.run import assigned, print_error
from airflow_provider_dbnd.cli.tables import print_rows, result_lines_of
from airflow_provider_dbnd.core.execute import TaskSpec, arguments_of, execute, hidden_texts_of
from airflow_provider_dbnd.core.graph import expand, filled_in
from airflow_provider_dbnd.core.manifest import Identity
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.past.history import (
    TEST_RUN,
    attempts_of_run,
    last_attempts,
    newest_run,
)
from airflow_provider_dbnd.core.resolution import Sources, Value
from airflow_provider_dbnd.core.runner import new_run_id
from airflow_provider_dbnd.core.standin import BuildParameter
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.core.values import part_of
from airflow_provider_dbnd.exceptions import ConfigurationError, DbndError, GraphError


def run_task(
    dag_id: str,
    task_id: str,
    *,
    run_id: str | None,
    map_index: int,
    assignments: Sequence[str],
    file: str | None,
) -> int:
    """Run the task as a run of its own; return 0 or, where it fails, 1."""
    from airflow_provider_dbnd.hooks.settings import artifact_store

    task = _find(dag_id, task_id, file)
    binding = task.python_callable.binding
    store = artifact_store(binding.dag.settings)
    source_run = run_id or (newest_run(store, dag_id) if _needs_upstream(task) else None)
    sources = Sources(
        settings=binding.dag.settings, root=binding.dag.root, run_time=(assigned(assignments),)
    )
    known = functools.partial(
        _known, sources=sources, store=store, dag_id=dag_id, run_id=source_run
    )
    given = _given(task, map_index, lambda each: filled_in(each, known, sources.settings.base))
    arguments = arguments_of(task_id, binding.definition, given, sources)
    identity = Identity(
        pipeline=dag_id,
        run_id=new_run_id(TEST_RUN),
        task_id=task_id,
        map_index=map_index,
        logical_date=_logical_date(store, dag_id, source_run),
    )
    print(
        f"dbnd test-task {dag_id} {task_id}"
        + (f"  (upstream from run {source_run})" if source_run else "")
    )
    print_rows([[n, v.shown(80), v.source] for n, v in arguments.items()], indent="  ")
    spec = TaskSpec(identity=identity, arguments=arguments, store=store)
    try:
        manifest = execute(spec, binding.definition)
    except Exception as exc:  # noqa: BLE001 - the task's own error: shown as `dbnd run` shows it
        print_error(task_id, exc, hidden_texts_of(spec, binding.definition))
        return 1
    for line in result_lines_of(task_id, manifest, mapped=map_index >= 0):
        print(line)
    return 0


def _find(dag_id: str, task_id: str, file: str | None) -> Any:
    bag = parse(file or dags_folder())
    dag = bag.dags.get(dag_id)
    if dag is None:
        broken = "".join(f"\n{path}: {error}" for path, error in bag.import_errors.items())
        raise ConfigurationError(
            f"No DAG {dag_id!r} in {file or dags_folder()}{did_you_mean(dag_id, bag.dags)}{broken}"
        )
    if task_id not in dag.task_dict:
        raise ConfigurationError(
            f"DAG {dag_id!r} has no task {task_id!r}{did_you_mean(task_id, dag.task_dict)}"
        )
    task = dag.task_dict[task_id]
    if not hasattr(_callable(task), "binding"):
        raise ConfigurationError(
            f"Task {task_id!r} is a {task.operator_name}, not a task of this package: use "
            f"`airflow tasks test {dag_id} {task_id}`."
        )
    return task


def _callable(task: Any) -> Any:
    return getattr(task, "python_callable", None)


def _needs_upstream(task: Any) -> bool:
    return bool(task.upstream_task_ids)


def _given(task: Any, map_index: int, known: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the call's arguments, with those of one instance where the task is mapped."""
    binding = task.python_callable.binding
    given = {name: known(argument) for name, argument in binding.arguments.items()}
    if binding.mapped is None:
        return given
    if map_index < 0:
        raise ConfigurationError(
            f"Task {task.task_id!r} is mapped: choose an instance with --map-index."
        )
    instances = list(expand(task.task_id, binding.mapped, known))
    if map_index >= len(instances):
        raise ConfigurationError(
            f"Task {task.task_id!r} has {len(instances)} instances; there is no {map_index}."
        )
    return {**given, **instances[map_index]}


def _known(
    value: Any, *, sources: Sources, store: ArtifactStore, dag_id: str, run_id: str | None
) -> Value | None:
    """Return what a task left in the past run, or a parameter's value."""
    from airflow_provider_dbnd.operators.results import TaskResult
    from airflow_provider_dbnd.operators.run_time import given_at_run_time

    if isinstance(value, BuildParameter):
        found = given_at_run_time(value, sources) or value.value
        # What gives it no value may still give the task's own parameter one.
        return value.as_type(found) if found else Value(value=MISSING, source="call", base="")
    if isinstance(value, TaskResult):
        source = f"task {value.operator.task_id} of run {run_id}"
        return Value(value=_upstream(value, store, dag_id, run_id), source=source, base="")
    if hasattr(value, "iter_references"):
        raise GraphError(
            f"{value!r} is the result of a native task: it is in Airflow's database, not in the "
            "store. "
            "Give it with --set, or use `airflow tasks test`."
        )
    return None


def _upstream(result: Any, store: ArtifactStore, dag_id: str, run_id: str | None) -> Any:
    assert run_id is not None
    manifests = last_attempts(store, dag_id, run_id, result.operator.task_id)
    for manifest in manifests:
        if manifest.status != "success":
            raise DbndError(
                f"Upstream task {manifest.identity.task_id!r} is {manifest.status} in run "
                f"{run_id!r}: it left no result. Choose another run with --run."
            )
    values = [part_of(m.outputs, result.definition.signature, result.path) for m in manifests]
    return values if result.operator.is_mapped else values[0]


def _logical_date(store: ArtifactStore, dag_id: str, run_id: str | None) -> str | None:
    """Keep the date of the run that the upstream results are of."""
    if run_id is None:
        return None
    return next((m.identity.logical_date for m in attempts_of_run(store, dag_id, run_id)), None)
