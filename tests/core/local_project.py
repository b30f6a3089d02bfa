"""A project folder, and runs in it without Airflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core.build import build_graph
from airflow_provider_dbnd.core.graph import Graph
from airflow_provider_dbnd.core.resolution import Sources
from airflow_provider_dbnd.core.runner import Runner, RunResult
from airflow_provider_dbnd.core.settings import Layer, load_settings
from airflow_provider_dbnd.core.storage.store import ArtifactStore


@dataclass(kw_only=True)
class Project:
    """A folder with a store; runs pipelines as `dbnd run` does."""

    folder: Path

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(load_settings(self.folder).store)

    def sources(
        self, runnable: Any, given: Mapping[str, Any], environment: str | None = None
    ) -> Sources:
        layer = Layer(values=dict(given), source="--set", base=os.getcwd())
        settings = load_settings(self.folder, environment=environment)
        return Sources(settings=settings, root=runnable.definition.name, run_time=(layer,))

    def graph(
        self, runnable: Any, given: Mapping[str, Any] | None = None, environment: str | None = None
    ) -> Graph:
        return build_graph(runnable.definition, self.sources(runnable, given or {}, environment))

    def run(
        self,
        runnable: Any,
        given: Mapping[str, Any] | None = None,
        *,
        environment: str | None = None,
        **options: Any,
    ) -> RunResult:
        """Run; *given* is what --set gives, *options* are the runner's."""
        sources = self.sources(runnable, given or {}, environment)
        graph = build_graph(runnable.definition, sources)
        return Runner(graph, sources, self.store, **options).run()

    def value(self, runnable: Any, given: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run, and return what the pipeline returned."""
        result = self.run(runnable, given, **options)
        for outcome in result.outcomes.values():
            if outcome.error is not None:
                raise outcome.error
        return result.value()

    def configure(self, toml: str) -> None:
        (self.folder / "dbnd.toml").write_text(toml)
