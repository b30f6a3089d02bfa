"""``dbnd artifacts``: outputs of past runs in tables, one by one and over time, and their tags."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

from airflow_provider_dbnd.cli.past import print_json, time_text
from airflow_provider_dbnd.cli.tables import print_rows
from airflow_provider_dbnd.core.artifacts import brief
from airflow_provider_dbnd.core.manifest import Manifest
from airflow_provider_dbnd.core.past.addresses import Address, Selector, parse
from airflow_provider_dbnd.core.past.history import started
from airflow_provider_dbnd.core.past.lookup import find, history, newest_versions
from airflow_provider_dbnd.core.past.runs import Reader, Run, readers, recent_runs
from airflow_provider_dbnd.core.past.tags import Promotion, demote, promote, promotions, tags
from airflow_provider_dbnd.core.past.versions import Version
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import ArtifactNotFoundError, ParameterError

#: Characters of a digest that a table shows.
_DIGEST = 12


def list_artifacts(
    store: ArtifactStore, name: str | None, *, tags_only: bool, as_json: bool
) -> int:
    """Print outputs with their newest version, or the tags that hold."""
    address = _without_version(name) if name else None
    if tags_only:
        _print_promotions(list(tags(store, address, skip_damaged=True)), as_json=as_json)
        return 0
    versions = list(newest_versions(store, address))
    held = _runs_of_tags(store, address)
    if as_json:
        print_json([{**document(v), "tags": held[_place(v)]} for v in versions])
    elif versions:
        head = ["output", "type", "rows", "size", "digest", "run", "made", "tags"]
        rows = [
            [str(v.address), *_columns(v), v.run_id, time_text(v.ended), _tags_text(held, v)]
            for v in versions
        ]
        print_rows([head, *rows])
    else:
        print(f"No artifacts in {store.url}.", file=sys.stderr)
    return 0


def show_artifact(store: ArtifactStore, name: str, *, runs: int, as_json: bool) -> int:
    """Print all that is known of a version, of each output where *name* is of a task."""
    address, chosen = parse(name)
    shown = [_Shown(store, version, runs) for version in find(store, address, chosen).values()]
    if as_json:
        print_json([each.document() for each in shown])
        return 0
    for each in shown:
        for line in each.lines():
            print(line)
    return 0


def show_history(store: ArtifactStore, name: str, *, limit: int, as_json: bool) -> int:
    """Print the versions of one output, the newest first, and which differ from the one before."""
    address, chosen = parse(name)
    found = history(store, address, chosen, listing=True)
    # One more than shown, to tell whether the last one changed.
    versions = [one_output(outputs, address) for outputs in islice(found, limit + 1)]
    before = [*versions[1:], None]
    changed = [
        old is None or old.digest != v.digest for v, old in zip(versions, before, strict=True)
    ]
    held = _runs_of_tags(store, address)
    rows = list(zip(versions, changed, strict=True))[:limit]
    if as_json:
        print_json([{**document(v), "changed": new, "tags": _tags_on(held, v)} for v, new in rows])
        return 0
    head = ["run", "made", "partition", "type", "rows", "size", "digest", "", "tags"]
    print_rows(
        [
            head,
            *(
                [
                    v.run_id,
                    time_text(v.ended),
                    v.partition or "",
                    *_columns(v),
                    "changed" if new else "",
                    ", ".join(_tags_on(held, v)),
                ]
                for v, new in rows
            ),
        ]
    )
    return 0


def show_promotions(store: ArtifactStore, name: str, *, limit: int, as_json: bool) -> int:
    """Print the promotions of an output's tags, the newest first."""
    found = promotions(store, _without_version(name), skip_damaged=True)
    newest = sorted(found, key=lambda promotion: promotion.at, reverse=True)
    _print_promotions(newest[:limit], as_json=as_json)
    return 0


