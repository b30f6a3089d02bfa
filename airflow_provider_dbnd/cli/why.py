"""``dbnd why``: what would be reused now, and why not."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_dbnd.cli.run import graph_of, prepare
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.resolution import REUSE, wanted
from airflow_provider_dbnd.core.reuse.attempt import Foreseen, duration, foresee
from airflow_provider_dbnd.core.runner import Runner
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ConfigurationError, ParameterError


class _WouldRun(ParameterError):
    """Stands for a task that would run: not tried again, and nothing that depends on it is asked."""


class _Foresight(Runner):
    """Goes through a graph without running or writing anything."""

    def _run(self, spec: TaskSpec, definition: Definition) -> Manifest:
        task_id = spec.identity.task_id
        said = wanted(REUSE, task_id, definition.signature, self.sources)
        found = foresee(spec, definition, option=definition.options.get("reuse"), wanted=said)
        index = spec.identity.map_index
        self.foreseen[task_id if index < 0 else f"{task_id}[{index}]"] = found
        if found.hit is None:
            raise _WouldRun(task_id)
        return found.hit

    def look(self) -> dict[str, Foreseen]:
        """Return what would become of each task."""
        self.foreseen: dict[str, Foreseen] = {}
        self.run()
        for node_id in self.graph.nodes:
            if not any(name.partition("[")[0] == node_id for name in self.foreseen):
                reason = "what it depends on would run, and its result is not known yet"
                self.foreseen[node_id] = Foreseen(reasons=(reason,))
        return self.foreseen


def why(target: str, task: str | None, assignments: Sequence[str], environment: str | None) -> int:
    """Print for each task, or for one, what a run would do with it and why."""
    prepared = prepare(target, assignments, environment)
    graph = graph_of(prepared)
    if task is not None and task not in graph.nodes:
        raise ConfigurationError(f"{target} has no task {task!r}{did_you_mean(task, graph.nodes)}")
    settings = prepared.settings
    store = ArtifactStore(settings.store, storage_options=settings.storage_options)
    for name, found in _Foresight(graph, prepared.sources, store).look().items():
        if task is None or name.partition("[")[0] == task:
            _print(name, found)
    return 0


def _print(name: str, found: Foreseen) -> None:
    if found.hit is not None:
        run, saves = found.hit.identity.run_id, duration(found.hit.seconds)
        print(f"{name}: would be reused from run {run} (saves {saves})")
        return
    first, *others = found.reasons
    print(f"{name}: would run, {first}")
    for change in others:
        print(f"  {change}")
