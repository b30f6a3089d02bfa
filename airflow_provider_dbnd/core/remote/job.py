"""A task that runs elsewhere: a JSON spec in the store goes there, a manifest in the store comes back.

The spec names the function, the code, the arguments and where data lives. What runs it
(:mod:`~airflow_provider_dbnd.core.remote.run`) needs the store and nothing else of this side.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, value_of_run
from airflow_provider_dbnd.core.manifest import Identity, Manifest, read_manifest
from airflow_provider_dbnd.core.remote.bootstrap import JobStoppedError, failure_uri, sha256
from airflow_provider_dbnd.core.remote.bundle import (
    Archive,
    project_archive,
    project_root,
    runner_archives,
)
from airflow_provider_dbnd.core.remote.driver_file import driver_key
from airflow_provider_dbnd.core.remote.function_reference import refer
from airflow_provider_dbnd.core.remote.travel import Packer
from airflow_provider_dbnd.core.resolution import Value
from airflow_provider_dbnd.core.scratch import scratch_folder
from airflow_provider_dbnd.core.settings import Settings
from airflow_provider_dbnd.core.storage.claims import claim, claim_keys
from airflow_provider_dbnd.core.storage.filesystem import redact, scheme_of
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    CodeDeliveryError,
    EngineError,
    ParameterError,
)

VERSION = 1

#: Folders of the store that hold specs, and records of jobs nobody has taken the result of yet.
SPECS, JOBS = "_specs", "_jobs"

#: Variable that names the job, where the host's name does not.
JOB_VARIABLE = "DBND_JOB"

log = logging.getLogger("airflow_provider_dbnd")

_SECRET_OPTION = re.compile(
    r"^(key|secret|token|credential|pass|pwd|connection_string|sas|auth|cookie|pkey)"
    r"|(^|[_-])(key|key_?id|secret|token|credential|password|passwd|passphrase|pwd|string|json|sas)s?$"
    r"|(api|access|account|private)key$",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a task is to run: an engine's name and type, and what it shares with this machine.

    :param code: ``bundle`` sends the project and this package along, ``project`` the project alone;
        ``image`` expects both there.
    """

    engine: str
    type: str
    shares_disk: bool = False
    code: str = "bundle"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One spec that was sent. ``fingerprint`` tells whether another attempt would send the same.

    ``name`` is what the engine calls the job, once it is known; ``lease`` is the one of the task that
    waits for it, where single flight is on; ``program`` is the URL of one that is none of our functions.
    """

    spec: str
    checksum: str
    manifest: str
    failure: str
    fingerprint: str
    options: Mapping[str, Any]
    name: str | None = None
    lease: Mapping[str, Any] | None = None
    program: str | None = None

    def arguments(self) -> list[str]:
        """Return what the program that runs the job is called with."""
        # YARN takes "}}" for the end of a variable of its own and drops it.
        options = re.sub(r"}(?=})", "} ", json.dumps(self.options))
        return [self.spec, *([options] if self.options else [])]


def send(spec: TaskSpec, definition: Definition, settings: Settings, place: Place) -> Job:
    """Write the spec of a task and the code it needs to the store."""
    store, identity = spec.store, spec.identity
    _check_store(store, place)
    root = project_root(_file(definition), settings)
    reference = refer(definition, root)
    archives: list[Archive] = []
    if place.code == "bundle":
        archives += runner_archives(store)
    if place.code != "image" and reference.file is not None:
        archives.append(project_archive(store, root, settings))
    inputs = definition.signature.inputs
    values = {n: value_of_run(identity, inputs[n], v) for n, v in spec.arguments.items()}
    if not place.shares_disk:
        _check_outputs(definition, values, place)
    with scratch_folder() as scratch:
        packer = Packer(identity, store, scratch, shares_disk=place.shares_disk)
        arguments = packer.pack(definition, values)
    work = {
        "function": asdict(reference),
        # A clean-up keeps what a spec names; the engine may fetch the program long after this.
        "code": {
            "archives": [asdict(each) for each in archives],
            "program": store.uri(driver_key()),
        },
        "arguments": arguments,
        "elements": spec.elements,
        "folder": definition.signature.folder if place.shares_disk else None,
        "engine": {"name": place.engine, "type": place.type},
    }
    options = _without_secrets(settings.storage_options)
    document = {
        "dbnd_spec": VERSION,
        "dbnd": own_version(),
        **work,
        "identity": asdict(identity),
        "store": store.url,
        "storage_options": options,
        "record": {"code": spec.code, "reuse": spec.reuse},
    }
    data = _dumped(document, arguments, identity)
    where = key(SPECS, *_place(identity), f"{identity.try_number}.json")
    failure = failure_uri(where)
    store.delete(failure)
    claim(store, arguments)
    claim_keys(store, [each.uri.removeprefix(f"{store.url}/") for each in archives])
    return Job(
        spec=store.put_bytes(where, data, overwrite=True),
        checksum=sha256(data),
        manifest=identity.key(),
        failure=failure,
        fingerprint=sha256(json.dumps(work, sort_keys=True).encode()),
        options=options,
    )


def read_result(store: ArtifactStore, manifest: str, checksum: str) -> Manifest | None:
    """Return the manifest that the spec with *checksum* left, or None while there is none."""
    try:
        found = read_manifest(store, manifest)
    except ArtifactNotFoundError:
        return None
    return found if found.engine.get("spec") == checksum else None


def was_stopped(manifest: Manifest) -> bool:
    """Tell whether an attempt ended because its job was told to stop, as engines do that kill it."""
    return (manifest.error or {}).get("type") == JobStoppedError.__name__


def read_failure(store: ArtifactStore, job: Job) -> str | None:
    """Return why the task could not start where it was sent to, if that was recorded."""
    try:
        return str(json.loads(store.get_bytes(job.failure))["reason"])
    except ArtifactNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtifactCorruptedError(
            f"{store.uri(job.failure)} cannot be read: {type(exc).__name__}: {exc}."
        ) from exc


def spec_of(store: ArtifactStore, manifest: Manifest) -> dict[str, Any]:
    """Return the spec that an attempt on an engine was made from."""
    identity = manifest.identity
    where = key(SPECS, *_place(identity), f"{identity.try_number}.json")
    try:
        document: dict[str, Any] = json.loads(store.get_bytes(where))
    except ArtifactNotFoundError as exc:
        raise CodeDeliveryError(
            f"the code of task {identity.task_id!r} in run {identity.run_id!r} was not recorded: it ran in "
            "its worker. Code is recorded where it travels to an engine, and where dbnd.toml has "
            "[bundle] record = true."
        ) from exc
    return document


def remember(store: ArtifactStore, identity: Identity, job: Job) -> None:
    """Record that *job* was sent, so that another process can take its result."""
    data = json.dumps({"dbnd": own_version(), **asdict(job)}).encode()
    store.put_bytes(_record(identity), data, overwrite=True)


def recall(store: ArtifactStore, identity: Identity) -> Job | None:
    """Return the job of this task whose result nobody has taken: a worker that died sent it."""
    try:
        data = store.get_bytes(_record(identity))
    except ArtifactNotFoundError:
        return None
    try:
        record = json.loads(data)
        version = record.pop("dbnd")
        if version == own_version():
            return Job(**record)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ArtifactCorruptedError(
            f"{store.uri(_record(identity))} cannot be read: {type(exc).__name__}: {exc}. It says "
            "which job an earlier try sent: see that the job is over, delete it, and run the task again."
        ) from exc
    log.warning("the job that airflow-provider-dbnd %s sent is not taken up", version)
    return None


def forget(store: ArtifactStore, identity: Identity) -> None:
    """Delete the record: the job's result was taken, or is not wanted."""
    store.delete(_record(identity))


