"""Run a graph here: in order, in this process, on the same store and through the same execution."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, arguments_of, execute
from airflow_provider_dbnd.core.graph import Graph, Node, NodeHandle, expand
from airflow_provider_dbnd.core.manifest import Identity, Manifest
from airflow_provider_dbnd.core.parameters import MISSING, Parameter
from airflow_provider_dbnd.core.resolution import Sources, Value, resolve
from airflow_provider_dbnd.core.standin import BuildParameter
from airflow_provider_dbnd.core.store import ArtifactStore
from airflow_provider_dbnd.core.values import Decoder, part_of
from airflow_provider_dbnd.exceptions import GraphError, ParameterError, TaskFailedError

log = logging.getLogger("airflow_provider_dbnd")

State = Literal["success", "failed", "upstream_failed"]

#: The trigger rules that mean something without a scheduler.
_RULES: Mapping[str, Callable[[list[State]], bool]] = {
    "all_success": lambda states: all(s == "success" for s in states),
    "all_done": lambda states: True,
    "one_success": lambda states: "success" in states or not states,
    "none_failed": lambda states: all(s == "success" for s in states),
    "all_failed": lambda states: all(s != "success" for s in states),
    "always": lambda states: True,
}


@dataclass(kw_only=True)
class Outcome:
    """What became of one node: its state, and the manifests of its instances in map order."""

    state: State
    manifests: list[Manifest] = field(default_factory=list)
    error: BaseException | None = None
    mapped: bool = False


@dataclass(kw_only=True)
class RunResult:
    """A finished local run."""

    run_id: str
    outcomes: dict[str, Outcome]
    _load: Callable[[], Any]

    @property
    def success(self) -> bool:
        return all(o.state == "success" for o in self.outcomes.values())

    def value(self) -> Any:
        """Load what the pipeline returned."""
        return self._load()


Listener = Callable[[str, Node, "Outcome | None"], None]


def new_run_id(now: dt.datetime | None = None) -> str:
    """Return an id for a local run: sortable by time, unique."""
    now = now or dt.datetime.now(dt.timezone.utc)
    return f"local__{now.strftime('%Y-%m-%dT%H-%M-%S')}_{secrets.token_hex(3)}"


class Runner:
    """Runs one graph.

    :param parallel: how many tasks may run at once, each in a thread of this process.
    :param listener: called with ("started" | "finished", node, outcome) as tasks go.
    """

    def __init__(
        self,
        graph: Graph,
        sources: Sources,
        store: ArtifactStore,
        *,
        run_id: str | None = None,
        logical_date: str | None = None,
        parallel: int = 1,
        listener: Listener | None = None,
    ) -> None:
        self.graph, self.sources, self.store = graph, sources, store
        self.run_id = run_id or new_run_id()
        self.logical_date = logical_date or dt.datetime.now(dt.timezone.utc).date().isoformat()
        self._parallel = parallel
        self._listener = listener or (lambda event, node, outcome: None)
        self._outcomes: dict[str, Outcome] = {}

    def run(self) -> RunResult:
        """Run every task whose upstream allows it; a failure stops only what depends on it."""
        if self._parallel > 1:
            self._run_parallel()
        else:
            for node in order(self.graph):
                self._finish(node, self._run_node(node))
        return RunResult(run_id=self.run_id, outcomes=self._outcomes, _load=self._result)

    def _run_parallel(self) -> None:
        waiting = {node.id: node for node in order(self.graph)}
        active: dict[Future[Outcome], Node] = {}
        with ThreadPoolExecutor(self._parallel, thread_name_prefix="dbnd") as pool:
            while waiting or active:
                for node in [n for n in waiting.values() if n.upstream <= self._outcomes.keys()]:
                    # A fresh context each: threads share neither attempts nor builders.
                    active[pool.submit(copy_context().run, self._run_node, node)] = waiting.pop(
                        node.id
                    )
                done, _ = wait(active, return_when=FIRST_COMPLETED)
                for future in done:
                    self._finish(active.pop(future), future.result())

    def _finish(self, node: Node, outcome: Outcome) -> None:
        self._outcomes[node.id] = outcome
        self._listener("finished", node, outcome)

    def _run_node(self, node: Node) -> Outcome:
        mapped = node.call.mapped is not None
        states = [self._outcomes[u].state for u in sorted(node.upstream)]
        if not _rule(node)(states):
            return Outcome(state="upstream_failed", mapped=mapped)
        self._listener("started", node, None)
        manifests: list[Manifest] = []
        try:
            given = {name: self._given(value) for name, value in node.call.arguments.items()}
            for index, extra in self._instances(node):
                manifests.append(self._attempts(node, {**given, **extra}, index))
        except Exception as exc:  # noqa: BLE001 - a task's error is the user's; it is kept and reported, not handled
            return Outcome(state="failed", manifests=manifests, error=exc, mapped=mapped)
        return Outcome(state="success", manifests=manifests, mapped=mapped)

    def _instances(self, node: Node) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (map index, mapped arguments); one unmapped instance for a plain call."""
        if node.call.mapped is None:
            yield -1, {}
            return
        yield from enumerate(expand(node.id, node.call.mapped, self._plain))

    def _attempts(self, node: Node, given: dict[str, Any], index: int) -> Manifest:
        definition = node.call.definition
        retries = int(definition.options.get("retries") or 0)
        for number in range(1, retries + 2):
            try:
                return self._attempt(node, given, index, number)
            except Exception as exc:
                if number > retries:
                    raise
                log.warning("task %s, try %d of %d failed: %s", node.id, number, retries + 1, exc)
                time.sleep(_seconds(definition.options.get("retry_delay", 0)))
        raise AssertionError("unreachable")

    def _attempt(self, node: Node, given: dict[str, Any], index: int, number: int) -> Manifest:
        definition = node.call.definition
        identity = Identity(
            pipeline=self.graph.name,
            run_id=self.run_id,
            task_id=node.id,
            map_index=index,
            try_number=number,
            logical_date=self.logical_date,
        )
        spec = TaskSpec(
            identity=identity,
            arguments=arguments_of(node.id, definition, given, self.sources),
            store=self.store,
            elements=node.id in self._fanned_out(),
        )
        if definition.kind == "sensor":
            return self._poke(spec, definition)
        return execute(spec, definition)

    def _poke(self, spec: TaskSpec, definition: Definition) -> Manifest:
        """Call a sensor until it is satisfied, as Airflow's poke mode does."""
        interval = _seconds(definition.options.get("poke_interval", 60))
        deadline = time.monotonic() + _seconds(definition.options.get("timeout", 7 * 24 * 3600))
        while True:
            manifest = execute(spec, definition)
            if next(iter(manifest.outputs.values()), False):
                return manifest
            if time.monotonic() + interval > deadline:
                raise TaskFailedError(
                    f"Sensor {spec.identity.task_id!r} was not satisfied before its timeout."
                )
            time.sleep(interval)

    def _fanned_out(self) -> frozenset[str]:
        """Ids of nodes whose result some other node expands over."""
        return frozenset(
            handle._node.id
            for node in self.graph.nodes.values()
            if node.call.mapped is not None
            for handle in (
                node.call.mapped.values()
                if isinstance(node.call.mapped, Mapping)
                else [node.call.mapped]
            )
            if isinstance(handle, NodeHandle)
        )

    def _given(self, value: Any) -> Any:
        """Replace handles by what their tasks left and parameters by their values."""
        if isinstance(value, BuildParameter):
            return self._parameter(value)
        if isinstance(value, NodeHandle):
            return self._output(value)
        if type(value) in (list, tuple):
            return [self._plain(v) for v in value]
        if type(value) is dict:
            return {k: self._plain(v) for k, v in value.items()}
        return value

    def _plain(self, value: Any) -> Any:
        given = self._given(value)
        return given.value if isinstance(given, Value) else given

    def _parameter(self, parameter: BuildParameter) -> Any:
        value = parameter.value or resolve(parameter.owner, parameter.spec, MISSING, self.sources)
        if value is not None:
            return value
        raise ParameterError(
            f"parameter {parameter.spec.name!r} of pipeline {parameter.owner!r} has no value. Set it by "
            f"--set {parameter.spec.name}=..., or give it a default."
        )

    def _output(self, handle: NodeHandle) -> Any:
        outcome = self._outcomes[handle._node.id]
        if not outcome.manifests and not outcome.mapped:
            return None
        signature = handle._definition.signature
        values = [part_of(m.outputs, signature, handle._path) for m in outcome.manifests]
        return values if outcome.mapped else values[0]

    def _result(self) -> Any:
        import tempfile

        scratch = tempfile.mkdtemp(prefix="dbnd-")
        decoder = Decoder(store=self.store, scratch=scratch)
        return self._loaded(self.graph.result, decoder)

    def _loaded(self, value: Any, decoder: Decoder) -> Any:
        if isinstance(value, NodeHandle):
            slot = value._slot()
            encoded = self._output(value)
            loaded = decoder.load(
                encoded, value._node.id, slot.annotation if slot else Any, Parameter(), ""
            )
            return (
                value._definition.signature.join(loaded)
                if isinstance(loaded, dict) and value._names()
                else loaded
            )
        if type(value) in (list, tuple):
            return type(value)(self._loaded(v, decoder) for v in value)
        if type(value) is dict:
            return {k: self._loaded(v, decoder) for k, v in value.items()}
        return value


def order(graph: Graph) -> list[Node]:
    """Return the nodes so that each comes after its upstream; raise GraphError on a cycle."""
    ordered: dict[str, Node] = {}
    waiting = dict(graph.nodes)
    while waiting:
        ready = [n for n in waiting.values() if n.upstream <= ordered.keys()]
        if not ready:
            raise GraphError(
                f"Tasks wait for each other in a circle: {', '.join(sorted(waiting))}."
            )
        for node in ready:
            ordered[node.id] = waiting.pop(node.id)
    return list(ordered.values())


def _rule(node: Node) -> Callable[[list[State]], bool]:
    name = (
        str(node.call.definition.options.get("trigger_rule", "all_success"))
        .rpartition(".")[2]
        .lower()
    )
    if name not in _RULES:
        raise GraphError(
            f"task {node.id!r}: a local run knows the trigger rules {', '.join(_RULES)}, not {name!r}. Run it in Airflow."
        )
    return _RULES[name]


def _seconds(value: Any) -> float:
    return value.total_seconds() if isinstance(value, dt.timedelta) else float(value)
