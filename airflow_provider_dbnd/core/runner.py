"""Run a graph here: in order, in this process, on the same store and through the same execution."""

from __future__ import annotations

import datetime as dt
import functools
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_dbnd.core import trigger_rules
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, arguments_of, execute, is_skip
from airflow_provider_dbnd.core.graph import (
    Graph,
    Node,
    NodeHandle,
    expand,
    filled_in,
    unwrap,
    with_leaves,
)
from airflow_provider_dbnd.core.manifest import Identity, Manifest
from airflow_provider_dbnd.core.resolution import REUSE, Sources, Value, missing, wanted
from airflow_provider_dbnd.core.restoring import restored
from airflow_provider_dbnd.core.reuse.attempt import run_or_reuse
from airflow_provider_dbnd.core.scratch import process_folder
from airflow_provider_dbnd.core.standin import BuildParameter
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.core.trigger_rules import Rule, State
from airflow_provider_dbnd.core.values import Decoder, part_of
from airflow_provider_dbnd.exceptions import (
    GraphError,
    ParameterError,
    SignatureError,
    TaskFailedError,
)

log = logging.getLogger("airflow_provider_dbnd")


@dataclass(kw_only=True)
class Outcome:
    """What became of one node: its state, and the manifests of its instances in map order.

    ``instances`` are the states that the trigger rules of other nodes count.
    """

    state: State
    instances: Sequence[State] = ()
    manifests: list[Manifest] = field(default_factory=list)
    error: BaseException | None = None
    mapped: bool = False

    def __post_init__(self) -> None:
        self.instances = self.instances or (self.state,)


@dataclass(kw_only=True)
class RunResult:
    """A finished local run."""

    run_id: str
    outcomes: dict[str, Outcome]
    _load: Callable[[], Any]

    @property
    def success(self) -> bool:
        """Whether every task ran and succeeded."""
        return all(o.state in ("success", "skipped") for o in self.outcomes.values())

    def value(self) -> Any:
        """Load what the pipeline returned."""
        return self._load()


Launch = Callable[[TaskSpec, Definition], Manifest]
Listener = Callable[[str, Node, "Outcome | None"], None]


def new_run_id(prefix: str = "local__") -> str:
    """Return an id for a run: sortable by time, unique."""
    now = dt.datetime.now(dt.timezone.utc)
    return f"{prefix}{now.strftime('%Y-%m-%dT%H-%M-%S')}_{secrets.token_hex(3)}"


