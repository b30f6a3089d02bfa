"""The Airflow back end: calls become operators, pipelines become DAGs and task groups."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from airflow.sdk import DAG, TaskGroup
from airflow.sdk.bases.decorator import task_decorator_factory
from airflow.sdk.definitions._internal.contextmanager import TaskGroupContext

from airflow_provider_dbnd.core.build import (
    body_errors,
    build_body,
    build_parameter,
    check_names,
    check_required,
)
from airflow_provider_dbnd.core.definition import INHERITED, Definition
from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.graph import Call, Handle, walk, with_leaves
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.masking import MASK
from airflow_provider_dbnd.core.options import configured
from airflow_provider_dbnd.core.resolution import REUSE, Sources, check_keys, names_of
from airflow_provider_dbnd.core.settings import Settings
from airflow_provider_dbnd.core.standin import BuildParameter
from airflow_provider_dbnd.decorators.form import form_params
from airflow_provider_dbnd.engines.launch import launch
from airflow_provider_dbnd.engines.registry import operator_class
from airflow_provider_dbnd.engines.selection import (
    Engine,
    check_engine,
    check_options,
    select_engine,
    without_engine_options,
)
from airflow_provider_dbnd.exceptions import GraphError
from airflow_provider_dbnd.hooks.settings import airflow_settings
from airflow_provider_dbnd.operators.binding import (
    Binding,
    DagBinding,
    ParameterReference,
    make_callable,
)
from airflow_provider_dbnd.operators.mapped import marked
from airflow_provider_dbnd.operators.results import TaskResult, refuse_texts
from airflow_provider_dbnd.operators.task import DbndOperator
from airflow_provider_dbnd.sensors.task import DbndSensor

_OPERATORS: Mapping[str, Any] = {"task": DbndOperator, "sensor": DbndSensor}

#: By identity: a DAG's hash changes with each task that it is given.
_BUILDERS: dict[int, DagBuilder] = {}


def builder_of(dag: DAG) -> DagBuilder:
    """Return the builder of a DAG under construction: one a DAG, made at its first task."""
    if id(dag) not in _BUILDERS:
        binding = DagBinding(root=dag.dag_id, settings=airflow_settings(_folder_of(dag.fileloc)))
        _remember(dag, DagBuilder(binding))
    return _BUILDERS[id(dag)]


def _remember(dag: DAG, builder: DagBuilder) -> DagBuilder:
    _BUILDERS[id(dag)] = builder
    weakref.finalize(dag, _BUILDERS.pop, id(dag), None)
    return builder


def is_of_pipeline(dag: object) -> bool:
    """Tell whether a DAG is what ``as_dag`` made of a pipeline."""
    return id(dag) in _BUILDERS and bool(_BUILDERS[id(dag)].binding.known)


class DagBuilder:
    """Makes operators in the current DAG."""

    def __init__(self, binding: DagBinding) -> None:
        self.binding = binding

    def add(self, call: Call) -> Handle:
        """Make the operator of *call*."""
        refuse_texts([call.arguments, call.mapped])
        called = self._configured(call.definition)
        engine = select_engine(called, self.binding.settings)
        definition = without_engine_options(called)
        binding = Binding(
            definition=definition,
            arguments=call.arguments,
            dag=self.binding,
            mapped=call.mapped,
            engine=engine,
            reuse=called.options.get("reuse"),
            switch=functools.partial(_switch, called, self.binding.settings),
        )
        decorator: Any = task_decorator_factory(
            make_callable(binding),
            multiple_outputs=False,
            decorated_operator_class=_operator(definition, engine),
            task_id=definition.name,
            **{**definition.options, **engine.options},
        )
        arguments = {
            name: _for_operator(definition, name, value) for name, value in call.arguments.items()
        }
        made = (
            _expanded(decorator, arguments, _elements(marked(definition, call.mapped)))
            if call.mapped is not None
            else decorator(**arguments)
        )
        check_required(made.operator.task_id, call, self._sources())
        if self.binding.known:
            self.binding.known[made.operator.task_id] = names_of(definition.signature)
        return TaskResult(made.operator, definition=definition)

    @contextlib.contextmanager
    def group(self, definition: Definition, name: str) -> Iterator[str]:
        """Open the task group of a nested pipeline."""
        with TaskGroup(
            group_id=name,
            tooltip=inspect.getdoc(definition.function) or "",
            add_suffix_on_collision=True,
        ) as group:
            yield str(group.group_id)

    def parameter(
        self, owner: str, definition: Definition, name: str, given: Any
    ) -> BuildParameter:
        """Resolve a pipeline's parameter for the parse; a run may change it."""
        refuse_texts(given)
        parameter = build_parameter(owner, definition, name, given, self._sources())
        self.binding.parameters[parameter.key] = parameter
        if self.binding.known:
            self.binding.known.setdefault(owner, []).append(name)
        return parameter

    def _sources(self) -> Sources:
        return Sources(settings=self.binding.settings, root=self.binding.root)

    def _configured(self, definition: Definition) -> Definition:
        """Lay ``[tasks.x]`` of dbnd.toml over the options in code."""
        group: Any = TaskGroupContext.get_current()
        task_id = group.child_id(definition.name) if group else definition.name
        return configured(definition, task_id, self.binding.settings)