def own_version() -> str:
    """Return the version of this package."""
    # The package itself is above core; it is loaded, since this module is a part of it.
    return str(sys.modules[__name__.partition(".")[0]].__version__)


def _record(identity: Identity) -> str:
    return key(JOBS, *_place(identity)) + ".json"


def _place(identity: Identity) -> tuple[str, ...]:
    return (identity.pipeline, identity.run_id, identity.task_id, str(identity.map_index))


def _file(definition: Definition) -> str:
    return str(inspect.unwrap(definition.function).__code__.co_filename)


def _dumped(document: Mapping[str, Any], arguments: Mapping[str, Any], identity: Identity) -> bytes:
    try:
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    except ValueError as exc:  # the longest numbers
        name = next(name for name, each in arguments.items() if not _is_json(each))
        raise ParameterError(
            f"parameter {name!r} of task {identity.task_id!r} cannot travel to another machine: {exc}."
        ) from exc


def _is_json(value: Any) -> bool:
    try:
        return bool(json.dumps(value))
    except ValueError:
        return False


def _check_store(store: ArtifactStore, place: Place) -> None:
    if scheme_of(store.url) == "memory":
        raise EngineError(
            f"store {store.url} is in the memory of this process, which engine {place.engine!r} "
            f"({place.type}) does not see. Set the store to a folder or a bucket."
        )


def _check_outputs(definition: Definition, values: Mapping[str, Value], place: Place) -> None:
    for slot in definition.signature.outputs:
        path = slot.declaration.path or "{store}"
        name = path[1:].partition("}")[0] if path.startswith("{") else ""
        if name in values:
            path = str(values[name].value)  # where it starts is up to this parameter
        if "://" not in path and not path.startswith("{store}"):
            raise EngineError(
                f"output {slot.name!r} of task {definition.name!r} goes to {path!r} on this machine's "
                f"disk, which engine {place.engine!r} ({place.type}) does not see. Give a URL, or "
                "'{store}/...'."
            )


def _without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return storage options that may be read by anybody; the others stay on this machine."""
    kept: dict[str, Any] = {}
    for name, value in options.items():
        if _SECRET_OPTION.search(name) or _holds_password(value):
            log.info(
                "storage option %s does not travel with the task: give the engine credentials by "
                "its environment or its own secrets",
                name,
            )
        else:
            kept[name] = _without_secrets(value) if isinstance(value, Mapping) else value
    return kept


def _holds_password(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_password, value))
    return isinstance(value, str) and redact(value) != value