class Runner:
    """Runs one graph.

    :param parallel: how many tasks may run at once, each in a thread of this process.
    :param launch: runs one attempt; by default in this process.
    :param resumes: *run_id* is of a run that ended before; what it finished is not run again.
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
        launch: Launch = execute,
        resumes: bool = False,
        listener: Listener | None = None,
    ) -> None:
        self.graph, self.sources, self.store = graph, sources, store
        self.run_id = run_id or new_run_id()
        self.logical_date = logical_date or dt.datetime.now(dt.timezone.utc).date().isoformat()
        self._parallel = parallel
        self._launch = launch
        self._resumes = resumes
        self._listen = listener
        self._outcomes: dict[str, Outcome] = {}
        self._running: dict[str, list[Future[Manifest]]] = {}

    def run(self) -> RunResult:
        """Run every task whose upstream allows it; a failure stops only what depends on it."""
        waiting = {node.id: node for node in order(self.graph)}
        for node in waiting.values():
            _rule(node)
        pool = ThreadPoolExecutor(self._parallel, "dbnd") if self._parallel > 1 else _Here()
        try:
            while waiting or self._running:
                for node in [n for n in waiting.values() if n.upstream <= self._outcomes.keys()]:
                    self._start(waiting.pop(node.id), pool)
                self._collect()
        finally:
            # After an interrupt nothing new is started.
            pool.shutdown(cancel_futures=True)
        return RunResult(run_id=self.run_id, outcomes=self._outcomes, _load=self._result)

    def _start(self, node: Node, pool: Executor) -> None:
        """Submit every instance of a node, or decide that it does not run."""
        mapped = node.call.mapped is not None
        upstream = [state for u in node.upstream for state in self._outcomes[u].instances]
        state = _rule(node)(upstream)
        if state is not None:
            self._finish(node, Outcome(state=state, mapped=mapped))
            return
        self._tell("started", node)
        try:
            instances = self._instances(node)
        except Exception as exc:  # noqa: BLE001 - a task's error is the user's: kept and reported
            self._finish(node, Outcome(state="failed", error=exc, mapped=mapped))
            return
        self._running[node.id] = [
            # A fresh context each: threads share neither attempts nor builders.
            pool.submit(copy_context().run, self._attempts, node, given, index)
            for index, given in instances
        ]

    def _collect(self) -> None:
        """Wait for something to end, and finish the nodes all of whose instances have."""
        pending = [f for futures in self._running.values() for f in futures if not f.done()]
        done = [n for n, futures in self._running.items() if all(f.done() for f in futures)]
        if pending and not done:
            wait(pending, return_when=FIRST_COMPLETED)
        for node_id in done:
            node, futures = self.graph.nodes[node_id], self._running.pop(node_id)
            self._finish(node, _outcome(node, futures))

    def _finish(self, node: Node, outcome: Outcome) -> None:
        self._outcomes[node.id] = outcome
        self._tell("finished", node, outcome)

    def _tell(self, event: str, node: Node, outcome: Outcome | None = None) -> None:
        if self._listen is not None:
            self._listen(event, node, outcome)

    def _instances(self, node: Node) -> list[tuple[int, dict[str, Any]]]:
        """Return (map index, arguments) of each instance; a plain call has one of index -1."""
        given = {name: self._filled_in(value) for name, value in node.call.arguments.items()}
        if node.call.mapped is None:
            return [(-1, given)]
        rows = expand(node.id, node.call.mapped, self._filled_in)
        return [(index, {**given, **row}) for index, row in enumerate(rows)]

    def _attempts(self, node: Node, given: dict[str, Any], index: int) -> Manifest:
        definition = node.call.definition
        first = 1 + self._earlier_tries(node.id, index) if self._resumes else 1
        tries = first + int(definition.options.get("retries") or 0)
        for number in range(first, tries + 1):
            spec = self._spec(node, given, index, number)
            try:
                return self._run(spec, definition)
            except (ParameterError, SignatureError):
                raise  # the next try would be the same
            except Exception as exc:
                if number == tries or is_skip(exc):
                    raise
                # The message may hold a hidden value; the manifest has it masked.
                kind, where = type(exc).__name__, self.store.uri(spec.identity.key())
                log.warning(
                    "task %s: try %d of %d failed with %s; its manifest is %s",
                    *(node.id, number, tries, kind, where),
                )
                time.sleep(_seconds(definition.options.get("retry_delay", 0)))
            except SystemExit as exc:
                raise TaskFailedError(f"task {node.id!r} called sys.exit({exc.code!r}).") from exc
        raise AssertionError("unreachable")

    def _earlier_tries(self, task_id: str, index: int) -> int:
        folder = (
            Identity(pipeline=self.graph.name, run_id=self.run_id, task_id=task_id, map_index=index)
            .key()
            .rpartition("/")[0]
        )
        numbers = (i.key.rpartition("/")[2].removesuffix(".json") for i in self.store.list(folder))
        return max(map(int, numbers), default=0)

    def _run(self, spec: TaskSpec, definition: Definition) -> Manifest:
        task_id = spec.identity.task_id
        if definition.kind == "sensor":
            return self._launch(spec, _polling(definition, task_id))
        return run_or_reuse(
            spec,
            definition,
            lambda spec: self._launch(spec, definition),
            option=definition.options.get("reuse"),
            wanted=wanted(REUSE, task_id, definition.signature, self.sources),
        )

    def _spec(self, node: Node, given: dict[str, Any], index: int, number: int) -> TaskSpec:
        identity = Identity(
            pipeline=self.graph.name,
            run_id=self.run_id,
            task_id=node.id,
            map_index=index,
            try_number=number,
            logical_date=self.logical_date,
        )
        return TaskSpec(
            identity=identity,
            arguments=arguments_of(node.id, node.call.definition, given, self.sources),
            store=self.store,
            elements=node.id in self._fanned_out,
        )

    @functools.cached_property
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

    def _filled_in(self, argument: Any) -> Any:
        return filled_in(argument, self._known, self.sources.settings.base)

    def _known(self, value: Any) -> Value | None:
        """Return what a task left or a parameter's value."""
        if isinstance(value, BuildParameter):
            return self._parameter(value)
        if isinstance(value, NodeHandle):
            return Value(value=self._output(value), source=f"task {value._node.id}", base="")
        return None

    def _parameter(self, parameter: BuildParameter) -> Value:
        if parameter.value is None:
            raise missing(parameter.owner, parameter.spec, self.sources, kind="pipeline")
        return parameter.as_type(parameter.value)

    def _output(self, handle: NodeHandle) -> Any:
        outcome = self._outcomes[handle._node.id]
        if not outcome.manifests and not outcome.mapped:
            return None
        signature = handle._definition.signature
        values = [part_of(m.outputs, signature, handle._path) for m in outcome.manifests]
        return values if outcome.mapped else values[0]

    def _result(self) -> Any:
        decoder = Decoder(store=self.store, scratch=process_folder())
        return with_leaves(unwrap(self.graph.result), lambda leaf: self._loaded(leaf, decoder))

    def _loaded(self, leaf: Any, decoder: Decoder) -> Any:
        if isinstance(leaf, NodeHandle):
            return restored(leaf, self._output(leaf), decoder)
        return self._parameter(leaf).value if isinstance(leaf, BuildParameter) else leaf


