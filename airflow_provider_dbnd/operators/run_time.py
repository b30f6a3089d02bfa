"""Run-time parameter values in Airflow: trigger form, ``dag_run.conf``, ``tasks test -t``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.resolution import (
    Sources,
    Value,
    Wanted,
    as_declared,
    check_keys,
    environment_variable,
    from_run_time,
    names_of,
    shown,
)
from airflow_provider_dbnd.core.settings import Layer
from airflow_provider_dbnd.core.standin import BuildParameter
from airflow_provider_dbnd.exceptions import ParameterError
from airflow_provider_dbnd.operators.binding import Binding, DagBinding

CONF = "trigger form or dag_run.conf"
TASK_PARAMS = "tasks test --task-params"


def run_time_layers(context: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Return what this run was given, the stronger layer first.

    Airflow merges ``-t`` values under the run's conf, so what differs from the DAG's own default and
    is not in conf came from ``-t``.
    """
    binding: DagBinding = context["task"].python_callable.binding.dag
    conf = _given((context["dag_run"].conf or {}), binding)
    base = binding.settings.base
    params = context.get("params") or {}
    test = {
        name: params[name]
        for name in params
        if name not in conf
        and name not in binding.declared
        and (name not in binding.form_defaults or params[name] != binding.form_defaults[name])
    }
    layers = (
        Layer(values=conf, source=CONF, base=base, has_null=True),
        Layer(values=test, source=TASK_PARAMS, base=base, has_null=True),
    )
    return tuple(layer for layer in layers if layer.values)


def _given(conf: Mapping[str, Any], binding: DagBinding) -> dict[str, Any]:
    """Leave out fields of the form that were left empty where empty means "not set"."""
    return {
        name: value
        for name, value in conf.items()
        if not (value is None and binding.form_defaults.get(name, MISSING) is None)
    }


def task_sources(binding: Binding, layers: tuple[Layer, ...], task_id: str) -> Sources:
    """Return the sources for one task after checking the run-time keys."""
    dag = binding.dag
    known = dag.known or {task_id: names_of(binding.definition.signature)}
    relevant = tuple(_relevant(layer, dag, task_id) for layer in layers)
    sources = Sources(
        settings=dag.settings, root=dag.root, run_time=tuple(x for x in relevant if x.values)
    )
    check_keys(sources, known)
    _check_fixed(dag, sources)
    return sources


def _relevant(layer: Layer, dag: DagBinding, task_id: str) -> Layer:
    """Keep the keys that are ours to check: all in our DAG, those of the task in a hand-written one."""
    values = {
        key: value
        for key, value in layer.values.items()
        if key not in dag.declared and (dag.known or key.rpartition(".")[0] == task_id)
    }
    return replace(layer, values=values)


def _check_fixed(dag: DagBinding, sources: Sources) -> None:
    for parameter in dag.parameters.values():
        built = parameter.value
        value = given_at_run_time(parameter, sources) if parameter.fixed else None
        if value is not None and (built is None or value.value != built.value):
            owner, name = parameter.owner, parameter.spec.name
            raise ParameterError(
                f"parameter {name!r} of pipeline {owner!r} is fixed: the pipeline's body uses its value "
                f"to build the graph, so a run cannot change it to {shown(value.value)} (from {value.source}). Set it "
                f"by as_dag({name}=...), in [parameters] of dbnd.toml, or by "
                f"{environment_variable(owner, name)}, where the DAG is parsed."
            )


def given_at_run_time(parameter: BuildParameter, sources: Sources) -> Value | None:
    """Return what the run gives for a pipeline's parameter, if it gives it."""
    spec = parameter.spec
    value = from_run_time(Wanted(task=parameter.owner, spec=spec, given=MISSING, sources=sources))
    return value and as_declared(spec, value)


def parameter_value(parameter: BuildParameter, context: Mapping[str, Any]) -> Value | None:
    """Return a pipeline parameter's value in this run: given at run time, else as built."""
    dag: DagBinding = context["task"].python_callable.binding.dag
    sources = Sources(settings=dag.settings, root=dag.root, run_time=run_time_layers(context))
    return given_at_run_time(parameter, sources) or parameter.value
