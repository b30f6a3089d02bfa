"""What calling a decorated function means: a node, a nested call, or the plain call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from airflow_provider_dbnd.core.attempt import call_nested, current_attempt
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.graph import Builder, add_call, current_builder

#: Airflow keeps the DAG under construction here. While the module is not loaded there is none, and
#: asking would cost a second of imports.
_DAG_CONTEXT_MODULE = "airflow.sdk.definitions._internal.contextmanager"


def active_builder() -> Builder | None:
    """Return the builder of the graph or DAG under construction, if there is one."""
    if current_attempt() is not None:
        return None
    return current_builder() or _dag_builder()


def call_task(
    definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], bound: dict[str, Any]
) -> Any:
    """Call a task wherever we are; *bound* are arguments set earlier by ``partial``."""
    builder = active_builder()
    name = task_id(definition, kwargs)
    kwargs = {**bound, **kwargs}
    if builder is None:
        return _call_now(definition, args, kwargs)
    # What a call leaves out may come from a file or the environment.
    arguments = definition.signature.bind(args, kwargs, partial=True)
    return add_call(builder, definition.renamed(name), arguments)


def task_id(definition: Definition, kwargs: dict[str, Any]) -> str:
    """Take the name of the node or group out of a call's keywords."""
    if "task_id" in kwargs and "task_id" not in definition.signature.inputs:
        return str(kwargs.pop("task_id"))
    return definition.name


def call_mapped(
    definition: Definition, mapped: Any, bound: dict[str, Any], rows: Callable[[], Iterable[Any]]
) -> Any:
    """Fan a task out; *rows* gives the argument sets for a plain call."""
    builder = active_builder()
    if builder is None:
        return [_call_now(definition, (), {**bound, **row}) for row in rows()]
    return add_call(builder, definition, definition.signature.bind((), bound, partial=True), mapped)


def _call_now(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    attempt = current_attempt()
    if attempt is None:
        return definition.function(*args, **kwargs)
    return call_nested(attempt, definition.name, definition.function, args, kwargs)


def _dag_builder() -> Builder | None:
    module = sys.modules.get(_DAG_CONTEXT_MODULE)
    dag = module.DagContext.get_current() if module else None
    if dag is None:
        return None
    from airflow_provider_dbnd.decorators.dag import builder_of

    return builder_of(dag)