class _Here(Executor):
    """Runs what is submitted at once, in this thread, where a debugger and Ctrl-C reach it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:  # noqa: BLE001 - asked for by future.exception()
            future.set_exception(exc)
        return future


def order(graph: Graph) -> list[Node]:
    """Return the nodes so that each comes after its upstream; raise GraphError on a cycle."""
    ordered: dict[str, Node] = {}
    waiting = dict(graph.nodes)
    while waiting:
        ready = [n for n in waiting.values() if n.upstream <= ordered.keys()]
        if not ready:
            raise GraphError(
                f"Tasks wait for each other in a circle: {', '.join(sorted(waiting))}. Take one of "
                "their >> or arguments away."
            )
        for node in ready:
            ordered[node.id] = waiting.pop(node.id)
    return list(ordered.values())


def _outcome(node: Node, futures: Sequence[Future[Manifest]]) -> Outcome:
    states = [_state(future.exception()) for future in futures]
    errors = (f.exception() for f, state in zip(futures, states, strict=True) if state == "failed")
    return Outcome(
        # As in Airflow, a task that is mapped over nothing is skipped.
        state=next((s for s in ("failed", "success") if s in states), "skipped"),
        instances=states,
        manifests=[f.result() for f in futures if f.exception() is None],
        error=next(errors, None),
        mapped=node.call.mapped is not None,
    )


def _state(error: BaseException | None) -> State:
    if error is None:
        return "success"
    return "skipped" if is_skip(error) else "failed"


def _rule(node: Node) -> Rule:
    given = str(node.call.definition.options.get("trigger_rule", "all_success"))
    name = given.rpartition(".")[2].lower()
    if name not in trigger_rules.NAMES:
        raise GraphError(
            f"task {node.id!r}: unknown trigger_rule {name!r} in a run without Airflow"
            f"{did_you_mean(name, trigger_rules.NAMES)}"
        )
    return trigger_rules.trigger_rule(name)


def _polling(definition: Definition, task_id: str) -> Definition:
    """Make a sensor's function ask until it is satisfied, as Airflow's poke mode does."""
    interval = _seconds(definition.options.get("poke_interval", 60))
    timeout = _seconds(definition.options.get("timeout", dt.timedelta(days=7)))

    @functools.wraps(definition.function)
    def poll(*args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            result = definition.function(*args, **kwargs)
            if result is not None and result is not False:
                return result
            if time.monotonic() + interval > deadline:
                raise TaskFailedError(
                    f"sensor {task_id!r} was not satisfied within {timeout:g} s (timeout=...)."
                )
            time.sleep(interval)

    return replace(definition, signature=replace(definition.signature, function=poll))


def _seconds(value: Any) -> float:
    return value.total_seconds() if isinstance(value, dt.timedelta) else float(value)
