"""The operator behind ``@task``: references in, references out, the function in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_provider_dbnd.core.execute import TaskSpec, arguments_of, value_of_run
from airflow_provider_dbnd.core.graph import walk
from airflow_provider_dbnd.core.in_process import execute_in_process
from airflow_provider_dbnd.core.manifest import Identity, Manifest, to_json
from airflow_provider_dbnd.core.masking import MASK
from airflow_provider_dbnd.core.resolution import ENGINE, REUSE, Value, hidden_texts, wanted
from airflow_provider_dbnd.core.reuse.attempt import run_or_reuse
from airflow_provider_dbnd.core.standin import BuildParameter
from airflow_provider_dbnd.hooks.settings import artifact_store
from airflow_provider_dbnd.operators.binding import Binding
from airflow_provider_dbnd.operators.mapped import unmarked
from airflow_provider_dbnd.operators.results import TaskResult
from airflow_provider_dbnd.operators.run_time import parameter_value, run_time_layers, task_sources

#: XCom with the manifest's URI and headline numbers of each attempt.
SUMMARY_KEY = "dbnd"


class DbndOperatorMixin:
    """Runs one of our functions through ``core.execute`` with what Airflow knows of the run."""

    python_callable: Any
    op_kwargs: Mapping[str, Any]
    parameters: dict[str, Any] | None
    overwrite_rtif_after_execution: bool
    _arguments: Mapping[str, Value] | None = None
    _engine: str | None = None
    _reuse: str | None = None
    _stand_in: Any = None

    takes_artifact_references = True

    @property
    def binding(self) -> Binding:
        """The call that made this operator."""
        binding: Binding = self.python_callable.binding
        return binding

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Render, and resolve the parameters, so that the UI shows them from the start."""
        super().render_template_fields(context, jinja_env)  # type: ignore[misc]
        self._resolve(context)

    def run_function(self, context: Mapping[str, Any]) -> Manifest:
        """Run the function on the resolved parameters, and push the summary."""
        spec = self.task_spec(context)

        def run(spec: TaskSpec) -> Manifest:
            manifest = self.run_switched(context, spec)
            if manifest is None:
                definition, settings = self.binding.definition, self.binding.dag.settings
                manifest = execute_in_process(spec, definition, settings)
            return manifest

        return self.finished(context, spec, self.reusing(spec, run))

    def reusing(self, spec: TaskSpec, run: Callable[[TaskSpec], Manifest]) -> Manifest:
        """Run the function, unless a stored result stands for this attempt."""
        binding = self.binding
        if binding.definition.kind == "sensor":
            return run(spec)
        option, wanted = binding.reuse, self._reuse
        return run_or_reuse(spec, binding.definition, run, option=option, wanted=wanted)

    def run_switched(self, context: Mapping[str, Any], spec: TaskSpec) -> Manifest | None:
        """Run the function on the engine that this run names, if it is another than the task's own."""
        binding = self.binding
        if self._engine is None or binding.switch is None or self._engine == binding.engine.name:
            return None
        manifest: Manifest = binding.switch(
            spec, self._engine, context=context, started=self._stands_in
        )
        return manifest

    def _stands_in(self, operator: Any) -> None:
        self._stand_in = operator

    def on_kill(self) -> None:
        """Kill what runs the function elsewhere."""
        if self._stand_in is not None:
            self._stand_in.on_kill()
        else:
            super().on_kill()  # type: ignore[misc]

    def task_spec(self, context: Mapping[str, Any]) -> TaskSpec:
        """Return what this attempt is to run."""
        if self._arguments is None:
            # Airflow renders the fields of a mapped task without asking the task itself.
            self._resolve(context)
            self.overwrite_rtif_after_execution = True
        assert self._arguments is not None
        return TaskSpec(
            identity=_identity(context),
            arguments=self._arguments,
            store=artifact_store(self.binding.dag.settings),
            elements=next(iter(self.iter_mapped_dependants()), None) is not None,  # type: ignore[attr-defined]
        )

    def finished(self, context: Mapping[str, Any], spec: TaskSpec, manifest: Manifest) -> Manifest:
        """Push the summary of an attempt that ended well."""
        context["ti"].xcom_push(SUMMARY_KEY, _summary(spec, manifest))
        return manifest

    def _resolve(self, context: Mapping[str, Any]) -> None:
        task_id, definition = context["ti"].task_id, self.binding.definition
        sources = task_sources(self.binding, run_time_layers(context), task_id)
        self._engine = wanted(ENGINE, task_id, definition.signature, sources)
        self._reuse = wanted(REUSE, task_id, definition.signature, sources)
        resolved = arguments_of(task_id, definition, self._given(context), sources)
        self._arguments = {
            name: value_of_run(_identity(context), definition.signature.inputs[name], value)
            for name, value in resolved.items()
        }
        self._show(task_id, self._arguments)

    def push_outputs(self, context: Mapping[str, Any], manifest: Manifest) -> Any:
        """Push each output under its name; return the one that is the return value."""
        signature = self.binding.definition.signature
        if signature.shape == "none":
            return None
        if signature.shape == "single":
            return manifest.outputs[signature.outputs[0].name]
        for name, value in manifest.outputs.items():
            context["ti"].xcom_push(name, value)
        return None

    def _given(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of this call: rendered, and pipeline parameters with their source."""
        definition, mapped = self.binding.definition, self.binding.mapped
        inputs = definition.signature.inputs
        given: dict[str, Any] = {}
        for name, value in self.op_kwargs.items():
            argument = unmarked(definition, mapped, name, value)
            given[name] = self._resolved(argument, argument, context)
        for name, argument in self.binding.arguments.items():
            if isinstance(argument, BuildParameter):
                value = parameter_value(argument, context)
                if value is None:
                    given.pop(name, None)
                else:
                    given[name] = argument.as_type(value)
            elif isinstance(argument, TaskResult):
                source = f"task {argument.operator.task_id}"
                given[name] = Value(value=given[name], source=source, base="")
            elif name in given and inputs[name].declaration.hidden and not _holds_hidden(argument):
                given[name] = self.render_template(argument, context)  # type: ignore[attr-defined]
            else:
                given[name] = self._resolved(argument, given[name], context)
        return given

    def _resolved(self, argument: Any, rendered: Any, context: Mapping[str, Any]) -> Any:
        """Return a rendered list or dict with the hidden parameters in it, if there are some."""
        if not _holds_hidden(argument):
            return rendered
        whole = _unmasked(argument, rendered, context)
        return Value(value=whole, source="call", base=self.binding.dag.settings.base, hidden=True)

    def _show(self, task_id: str, arguments: Mapping[str, Value]) -> None:
        """Leave the resolved parameters for the rendered fields of the UI, which are plain JSON."""
        from airflow.sdk.log import mask_secret

        inputs = self.binding.definition.signature.inputs
        self.op_kwargs = to_json(self.op_kwargs)
        self.parameters = {}
        for name, value in arguments.items():
            if value.hidden:
                mask_secret([*hidden_texts(task_id, inputs[name], value)])
            shown = MASK if value.hidden else to_json(value.value)
            self.parameters[name] = {"value": shown, "source": value.source}


class DbndOperator(DbndOperatorMixin, DecoratedOperator):
    """One call of a ``@task`` function."""

    custom_operator_name = "@task.dbnd"
    template_fields: Sequence[str] = ("op_args", "op_kwargs", "parameters")
    template_fields_renderers = {"op_args": "py", "op_kwargs": "py", "parameters": "json"}
    ui_color = "#e3f2ec"

    def __init__(self, **kwargs: Any) -> None:
        self.parameters = None
        super().__init__(**kwargs)

    def execute(self, context: Any) -> Any:
        """Run the function; its results go to the store, references to XCom."""
        return self.push_outputs(context, self.run_function(context))


def _holds_hidden(argument: Any) -> bool:
    return any(isinstance(leaf, BuildParameter) and leaf.hidden for leaf in walk(argument))


def _unmasked(argument: Any, rendered: Any, context: Mapping[str, Any]) -> Any:
    """Return a rendered list or dict with hidden parameters' values, which rendering left out."""
    if type(argument) in (list, tuple):
        return [_unmasked(a, r, context) for a, r in zip(argument, rendered, strict=True)]
    if type(argument) is dict:
        return {k: _unmasked(v, rendered[k], context) for k, v in argument.items()}
    if not (isinstance(argument, BuildParameter) and argument.hidden):
        return rendered
    value = parameter_value(argument, context)
    return value and argument.as_type(value).value


def _identity(context: Mapping[str, Any]) -> Identity:
    ti = context["ti"]
    date = context.get("logical_date")
    return Identity(
        pipeline=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
        logical_date=date.isoformat() if date else None,
        partition=getattr(context["dag_run"], "partition_key", None),
    )


def _summary(spec: TaskSpec, manifest: Manifest) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "manifest": spec.store.uri(manifest.identity.key()),
        "seconds": manifest.seconds,
    }
    if manifest.metrics:
        summary["metrics"] = dict(manifest.metrics)
    if manifest.engine:
        summary["engine"] = dict(manifest.engine)
    if hit := manifest.reuse.get("hit"):
        summary["reused"] = {"run_id": hit["run_id"], "saved_seconds": hit["seconds"]}
    if manifest.published:
        summary["published"] = dict(manifest.published)
    return summary
