"""A progress bar on a terminal; nothing elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from airflow_provider_dbnd.core.graph import Graph, Node
from airflow_provider_dbnd.core.runner import Outcome


class Progress:
    """Shows how many tasks of a run are done and which one runs."""

    def __init__(self, graph: Graph, *, enabled: bool) -> None:
        self._graph, self._enabled = graph, enabled
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._enabled:
            # rich costs 0.1 s: only where there is someone to see it.
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._graph.name, total=len(self._graph.nodes))
        return self

    def listen(self, event: str, node: Node, _: Outcome | None) -> None:
        """Take an event of the runner."""
        if self._bar is None:
            return
        if event == "started":
            self._bar.update(self._task, description=node.id)
        else:
            self._bar.advance(self._task)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
