"""Run-time parameter values in Airflow: trigger form, ``dag_run.conf``, ``tasks test -t``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.resolution import Sources, Value, check_keys, resolve, shown
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
        Layer(values=conf, source=CONF, base=base),
        Layer(values=test, source=TASK_PARAMS, base=base),
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
    known = dag.known or {task_id: list(binding.definition.signature.inputs)}
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
    return Layer(values=values, source=layer.source, base=layer.base)


def _check_fixed(dag: DagBinding, sources: Sources) -> None:
    for parameter in dag.parameters.values():
        if not parameter.fixed:
            continue
        value = resolve(parameter.owner, parameter.spec, MISSING, sources)
        built = parameter.value
        from_run = value is not None and any(
            value.source == layer.source for layer in sources.run_time
        )
        if value is not None and from_run and (built is None or value.value != built.value):
            name = parameter.spec.name
            raise ParameterError(
                f"parameter {name!r} of pipeline {parameter.owner!r} is fixed: the pipeline's body uses its value "
                f"to build the graph, so a run cannot change it to {shown(value.value)} (from {value.source}). Set it "
                f"by as_dag({name}=...), in [parameters] of dbnd.toml, or by "
                f"DBND__{parameter.owner.upper()}__{name.upper()}, where the DAG is parsed."
            )


def parameter_value(parameter: BuildParameter, layers: tuple[Layer, ...]) -> Value | None:
    """Return a pipeline parameter's value in this run: given at run time, else as built."""
    for layer in layers:
        for key in (
            (parameter.key, parameter.spec.name) if "." not in parameter.owner else (parameter.key,)
        ):
            if key in layer.values:
                return Value(
                    value=layer.values[key],
                    source=layer.source,
                    base=layer.base,
                    hidden=parameter.spec.declaration.hidden,
                )
    return parameter.value
