"""A task that runs elsewhere: a JSON spec in the store goes there, a manifest in the store comes back.

The spec names the function, the code, the arguments and where data lives. What runs it needs the
store and nothing else of this side.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, execute, is_skip, value_of_run
from airflow_provider_dbnd.core.manifest import Identity, Manifest, read_manifest
from airflow_provider_dbnd.core.remote.bootstrap import JobStoppedError, failure_uri
from airflow_provider_dbnd.core.remote.bundle import (
    Archive,
    project_archive,
    project_root,
    runner_archives,
)
from airflow_provider_dbnd.core.remote.driver_file import driver_key
from airflow_provider_dbnd.core.remote.function_reference import (
    FunctionReference,
    find_definition,
    refer,
)
from airflow_provider_dbnd.core.remote.travel import Packer, unpack
from airflow_provider_dbnd.core.resolution import Value
from airflow_provider_dbnd.core.scratch import process_folder, scratch_folder
from airflow_provider_dbnd.core.settings import Settings
from airflow_provider_dbnd.core.spark.driver import in_driver, start_application
from airflow_provider_dbnd.core.storage.claims import claim, claim_keys
from airflow_provider_dbnd.core.storage.filesystem import redact, scheme_of
from airflow_provider_dbnd.core.storage.store import ArtifactStore, key
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    CodeDeliveryError,
    DbndError,
    EngineError,
    ParameterError,
    VersionMismatchError,
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
_MINIMUM = {"pydantic": (2, 8), "fsspec": (2025, 3), "blake3": (1, 0), "xxhash": (3, 0)}


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
        "dbnd": _own_version(),
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
        checksum=_sha256(data),
        manifest=identity.key(),
        failure=failure,
        fingerprint=_sha256(json.dumps(work, sort_keys=True).encode()),
        options=options,
    )


def run(uri: str, options: Mapping[str, Any] | None = None) -> int:
    """Run the task of the spec at *uri* here, where it was sent to; return the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    document, checksum = _read_spec(uri, options or {})
    store = ArtifactStore(document["store"], storage_options=document["storage_options"])
    identity = Identity(**document["identity"])
    _check_versions(document)
    reference, project = FunctionReference(**document["function"]), os.environ.get("DBND_PROJECT")
    definition = find_definition(reference, project)
    if in_driver():
        _start_application(document, reference, project, definition, store)
    spec = TaskSpec(
        identity=identity,
        arguments=unpack(definition, document["arguments"], identity.task_id),
        store=store,
        elements=document["elements"],
        folder=document["folder"],
        engine={**document["engine"], "job": job_name(), "spec": checksum},
        **document["record"],
    )
    try:
        execute(spec, definition)
    except BaseException as exc:
        if not is_skip(exc):
            log.error(
                "task %s of run %s failed: %s",
                identity.task_id,
                identity.run_id,
                type(exc).__name__,
            )
        # The class is that of this module where it is installed, else of the program that started it.
        if type(exc).__name__ == JobStoppedError.__name__:
            raise
        if not _is_recorded(store, identity, checksum):
            raise
        return 0 if is_skip(exc) else 1
    return 0


def _is_recorded(store: ArtifactStore, identity: Identity, checksum: str) -> bool:
    try:
        return read_result(store, identity.key(), checksum) is not None
    except DbndError as exc:
        # What kept the manifest from being written is the error to tell.
        log.warning("%s", exc)
        return False


def _start_application(
    document: Mapping[str, Any],
    reference: FunctionReference,
    project: str | None,
    definition: Definition,
    store: ArtifactStore,
) -> None:
    archives = [
        store.fetch(archive["uri"], into=process_folder())
        for archive in document["code"]["archives"]
        if archive["kind"] != "library"
    ]
    file, module = reference.file, inspect.unwrap(definition.function).__module__
    beside = os.path.dirname(file) if file else ""
    folder = os.path.join(project, *beside.split("/")) if project and beside else None
    start_application(archives, folder, module if file else None)


def job_name() -> str:
    """Return what the engine calls the job this process runs in."""
    spark = sys.modules.get("pyspark")
    if spark is not None and (context := spark.SparkContext._active_spark_context) is not None:
        return str(context.applicationId)
    return os.environ.get(JOB_VARIABLE) or platform.node()


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
    data = json.dumps({"dbnd": _own_version(), **asdict(job)}).encode()
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
        if version == _own_version():
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


def _read_spec(uri: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    folder, _, name = uri.rpartition("/")
    data = ArtifactStore(folder, storage_options=options).get_bytes(uri)
    try:
        document = json.loads(data)
        version = document["dbnd_spec"]
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtifactCorruptedError(
            f"{uri} is not the spec of a task: {type(exc).__name__}: {exc}. Run the task again."
        ) from exc
    if version != VERSION:
        raise VersionMismatchError(
            f"spec {name} is of version {version}, and airflow-provider-dbnd {_own_version()} here "
            f"reads version {VERSION}. Install the version of the worker, {document.get('dbnd')}."
        )
    return document, _sha256(data)


def _check_versions(document: Mapping[str, Any]) -> None:
    if document["dbnd"] != _own_version():
        raise VersionMismatchError(
            f"the worker has airflow-provider-dbnd {document['dbnd']}, and where the task runs "
            f"{_own_version()} is installed. Install the same version in the image, or let the code "
            'travel: code = "bundle" for the engine.'
        )
    for name, minimum in _MINIMUM.items():
        found = _version_of(name)
        if found is None or tuple(map(int, re.findall(r"\d+", found)[:2])) < minimum:
            wanted = ".".join(map(str, minimum))
            raise VersionMismatchError(
                f"where the task runs {name} is {found or 'missing'}: expected {wanted} or newer. "
                'Install it in the image; or, with code = "bundle", take it out: the worker\'s travels '
                "with the task."
            )


def _version_of(library: str) -> str | None:
    try:
        # Importing it takes longer, and a task without parameters may not need it.
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        found = importlib.import_module(library) if importlib.util.find_spec(library) else None
        return getattr(found, "__version__", None)


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


def _own_version() -> str:
    # The package itself is above core; it is loaded, since this module is a part of it.
    return str(sys.modules[__name__.partition(".")[0]].__version__)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
