"""What a clean-up found and did, by pipeline and task."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core.past.history import readable


@dataclass(kw_only=True, slots=True)
class Tally:
    """A number of objects, and their bytes."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int, objects: int = 1) -> None:
        """Count one more."""
        self.objects += objects
        self.bytes += size

    def to_json(self) -> dict[str, int]:
        """Return the stored form."""
        return {"objects": self.objects, "bytes": self.bytes}


@dataclass(kw_only=True, slots=True)
class Report:
    """The numbers of a clean-up. ``dead`` and ``live`` are artifacts by pipeline and task.

    ``other`` is what goes besides artifacts, by kind. ``spared`` counts what was to go and was
    written, claimed or gone when its turn came.
    """

    store: str
    delete: bool
    runs_live: int = 0
    runs_dead: int = 0
    dead: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    live: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    other: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    young: Tally = field(default_factory=Tally)
    spared: int = 0

    @property
    def total(self) -> Tally:
        """All that goes."""
        each = [*self.dead.values(), *self.other.values()]
        return Tally(objects=sum(t.objects for t in each), bytes=sum(t.bytes for t in each))

    def to_json(self) -> dict[str, Any]:
        """Return the form for other programs."""
        return {
            "store": self.store,
            "deleted": self.delete,
            "runs": {"live": self.runs_live, "dead": self.runs_dead},
            "tasks": [
                {
                    "pipeline": readable(pipeline),
                    "task": readable(task),
                    "dead": self.dead.get((pipeline, task), Tally()).to_json(),
                    "live": self.live.get((pipeline, task), Tally()).to_json(),
                }
                for pipeline, task in sorted({*self.dead, *self.live})
            ],
            "other": {kind: tally.to_json() for kind, tally in sorted(self.other.items())},
            "young": self.young.to_json(),
            "spared": self.spared,
            "total": self.total.to_json(),
        }
