"""Which runs are live. What is kept in memory here is one entry for each run, whatever it left."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from airflow_provider_dbnd.core.gc.policy import Policy
from airflow_provider_dbnd.core.manifest import RUNS
from airflow_provider_dbnd.core.past.history import TEST_RUN
from airflow_provider_dbnd.core.past.tags import Promotion
from airflow_provider_dbnd.core.remote.job import JOBS, SPECS
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore

#: A run as in keys: pipeline and id.
RunKey = tuple[str, str]


def run_of(name: str) -> RunKey | None:
    """Return the run that a manifest, a spec or a job record is of."""
    parts = name.split("/")
    return (parts[1], parts[2]) if len(parts) > 3 else None


class Runs:
    """The runs of a store, and which of them are live."""

    def __init__(
        self, store: ArtifactStore, policy: Policy, tags: Iterable[Promotion], now: float
    ) -> None:
        self._written: dict[RunKey, float] = {}
        self._kept: set[RunKey] = {
            (key(tag.pipeline), key(tag.run_id)) for tag in tags if tag.run_id is not None
        }
        for folder in (RUNS, SPECS, JOBS):
            for found in store.list(folder):
                run = run_of(found.key)
                if run is None:
                    continue
                # Where a file system has no times nothing is old.
                time = found.mtime or math.inf
                self._written[run] = max(time, self._written.get(run, 0.0))
                if folder == JOBS:
                    self._kept.add(run)
        self._keep(policy, now)

    def live(self, run: RunKey) -> bool:
        """Tell whether a run is live; one that was not there is none."""
        return run in self._kept

    @property
    def counts(self) -> tuple[int, int]:
        """How many runs are live, and how many are not."""
        live = sum(run in self._kept for run in self._written)
        return live, len(self._written) - live

    def _keep(self, policy: Policy, now: float) -> None:
        if policy.keeps_all():
            self._kept.update(self._written)
            return
        days = 0.0 if policy.keep_days is None else policy.keep_days * 86400
        since = now - max(days, policy.grace.total_seconds())
        self._kept.update(run for run, time in self._written.items() if time > since)
        if not policy.keep_last:
            return
        by_pipeline: dict[str, list[RunKey]] = defaultdict(list)
        for run in self._written:
            if not run[1].startswith(TEST_RUN):
                by_pipeline[run[0]].append(run)
        for runs in by_pipeline.values():
            runs.sort(key=self._written.__getitem__, reverse=True)
            self._kept.update(runs[: policy.keep_last])
