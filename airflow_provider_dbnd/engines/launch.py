"""Running one task on an engine that no operator of a DAG stands for: local runs, and runs that switch."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.in_process import execute_in_process
from airflow_provider_dbnd.core.manifest import Identity, Manifest
from airflow_provider_dbnd.core.resolution import ENGINE, Sources, wanted
from airflow_provider_dbnd.core.settings import Settings
from airflow_provider_dbnd.engines.registry import operator_class
from airflow_provider_dbnd.engines.selection import (
    Engine,
    check_engine,
    check_options,
    options_of,
    select_engine,
    without_engine_options,
)

log = logging.getLogger("airflow_provider_dbnd")


class Launcher:
    """Runs each task of a local run where its settings say, by the operators that Airflow would use."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def __call__(self, spec: TaskSpec, definition: Definition) -> Manifest:
        """Run one attempt to its end."""
        task_id = spec.identity.task_id
        name = wanted(ENGINE, task_id, definition.signature, self._sources)
        settings = self._sources.settings
        engine = select_engine(definition, settings, name)
        return launch(spec, definition, engine, settings, context=_context(spec.identity))


def launch(
    spec: TaskSpec,
    definition: Definition,
    engine: Engine,
    settings: Settings,
    *,
    context: Mapping[str, Any],
    started: Callable[[Any], None] | None = None,
) -> Manifest:
    """Run one attempt on *engine* and wait for its end; *started* is told the operator that does it."""
    if engine.local:
        return execute_in_process(spec, definition, settings)
    operator = _operator(spec.identity.task_id, definition, engine, settings)
    if started is not None:
        started(operator)
    log.info("task %s runs on engine %s (%s)", spec.identity.task_id, engine.name, engine.type)
    try:
        with _as_running(operator):
            manifest: Manifest = operator.run_job({**context, "task": operator}, spec)
            return manifest
    except (KeyboardInterrupt, SystemExit):
        operator.on_kill()
        raise


def _operator(task_id: str, definition: Definition, engine: Engine, settings: Settings) -> Any:
    from airflow_provider_dbnd.operators.binding import Binding, DagBinding, make_callable

    class_ = operator_class(engine.type)
    check_options(class_, engine)
    check_engine(class_, engine, task_id)
    binding = Binding(
        definition=without_engine_options(definition),
        arguments={},
        dag=DagBinding(root=definition.name, settings=settings),
        engine=engine,
    )
    options = dict(engine.options)
    if "deferrable" in options_of(class_):
        options["deferrable"] = False  # nothing here could take a deferred task up again
    return class_(
        # Names in a pod's labels and the like are made of it.
        task_id=re.sub(r"[^\w.-]", "_", task_id),
        python_callable=make_callable(binding),
        op_args=[],
        op_kwargs={},
        **options,
    )


@contextlib.contextmanager
def _as_running(operator: Any) -> Iterator[None]:
    """Tell Airflow's operators that this call of ``execute`` is meant."""
    from airflow.sdk.bases.operator import ExecutorSafeguard

    token = ExecutorSafeguard.tracker.set(operator)
    try:
        yield
    finally:
        ExecutorSafeguard.tracker.reset(token)


def _context(identity: Identity) -> dict[str, Any]:
    """Return what the engines' operators read of Airflow's context, for a run without Airflow."""
    ti = SimpleNamespace(
        dag_id=identity.pipeline,
        task_id=identity.task_id,
        run_id=identity.run_id,
        map_index=identity.map_index,
        try_number=identity.try_number,
        xcom_push=_logged,
    )
    dag = SimpleNamespace(dag_id=identity.pipeline, parent_dag=None)
    run = SimpleNamespace(run_id=identity.run_id, conf={}, logical_date=None)
    return {"ti": ti, "task_instance": ti, "run_id": identity.run_id, "dag_run": run, "dag": dag}


def _logged(key: str, value: Any, **_: Any) -> None:
    log.info("%s: %s", key, value)
