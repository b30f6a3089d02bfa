"""``@pipeline``: a function whose body wires tasks; a DAG, a task group, or a plain call."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from airflow_provider_dbnd.core.build import build_body
from airflow_provider_dbnd.core.definition import INHERITED, Definition, define
from airflow_provider_dbnd.decorators.calls import active_builder, call_task, task_id
from airflow_provider_dbnd.decorators.task import declarations

P = ParamSpec("P")
R = TypeVar("R")


class Pipeline(Generic[P, R]):
    """A decorated pipeline function."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        functools.update_wrapper(self, definition.function)

    @property
    def function(self) -> Callable[P, R]:
        """The function as it was written."""
        return self.definition.function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the body, or add it as a group to the graph under construction."""
        builder = active_builder()
        if builder is None:
            nested: R = call_task(self.definition, args, dict(kwargs), {})
            return nested
        name = task_id(self.definition, kwargs)
        given = self.definition.signature.bind(args, kwargs, partial=True)
        with builder.group(self.definition, name) as owner:
            result: R = build_body(builder, self.definition, owner, given)
            return result

    def as_dag(self, **options: Any) -> Any:
        """Return the Airflow DAG of this pipeline.

        :param options: values of the pipeline's own parameters by name, and arguments of
            ``airflow.sdk.DAG`` (``schedule``, ``tags``, ``dag_id``, ...).

        Where Airflow is not loaded (``dbnd run``, a container without it) the DAG is made only when
        something looks at it.
        """
        options = {**self.definition.options, **options}
        if "airflow.sdk" in sys.modules:
            from airflow_provider_dbnd.decorators.dag import make_dag

            return make_dag(self.definition, options)
        return LazyDag(self.definition, options)

    def override(self, **options: Any) -> Pipeline[P, R]:
        """Return the pipeline with other DAG or group options."""
        return Pipeline(self.definition.with_options(**options))

    def __repr__(self) -> str:
        return f"<pipeline {self.definition.name}>"


class LazyDag:
    """A DAG that is made when it is first looked at: a pipeline file costs no Airflow import."""

    def __init__(self, definition: Definition, options: Mapping[str, Any]) -> None:
        self._definition, self._options = definition, options

    @functools.cached_property
    def _dag(self) -> Any:
        from airflow_provider_dbnd.decorators.dag import make_dag

        return make_dag(self._definition, self._options)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        # Only a process that has loaded Airflow can ask whether this is one of its DAGs.
        return type(self._dag) if "airflow.sdk" in sys.modules else LazyDag

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dag, name)

    def __repr__(self) -> str:
        return f"<DAG: {self._options.get('dag_id', self._definition.name)}>"


@overload
def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]: ...
@overload
def pipeline(**options: Any) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(function: Any = None, /, **options: Any) -> Any:
    """Make a function that calls tasks a pipeline.

    :param options: arguments of the DAG it becomes. With any given, a DAG file registers the DAG by
        itself; without, write ``dag = p.as_dag(...)``.

    >>> from airflow_provider_dbnd import task
    >>> @task
    ... def double(n: int) -> int:
    ...     return 2 * n
    >>> @pipeline
    ... def twice(n: int = 1) -> int:
    ...     return double(double(n))
    >>> twice(3)
    12
    """
    if function is None:
        return lambda decorated: _make(decorated, options)
    return _make(function, options)


def _make(function: Callable[P, R], options: Mapping[str, Any]) -> Pipeline[P, R]:
    declared, rest = declarations(options)
    made: Pipeline[P, R] = Pipeline(define("pipeline", function, declared, rest))
    if rest.keys() - set(INHERITED) and "airflow.sdk" in sys.modules:
        made.as_dag()
    return made
