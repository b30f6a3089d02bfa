"""``dbnd artifacts get``: a version as a file of one's own, converted by the file's extension."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

from airflow_provider_dbnd.cli.artifacts import document, one_output
from airflow_provider_dbnd.cli.past import print_json
from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.past.addresses import parse
from airflow_provider_dbnd.core.past.lookup import find
from airflow_provider_dbnd.core.past.versions import Version
from airflow_provider_dbnd.core.references import in_store
from airflow_provider_dbnd.core.storage.filesystem import absolute
from airflow_provider_dbnd.core.storage.parts import PARTS_SCHEME
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import verify
from airflow_provider_dbnd.exceptions import ConfigurationError, FormatError


def get_artifact(store: ArtifactStore, name: str, file: str, *, force: bool, as_json: bool) -> int:
    """Write a version to a path or URL, in one step."""
    address, chosen = parse(name)
    version = one_output(find(store, address, chosen), address)
    target = absolute(file, os.getcwd())
    if not force and store.exists(target):
        raise ConfigurationError(f"{file} is there already: --force replaces it.")
    with tempfile.TemporaryDirectory(prefix="dbnd.") as folder:
        staged, lost = _staged(store, version, target, folder)
        size = os.path.getsize(staged)
        store.publish(staged, target)
    if lost:
        print(f"{file} does not keep everything: {lost}", file=sys.stderr)
    if as_json:
        print_json({**document(version), "file": target, "bytes": size, "lost": lost})
    else:
        print(f"{version.name} -> {file}  ({size:,} bytes)")
    return 0


def _staged(
    store: ArtifactStore, version: Version, target: str, folder: str
) -> tuple[str, str | None]:
    """Return a local file of the wanted format, and what it lost."""
    extension = formats.extension_of(target)
    artifacts = version.artifacts
    single = not version.mapped and len(artifacts) == 1
    is_folder = single and artifacts[0].checksum.startswith(PARTS_SCHEME)
    if single and not is_folder and formats.extension_of(artifacts[0].uri) == extension:
        return verify(store, Artifact.from_json(in_store(store, version.encoded)), folder), None
    if artifacts and not single:
        raise FormatError(
            f"{version.name} is {len(artifacts)} artifacts, which make no single file: name one, as "
            f"{version.address}[0], or one instance."
        )
    if is_folder:
        import pyarrow as pa

        value = version.load(pa.Table)
    else:
        value = version.load()
    return _converted(value, os.path.join(folder, f"converted.{extension}"), extension)


def _converted(value: Any, path: str, extension: str) -> tuple[str, str | None]:
    options: dict[str, Any] = {}
    format_, _ = formats.format_for_output(type(value), medium="local", extension=extension)
    try:
        format_.write(value, path, options=options)
    except FormatError as exc:
        if "lossy" not in str(exc):
            raise
        # Who asks for this format to look at the data elsewhere wants it, and is told.
        format_.write(value, path, options={"lossy": True})
        return path, str(exc).partition(";")[0]
    return path, None
