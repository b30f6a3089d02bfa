"""Tags: a name, such as ``prod``, that a person or a pipeline moves from version to version.

Each promotion is a small JSON document of its own below ``_tags/``, under a key that sorts by time:
none is ever changed, the last one holds, and all of them are the history. Two that promote at once
need no lock; the later one wins. A document holds the references themselves, so what a tag means
does not change when a run is repeated under its id or its manifests are removed.
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
import logging
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow_provider_dbnd.core.past.addresses import Address, Selector
from airflow_provider_dbnd.core.past.history import readable
from airflow_provider_dbnd.core.past.versions import Version
from airflow_provider_dbnd.core.references import data_digest
from airflow_provider_dbnd.core.storage.claims import claim
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.core.values import select
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ParameterError,
)

log = logging.getLogger("airflow_provider_dbnd")

#: Folder of the store that holds promotions: ``_tags/{pipeline}/{task}/{output}/{tag}/{time}.json``.
TAGS = "_tags"

_VERSION = 1
_NAMES = 4
_FILE = re.compile(r"\d{20}-[0-9a-f]{8}\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """One move of a tag: to the version of a run, or away from all where ``run_id`` is None."""

    tag: str
    pipeline: str
    task: str
    output: str
    at: str
    by: str | None = None
    run_id: str | None = None
    ended: str | None = None
    partition: str | None = None
    mapped: bool = False
    encoded: Any = None

    @property
    def address(self) -> Address:
        """The output the tag is on."""
        return Address(pipeline=self.pipeline, task=self.task, output=self.output)

    @property
    def digest(self) -> str | None:
        """The digest of the version's data."""
        return None if self.run_id is None else data_digest(self.encoded)

    def version(self, store: ArtifactStore) -> Version:
        """Return the version the tag was moved to."""
        assert self.run_id is not None
        assert self.ended is not None
        return Version(
            store=store,
            address=self.address,
            run_id=self.run_id,
            encoded=self.encoded,
            ended=dt.datetime.fromisoformat(self.ended),
            mapped=self.mapped,
            partition=self.partition,
        )


def promote(version: Version, tag: str) -> Promotion:
    """Move *tag* to a version of an output."""
    address = version.address
    if address.index is not None or address.path:
        raise ParameterError(
            f"a tag is on a whole output, not on {address}: leave the part in brackets out."
        )
    claim(version.store, version.encoded)
    promotion = _promotion(
        address,
        tag,
        run_id=version.run_id,
        ended=version.ended.isoformat(),
        partition=version.partition,
        mapped=version.mapped,
        encoded=version.encoded,
    )
    _write(version.store, promotion)
    return promotion


def demote(store: ArtifactStore, address: Address, tag: str) -> list[Promotion]:
    """Take *tag* off an output, or off all outputs of a task; its history stays."""
    holding = [p for p in tags(store, address) if p.tag == tag]
    if not holding:
        raise _unknown_tag(store, address, tag)
    removed = [_promotion(p.address, tag) for p in holding]
    for promotion in removed:
        _write(store, promotion)
    return removed


def tags(
    store: ArtifactStore, address: Address | None = None, *, skip_damaged: bool = False
) -> Iterator[Promotion]:
    """Yield the promotions that hold: for all outputs, or those of a pipeline, task or output."""
    for keys in _keys(store, _prefix(address)).values():
        for promotion in _read_all(store, keys[-1:], skip_damaged):
            if promotion.run_id is not None:
                yield promotion


def promotions(
    store: ArtifactStore, address: Address | None = None, *, skip_damaged: bool = False
) -> Iterator[Promotion]:
    """Yield every promotion there was, the newest first within an output and tag."""
    for keys in _keys(store, _prefix(address)).values():
        yield from _read_all(store, reversed(keys), skip_damaged)


def tagged(store: ArtifactStore, address: Address, chosen: Selector) -> dict[str, Version]:
    """Return the versions that a tag holds, or held as of a time, by output."""
    assert chosen.tag is not None
    whole = replace(address, index=None, path=())
    found = [p for p in _holding(store, whole, chosen) if p.run_id is not None]
    if not found:
        raise _unknown_tag(store, whole, chosen.tag, chosen.as_of)
    runs = {promotion.run_id: promotion.output for promotion in found}
    if len(runs) > 1:
        said = " and ".join(f"{output!r} of run {run}" for run, output in runs.items())
        raise ParameterError(
            f"tag {chosen.tag!r} of {whole} is on {said}: load them one by one, or promote the "
            "outputs of one run together."
        )
    return {p.output: _part(p.version(store), address) for p in found}