def tag_artifact(store: ArtifactStore, name: str, tag: str, *, as_json: bool) -> int:
    """Move a tag to a version: of one output, or of all outputs of a task."""
    address, chosen = parse(name)
    made = [promote(version, tag) for version in find(store, address, chosen).values()]
    if as_json:
        print_json([promotion_document(each) for each in made])
    for each in [] if as_json else made:
        print(f"{each.address}@{each.run_id} is {tag}  ({(each.digest or '')[:_DIGEST]})")
    return 0


def untag_artifact(store: ArtifactStore, name: str, tag: str, *, as_json: bool) -> int:
    """Take a tag off."""
    removed = demote(store, _without_version(name), tag)
    if as_json:
        print_json([promotion_document(each) for each in removed])
    for each in [] if as_json else removed:
        print(f"{each.address} has no tag {tag} any more")
    return 0


def one_output(outputs: dict[str, Version], address: Address) -> Version:
    """Return the only output; an error where a task has several and none is named."""
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    names = ", ".join(f"{address}/{name}" for name in outputs)
    raise ParameterError(f"{address} has {len(outputs)} outputs, name one: {names or 'none'}.")


def document(version: Version) -> dict[str, Any]:
    """Return what a listing says of a version, as JSON."""
    artifacts = version.artifacts
    known: dict[str, Any] = {
        "name": str(version.address),
        "version": version.name,
        "run": version.run_id,
        "partition": version.partition,
        "made": version.ended.isoformat(),
        "digest": version.digest,
        "type": version.type,
        "rows": version.rows,
        "size": version.size,
    }
    if version.mapped or len(artifacts) != 1:
        return {**known, "value": version.encoded}
    return {**known, "format": artifacts[0].format, "uri": artifacts[0].uri}


def promotion_document(promotion: Promotion) -> dict[str, Any]:
    """Return a promotion as JSON; ``run`` is null where the tag was taken off."""
    return {
        "tag": promotion.tag,
        "name": str(promotion.address),
        "run": promotion.run_id,
        "digest": promotion.digest,
        "at": promotion.at,
        "by": promotion.by,
    }


class _Shown:
    """What ``show`` says of one version."""

    def __init__(self, store: ArtifactStore, version: Version, runs: int) -> None:
        self._store, self._version = store, version
        self._run = Run(version.address.pipeline, version.run_id, store=store)
        try:
            self._manifest: Manifest | None = self._maker()
        except ArtifactNotFoundError:
            self._manifest = None  # a tag keeps a version beyond its manifests
        self._readers = list(self._read_by(runs))
        self._tags = _tags_on(_runs_of_tags(store, version.address), version)

    def document(self) -> dict[str, Any]:
        manifest, version = self._manifest, self._version
        made: dict[str, Any] = {}
        if manifest is not None:
            made = {
                "made_by": {
                    "task": manifest.identity.task_id,
                    "try_number": manifest.identity.try_number,
                    "started": manifest.started,
                    "seconds": manifest.seconds,
                    "function": dict(manifest.function),
                },
                "parameters": {
                    name: {"value": record.value, "source": record.source}
                    for name, record in manifest.parameters.items()
                },
                "inputs": dict(manifest.inputs),
                "published": manifest.published.get(version.address.output or ""),
            }
        return {
            **document(version),
            "tags": self._tags,
            "schema": dict(self._schema()),
            **made,
            "read_by": [
                {"run": r.run_id, "task": r.task, "parameter": r.parameter} for r in self._readers
            ],
        }

    def lines(self) -> Iterator[str]:
        version = self._version
        yield version.name
        rows = [
            ["digest", version.digest],
            ["what", self._what()],
            *(["uri", artifact.uri] for artifact in version.artifacts),
            *self._made_by(),
            *(["read by", _reader_text(reader, version)] for reader in self._readers),
        ]
        if not version.artifacts:
            rows.insert(2, ["value", brief(version.encoded)])
        if self._tags:
            rows.append(["tags", ", ".join(self._tags)])
        rows += [["column", f"{name}  {type_}"] for name, type_ in self._schema()]
        yield from (f"  {name:8} {text}".rstrip() for name, text in rows)

    def _made_by(self) -> Iterator[list[str]]:
        manifest = self._manifest
        if manifest is None:
            yield ["made by", f"run {self._version.run_id}, whose manifest is gone"]
            return
        function = manifest.function
        first = f", the first of {len(self._version.encoded)}" if self._version.mapped else ""
        yield [
            "made by",
            f"{function['name']} ({function['file']}, line {function['line']}){first}, try "
            f"{manifest.identity.try_number}, {time_text(started(manifest))}, "
            f"{manifest.seconds:.2f} s",
        ]
        if hit := manifest.reuse.get("hit"):
            yield ["reused", f"the result of run {hit['run_id']}"]
        for name, record in manifest.parameters.items():
            yield ["from", f"{name} = {brief(record.value)}  ({record.source})"]
        published = manifest.published.get(self._version.address.output or "")
        if published:
            yield ["at", f"{published}  (published)"]

    def _what(self) -> str:
        version = self._version
        rows = [] if version.rows is None else [f"{version.rows} rows"]
        size = [] if version.size is None else [f"{version.size:,} bytes"]
        formats = sorted({f"as {artifact.format}" for artifact in version.artifacts})
        of = [f"of {len(version.encoded)} instances"] if version.mapped else []
        return ", ".join([version.type, *of, *rows, *size, *formats])

    def _schema(self) -> tuple[tuple[str, str], ...]:
        schemas = {artifact.schema or () for artifact in self._version.artifacts}
        return schemas.pop() if len(schemas) == 1 else ()

    def _maker(self) -> Manifest:
        task = self._run[self._version.address.task or ""]
        index = self._version.address.index
        return (task if index is None else task[index]).manifests[0]

    def _read_by(self, runs: int) -> Iterator[Reader]:
        recent = (
            recent_runs(self._store, self._version.address.pipeline, limit=runs) if runs else []
        )
        others = [run for run in recent if run.id != self._version.run_id]
        try:
            yield from readers(self._version, [self._run, *others])
        except ArtifactNotFoundError:
            yield from readers(self._version, others)