def _operator(definition: Definition, engine: Engine) -> Any:
    if engine.local:
        return _OPERATORS[definition.kind]
    class_ = operator_class(engine.type)
    check_options(class_, engine)
    check_engine(class_, engine, definition.name, [*definition.options, *_default_args()])
    return class_


def _default_args() -> Mapping[str, Any]:
    group: Any = TaskGroupContext.get_current()
    return {**group.dag.default_args, **group.default_args}


def _switch(
    definition: Definition,
    settings: Settings,
    spec: TaskSpec,
    name: str,
    *,
    context: Any,
    started: Any,
) -> Manifest:
    engine = select_engine(definition, settings, name)
    return launch(spec, definition, engine, settings, context=context, started=started)


def make_dag(definition: Definition, options: Mapping[str, Any]) -> DAG:
    """Build the DAG of a pipeline. *options* mix parameter values and arguments of ``DAG``."""
    inputs = definition.signature.inputs
    given = {name: value for name, value in options.items() if name in inputs}
    inherited = {name: options[name] for name in INHERITED if name in options}
    definition = definition.with_options(**inherited)
    arguments = {k: v for k, v in options.items() if k not in inputs and k not in inherited}
    arguments.setdefault("dag_id", definition.name)
    if doc := inspect.getdoc(definition.function):
        arguments.setdefault("doc_md", doc)
    file = inspect.unwrap(definition.function).__code__.co_filename
    settings = airflow_settings(_folder_of(file))
    binding = DagBinding(
        root=definition.name,
        settings=settings,
        known={definition.name: [REUSE]},
        declared=frozenset(arguments.get("params") or {}),
    )
    with DAG(**arguments) as dag:  # noqa: AIR002 - the schedule is the caller's
        # DAG takes the file of the frame that made it, which is this one.
        dag.fileloc = file
        builder = _remember(dag, DagBuilder(binding))
        with body_errors(definition):
            build_body(builder, definition, definition.name, given)
        if not dag.task_dict:
            raise GraphError(
                f"Pipeline {definition.name!r} calls no task: decorate the functions it calls with @task."
            )
    check_names(definition, dag.task_dict)
    check_keys(Sources(settings=settings, root=definition.name), binding.known)
    _add_form(dag, definition, binding, scheduled=arguments.get("schedule") is not None)
    return dag


def _add_form(dag: DAG, definition: Definition, binding: DagBinding, *, scheduled: bool) -> None:
    """Declare the form's fields after the tasks: every task serializes a copy of those before it."""
    params = form_params(definition, binding.parameters, scheduled=scheduled)
    dag.params.update(params)
    binding.form_defaults = {
        name: param.value if param.has_value else None for name, param in params.items()
    }


def _expanded(decorator: Any, arguments: Mapping[str, Any], mapped: Any) -> Any:
    partial = decorator.partial(**arguments) if arguments else decorator
    return partial.expand(**mapped) if isinstance(mapped, dict) else partial.expand_kwargs(mapped)


def _for_operator(definition: Definition, name: str, value: Any) -> Any:
    """Return an argument as the operator's template field holds it."""
    if definition.signature.inputs[name].declaration.hidden and not any(
        isinstance(leaf, Handle | BuildParameter) for leaf in walk(value)
    ):
        return MASK
    return _references(value)


def _elements(mapped: Any) -> Any:
    """Return what is mapped over with references to the parameters among its elements."""
    if isinstance(mapped, dict):
        return {
            name: v if isinstance(v, BuildParameter) else _references(v)
            for name, v in mapped.items()
        }
    return mapped if isinstance(mapped, BuildParameter) else _references(mapped)


def _references(value: Any) -> Any:
    return with_leaves(
        value, lambda leaf: ParameterReference(leaf) if isinstance(leaf, BuildParameter) else leaf
    )


def _folder_of(file: str) -> str:
    return os.path.dirname(os.path.abspath(file))
