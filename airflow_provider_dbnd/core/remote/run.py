"""Running a task where it was sent to: from its spec to its manifest, and the exit code."""

from __future__ import annotations

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
from typing import Any

from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, execute, is_skip
from airflow_provider_dbnd.core.manifest import Identity
from airflow_provider_dbnd.core.remote.bootstrap import JobStoppedError, sha256
from airflow_provider_dbnd.core.remote.function_reference import FunctionReference, find_definition
from airflow_provider_dbnd.core.remote.job import JOB_VARIABLE, VERSION, own_version, read_result
from airflow_provider_dbnd.core.remote.travel import unpack
from airflow_provider_dbnd.core.scratch import process_folder
from airflow_provider_dbnd.core.spark.driver import in_driver, start_application
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    DbndError,
    VersionMismatchError,
)

log = logging.getLogger("airflow_provider_dbnd")

_MINIMUM = {"pydantic": (2, 8), "fsspec": (2025, 3), "blake3": (1, 0), "xxhash": (3, 0)}


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
        # By its name: the program that started this one has a class of its own.
        stopped = type(exc).__name__ == JobStoppedError.__name__
        if stopped or not _is_recorded(store, identity, checksum):
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
            f"spec {name} is of version {version}, and airflow-provider-dbnd {own_version()} here "
            f"reads version {VERSION}. Install the version of the worker, {document.get('dbnd')}."
        )
    return document, sha256(data)


def _check_versions(document: Mapping[str, Any]) -> None:
    if document["dbnd"] != own_version():
        raise VersionMismatchError(
            f"the worker has airflow-provider-dbnd {document['dbnd']}, and where the task runs "
            f"{own_version()} is installed. Install the same version in the image, or let the code "
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