def _reader_text(reader: Reader, version: Version) -> str:
    where = "" if reader.run_id == version.run_id else f" of run {reader.run_id}"
    return f"{reader.task}.{reader.parameter}{where}"


def _columns(version: Version) -> list[str]:
    rows = "" if version.rows is None else str(version.rows)
    size = "" if version.size is None else f"{version.size:,} bytes"
    return [version.type, rows, size, version.digest[:_DIGEST]]


def _print_promotions(found: list[Promotion], *, as_json: bool) -> None:
    if as_json:
        print_json([promotion_document(each) for each in found])
        return
    rows = [
        [
            each.tag,
            str(each.address),
            each.run_id or "taken off",
            (each.digest or "")[:_DIGEST],
            each.at[:19].replace("T", " ") + "Z",
            each.by or "",
        ]
        for each in found
    ]
    print_rows([["tag", "output", "run", "digest", "since", "by"], *rows] if rows else [])
    if not rows:
        print("No tags.", file=sys.stderr)


def _place(version: Version) -> tuple[str | None, ...]:
    return version.address.pipeline, version.address.task, version.address.output


def _runs_of_tags(store: ArtifactStore, address: Address | None) -> dict[Any, dict[str, str]]:
    """Return by output which tag is on which run."""
    found: dict[Any, dict[str, str]] = defaultdict(dict)
    for each in tags(store, address, skip_damaged=True):
        assert each.run_id is not None
        found[each.pipeline, each.task, each.output][each.tag] = each.run_id
    return found


def _tags_on(held: dict[Any, dict[str, str]], version: Version) -> list[str]:
    return [tag for tag, run in held[_place(version)].items() if run == version.run_id]


def _tags_text(held: dict[Any, dict[str, str]], version: Version) -> str:
    """Return the tags of an output; those on another version with its run."""
    return ", ".join(
        tag if run == version.run_id else f"{tag} ({run})"
        for tag, run in held[_place(version)].items()
    )


def _without_version(name: str) -> Address:
    address, chosen = parse(name)
    if chosen != Selector():
        raise ParameterError(f"{name!r}: this takes no version, leave {chosen} out.")
    return address