def _holding(store: ArtifactStore, address: Address, chosen: Selector) -> Iterator[Promotion]:
    assert chosen.tag is not None
    for (*_, tag), keys in _keys(store, _prefix(address)).items():
        if tag != key(chosen.tag):
            continue
        for each in reversed(keys):
            promotion = _read(store, each)
            if chosen.as_of is None or dt.datetime.fromisoformat(promotion.at) <= chosen.as_of:
                yield promotion
                break


def _part(version: Version, address: Address) -> Version:
    encoded, mapped = version.encoded, version.mapped
    if address.index is not None:
        if not mapped or address.index >= len(encoded):
            raise ArtifactNotFoundError(
                f"{version.name} has no instance {address.index}: "
                + (f"it has the instances 0 to {len(encoded) - 1}." if mapped else "not mapped.")
            )
        encoded, mapped = encoded[address.index], False
    if address.path:
        encoded = (
            [select(e, address.path) for e in encoded] if mapped else select(encoded, address.path)
        )
    where = replace(version.address, index=address.index, path=address.path)
    return replace(version, address=where, encoded=encoded, mapped=mapped)


def _promotion(address: Address, tag: str, **version: Any) -> Promotion:
    assert address.task is not None
    assert address.output is not None
    return Promotion(
        tag=tag,
        pipeline=address.pipeline,
        task=address.task,
        output=address.output,
        at=dt.datetime.now(dt.timezone.utc).isoformat(),
        by=_user(),
        **version,
    )


def _write(store: ArtifactStore, promotion: Promotion) -> None:
    folder = key(TAGS, promotion.pipeline, promotion.task, promotion.output, promotion.tag)
    known = [each for keys in _keys(store, folder).values() for each in keys]
    # Later than what is there, whatever this machine's clock says.
    stamp = max(time.time_ns() // 1000, *(1 + _time(each) for each in known[-1:]), 0)
    document = {"dbnd_tag": _VERSION, **asdict(promotion)}
    data = json.dumps(document, separators=(",", ":")).encode()
    store.put_bytes(f"{folder}/{stamp:020d}-{secrets.token_hex(4)}.json", data)
    log.info("tag %s of %s: %s", promotion.tag, promotion.address, promotion.run_id or "removed")


def _prefix(address: Address | None) -> str:
    names = [address.pipeline, address.task, address.output] if address else []
    return key(TAGS, *(name for name in names if name is not None))


def _keys(store: ArtifactStore, prefix: str) -> Mapping[tuple[str, ...], list[str]]:
    """Return the keys of promotions in their order, by output and tag as in keys."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for info in store.list(prefix):
        _, *place, name = info.key.split("/")
        if len(place) == _NAMES and _FILE.fullmatch(name):
            found[tuple(place)].append(info.key)
    return {place: sorted(found[place]) for place in sorted(found)}


def _time(where: str) -> int:
    return int(where.rpartition("/")[2].partition("-")[0])


def _read_all(store: ArtifactStore, keys: Iterable[str], skip_damaged: bool) -> Iterator[Promotion]:
    for each in keys:
        try:
            yield _read(store, each)
        except ArtifactCorruptedError as exc:
            if not skip_damaged:
                raise
            log.warning("skipped: %s", exc)


def _read(store: ArtifactStore, where: str) -> Promotion:
    data = store.get_bytes(where)
    try:
        document = json.loads(data)
        return Promotion(**{k: v for k, v in document.items() if k != "dbnd_tag"})
    except (ValueError, TypeError, AttributeError) as exc:
        raise ArtifactCorruptedError(
            f"Tag {where} in {store.url} cannot be read: expected the JSON of a promotion, found "
            f"{len(data)} bytes that are not ({type(exc).__name__}: {exc}). Delete it and promote "
            "the version again."
        ) from exc


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return None


def _unknown_tag(
    store: ArtifactStore, address: Address, tag: str, as_of: dt.datetime | None = None
) -> ArtifactNotFoundError:
    known = {readable(place[-1]) for place in _keys(store, _prefix(address))}
    if tag in known:
        when = "" if as_of is None else f" as of {as_of:%Y-%m-%d %T}Z"
        return ArtifactNotFoundError(f"{address} has no tag {tag!r}{when}; it had one.")
    return ArtifactNotFoundError(f"{address} has no tag {tag!r}{did_you_mean(tag, known)}")
