"""The record of one attempt: what ran, with which values, on which data, and what came of it."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from airflow_provider_dbnd.core.resolution import shown
from airflow_provider_dbnd.core.storage.claims import settle
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError

VERSION = 1

#: Folder of the store that holds manifests.
RUNS = "_runs"

Status = Literal["success", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Names one attempt. ``map_index`` is -1 for a task that is not mapped, as in Airflow."""

    pipeline: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    logical_date: str | None = None
    partition: str | None = None

    def key(self) -> str:
        """Return where this attempt's manifest is in the store: a pure function of the identity."""
        return key(
            RUNS,
            self.pipeline,
            self.run_id,
            self.task_id,
            str(self.map_index),
            f"{self.try_number}.json",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterRecord:
    """A parameter as it was used: shown value (masked where hidden) and source."""

    value: Any
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CallRecord:
    """A task called inside the running task."""

    task: str
    seconds: float
    status: Status


@dataclass(kw_only=True, slots=True)
class Manifest:
    """Everything recorded about one attempt.

    ``inputs`` and ``outputs`` map a name to JSON: an inline value, a reference, or lists and dicts
    of them. ``engine`` says where it ran: name and type of the engine, its job, the task's spec.
    ``code`` is the fingerprint of the function's code; ``reuse`` the key of the result, what it is
    made of, and under ``hit`` the attempt whose result stands for this one.
    """

    identity: Identity
    status: Status
    started: str
    seconds: float
    function: Mapping[str, Any]
    environment: Mapping[str, Any]
    parameters: Mapping[str, ParameterRecord] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[CallRecord, ...] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, Any] = field(default_factory=dict)
    reuse: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return {"dbnd_manifest": VERSION, **{k: to_json(v) for k, v in asdict(self).items()}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Manifest:
        """Read the stored form."""
        given = {k: v for k, v in document.items() if k != "dbnd_manifest"}
        return cls(
            **{
                **given,
                "identity": Identity(**given["identity"]),
                "parameters": {k: ParameterRecord(**v) for k, v in given["parameters"].items()},
                "calls": tuple(CallRecord(**c) for c in given["calls"]),
            }
        )


def to_json(value: Any) -> Any:
    """Return *value* as plain JSON: what JSON has no word for becomes text."""
    if isinstance(value, enum.Enum):
        return to_json(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(to_json, value), key=repr)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if hasattr(type(value), "model_fields"):
        return {name: to_json(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Path | dt.timedelta):
        return str(value)
    return shown(value)


def write_manifest(store: ArtifactStore, manifest: Manifest) -> str:
    """Commit *manifest*; return its URI. The same attempt run anew replaces it."""
    data = json.dumps(manifest.to_json(), separators=(",", ":"), allow_nan=False).encode()
    where = manifest.identity.key()
    uri = store.put_bytes(where, data, overwrite=True)
    settle(store, where, data)
    return uri


def read_manifest(store: ArtifactStore, where: str) -> Manifest:
    """Read the manifest stored under a key or URI."""
    data = store.get_bytes(where)
    try:
        return Manifest.from_json(json.loads(data))
    except (AttributeError, ValueError, KeyError, TypeError) as exc:
        raise ArtifactCorruptedError(
            f"Manifest {where} in {store.url} cannot be read: expected the JSON of a manifest, "
            f"found {len(data)} bytes that are not ({type(exc).__name__}: {exc}). Delete it and "
            "run the task again."
        ) from exc
