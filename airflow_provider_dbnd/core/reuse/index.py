"""Where results are found by their key: small records in the store that point at manifests."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.manifest import Identity, Manifest, read_manifest
from airflow_provider_dbnd.core.references import references
from airflow_provider_dbnd.core.reuse.ticket import Ticket
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import verify
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError, DbndError

#: Folder of the store: results by key, and the parts of each task's last key.
REUSE = "_reuse"


@dataclass(frozen=True, kw_only=True, slots=True)
class Miss:
    """Why no stored result stands for a run."""

    reason: str


def find(
    store: ArtifactStore, ticket: Ticket, ttl: dt.timedelta | None, scratch: str
) -> Manifest | Miss:
    """Return the manifest of the result with the ticket's key, if all of it is there and intact."""
    try:
        data = store.get_bytes(_result(ticket.key))
    except ArtifactNotFoundError:
        return Miss(reason="no result with this key")
    try:
        record = json.loads(data)
        manifest = read_manifest(store, record["manifest"])
        stamps: Mapping[str, str | None] = record["stamps"]
    except (DbndError, ValueError, KeyError, TypeError) as exc:
        return Miss(reason=f"the record of the result cannot be read: {exc}")
    if manifest.status != "success" or manifest.reuse.get("key") != ticket.key:
        return Miss(reason="the attempt that the record names was run anew since")
    made = dt.datetime.fromisoformat(manifest.started)
    if ttl is not None and dt.datetime.now(dt.timezone.utc) - made > ttl:
        return Miss(reason=f"the result of {manifest.started} is older than {ttl}")
    return damage(store, manifest, stamps, scratch) or manifest


def damage(
    store: ArtifactStore, manifest: Manifest, stamps: Mapping[str, str | None], scratch: str
) -> Miss | None:
    """Return what is wrong with the stored outputs of *manifest*, or None where they are intact.

    :param stamps: of objects that were intact when they had that stamp; all others are read whole.
    """
    for artifact in map(Artifact.from_json, references(manifest.outputs)):
        stamp = stamps.get(artifact.uri)
        try:
            if stamp is None or store.stamp(artifact.uri) != stamp:
                verify(store, artifact, scratch)
        except DbndError as exc:
            return Miss(reason=f"the result is not intact: {exc}")
    return None


def record(store: ArtifactStore, manifest: Manifest) -> None:
    """Let later runs find the result of *manifest*, which is committed."""
    uris = [each["uri"] for each in references(manifest.outputs)]
    stamps = {uri: store.stamp(uri) for uri in uris}
    document = {"manifest": manifest.identity.key(), "stamps": stamps}
    store.put_bytes(_result(manifest.reuse["key"]), json.dumps(document).encode(), overwrite=True)
    last = {"parts": manifest.reuse["parts"], "run_id": manifest.identity.run_id}
    store.put_bytes(_last(manifest.identity), json.dumps(last).encode(), overwrite=True)


def changed_parts(store: ArtifactStore, identity: Identity, ticket: Ticket) -> Iterator[str]:
    """Yield what is different since the last result of this task, in words."""
    try:
        data = store.get_bytes(_last(identity))
    except ArtifactNotFoundError:
        yield "this task has no earlier result"
        return
    try:
        last = json.loads(data)
        before: Mapping[str, str] = last["parts"]
    except (ValueError, KeyError, TypeError) as exc:
        yield f"the record of the last result cannot be read ({exc})"
        return
    for name in sorted({*before, *ticket.parts}):
        old, new = before.get(name), ticket.parts.get(name)
        if old != new:
            yield f"{name}: {old or 'was not there'} -> {new or 'is gone'}"


def _result(digest: str) -> str:
    return key(REUSE, "results", digest[:2], f"{digest}.json")


def _last(identity: Identity) -> str:
    return key(REUSE, "last", identity.pipeline, identity.task_id, f"{identity.map_index}.json")
