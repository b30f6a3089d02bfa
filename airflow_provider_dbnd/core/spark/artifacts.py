"""Spark frames to and from the store, past this process.

The executors write parts below a staging folder of the store. Here they are only looked through, in
their order and one at a time: what a reference says of them (digest, rows, schema) is the same as of
any other frame with these rows.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.digest import file_checksum
from airflow_provider_dbnd.core.formats.base import Written
from airflow_provider_dbnd.core.scratch import scratch_folder
from airflow_provider_dbnd.core.spark.session import hadoop_options, hadoop_url, session
from airflow_provider_dbnd.core.storage.filesystem import parse, redact
from airflow_provider_dbnd.core.storage.folders import part_name
from airflow_provider_dbnd.core.storage.inputs import Survey
from airflow_provider_dbnd.core.storage.parts import PARTS_SCHEME, Listing, Part
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import FormatError

EXTENSION = "parquet"

_WRITTEN_NAME = re.compile(r"part-(\d+)-(?:.*[-.]c(\d+))?")
_MAPPED = ("arrow", "feather")
_PACKED = re.compile(r"\.(xz|zst|zip)$")

#: Values in files that another engine wrote may have line breaks.
_WRITTEN_BY_US = {"csv": {"multiLine": "true"}, "tsv": {"multiLine": "true"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """A frame in the store."""

    uri: str
    written: Written
    size: int


def save(
    frame: Any,
    store: ArtifactStore,
    *,
    options: Mapping[str, Any],
    key_of: Callable[[Written], str],
) -> Saved:
    """Let the executors write *frame* to the store, as a folder that is one artifact.

    :param options: of writing, as ``save_options`` has them. :param key_of: names the folder.
    """
    from airflow_provider_dbnd.core.formats.spark_frame import stored_schema, write_frame

    with store.folders.staging() as staged:
        write_frame(frame, *_reached(store, staged), options)
        return take(staged, store, key_of=key_of, schema_of=lambda part: stored_schema(part, frame))


def take(
    staged: str,
    store: ArtifactStore,
    *,
    key_of: Callable[[Written], str],
    schema_of: Callable[[Any], Any] = lambda part: part,
) -> Saved:
    """Make the parquet files that Spark wrote to folder *staged* of the store one artifact.

    :param schema_of: gives the Arrow schema of the whole from that of a part.
    """
    with scratch_folder() as scratch:
        sources: dict[str, str] = {}
        listing, written = _look_through(store, staged, schema_of, scratch, sources)
        uri = store.folders.commit(staged, key_of(written), listing, sources=sources)
    return Saved(uri=uri, written=written, size=listing.size)


def load(artifact: Artifact, store: ArtifactStore, *, options: Mapping[str, Any]) -> Any:
    """Return a frame over an artifact, whichever engine wrote it.

    Sizes are compared here; the executors check the pages of parquet files as they read them.
    """
    spark = session()
    with _readable(artifact.uri):
        return _load(spark, artifact, store, options)


def load_files(
    surveys: Sequence[Survey], store: ArtifactStore, format_: str, *, options: Mapping[str, Any]
) -> Any:
    """Return a frame over files of a user; a folder is Spark's to look into, with its partitions."""
    spark = session()
    with _readable(", ".join(survey.uri for survey in surveys)):
        return _load_files(spark, surveys, store, format_, options)


def _load(spark: Any, artifact: Artifact, store: ArtifactStore, options: Mapping[str, Any]) -> Any:
    from airflow_provider_dbnd.core.formats import spark_frame
    from airflow_provider_dbnd.core.formats.parquet import ParquetFormat

    uri, size = artifact.uri, artifact.size
    if artifact.format in _MAPPED:
        return _mapped(spark, uri, store, options, artifact)
    url, access = _reached(store, uri)
    if artifact.checksum.startswith(PARTS_SCHEME):
        parts = store.folders.listing(uri, checksum=artifact.checksum, size=size).parts
        urls = [f"{url}/{part.name}" for part in parts]
        return spark_frame.read_parts(spark, urls, access, options)
    with store.open(uri, size=size) as file:
        if artifact.format != EXTENSION:
            _check_compression(uri)
            given = {**_WRITTEN_BY_US.get(artifact.format, {}), **options}
            return spark_frame.read_text(spark, artifact.format, [url], access, given)
        schema = ParquetFormat().open_file(file, uri, digest=artifact.digest).schema
    return spark_frame.read_parquet(spark, url, schema, access, options)


def _load_files(
    spark: Any,
    surveys: Sequence[Survey],
    store: ArtifactStore,
    format_: str,
    options: Mapping[str, Any],
) -> Any:
    from airflow_provider_dbnd.core.formats import spark_frame
    from airflow_provider_dbnd.core.formats.parquet import ParquetFormat

    if format_ in _MAPPED:
        files = [uri for survey in surveys for uri in survey.uris]
        return spark_frame.put_together([_mapped(spark, uri, store, options) for uri in files])
    uris = [uri for survey in surveys for uri in ([survey.uri] if survey.folder else survey.uris)]
    reached = [_reached(store, uri) for uri in uris]
    urls = [url for url, _ in reached]
    access = {name: value for _, each in reached for name, value in each.items()}
    if format_ != EXTENSION:
        for survey in surveys:
            _check_compression(*survey.uris)
        return spark_frame.read_text(spark, format_, urls, access, options)
    first = surveys[0].uris[0]
    with store.open(first) as file:
        schema = ParquetFormat().open_file(file, first, digest=None).schema
    return spark_frame.read_files(spark, urls, schema, access, options)


def _look_through(
    store: ArtifactStore,
    staged: str,
    schema_of: Callable[[Any], Any],
    scratch: str,
    sources: dict[str, str],
) -> tuple[Listing, Written]:
    """Return what there is to say of the parts in folder *staged*; fills *sources* for the commit."""
    from airflow_provider_dbnd.core.formats.fingerprint import fingerprint_of
    from airflow_provider_dbnd.core.formats.parquet_folder import (
        batches_of,
        opened,
        schema_text,
    )

    parts: list[Part] = []

    def readers() -> Iterator[Any]:
        names = written_names(store.folders.files(staged))
        for name, path in store.folders.local_files(staged, names, scratch):
            reader = opened(path)
            checksum = file_checksum(path)
            part = Part(
                name=part_name(len(parts), checksum, EXTENSION),
                size=os.path.getsize(path),
                checksum=checksum,
                rows=reader.metadata.num_rows,
            )
            sources[part.name] = name
            parts.append(part)
            yield reader

    each = readers()
    first = next(each, None)
    if first is None:
        raise FormatError(f"Spark wrote no files to {redact(staged)}; see the log of its executors")
    schema = schema_of(first.schema_arrow)
    fingerprint = fingerprint_of(schema, batches_of(chain([first], each), schema), {})
    listing = Listing(parts=tuple(parts), schema=schema_text(schema))
    return listing, Written(
        digest=fingerprint.digest,
        checksum=listing.checksum,
        rows=fingerprint.rows,
        schema=fingerprint.schema,
    )


def written_names(names: Iterable[str]) -> list[str]:
    """Return the names of data files as Spark writes them, in the order of the frame's rows.

    >>> written_names(["_SUCCESS", "part-100000-a-c000.parquet", "part-00002-a-c000.parquet"])
    ['part-00002-a-c000.parquet', 'part-100000-a-c000.parquet']
    """

    def place(name: str) -> tuple[int, int, str]:
        found = _WRITTEN_NAME.match(name)
        return (int(found[1]), int(found[2] or 0), name) if found else (0, 0, name)

    return sorted((name for name in names if not name.startswith(("_", "."))), key=place)


def _mapped(
    spark: Any,
    uri: str,
    store: ArtifactStore,
    options: Mapping[str, Any],
    artifact: Artifact | None = None,
) -> Any:
    """Return a frame over an Arrow file, verified here as a whole where it has a fingerprint."""
    from airflow_provider_dbnd.core.formats.arrow import ArrowFormat
    from airflow_provider_dbnd.core.formats.spark_frame import read_arrow

    if parse(uri).scheme != "file":
        raise FormatError(
            f"Spark does not read Arrow files from {redact(uri)}: expected parquet, csv or JSON "
            "there, or a disk its executors see. Declare output.parquet for the task that makes it"
        )
    if artifact is None:
        stored = ArrowFormat().open(parse(uri).path, checksum=None, digest=None)
    else:
        path = store.fetch(uri, size=artifact.size, checksum=artifact.checksum, into="")
        stored = ArrowFormat().open(path, checksum=artifact.checksum, digest=artifact.digest)
        for _ in stored.stream():
            pass
    return read_arrow(spark, stored, options)


def _check_compression(*uris: str) -> None:
    for uri in uris:
        if _PACKED.search(uri):
            raise FormatError(
                f"Spark does not unpack {redact(uri)}: expected no compression, gz or bz2. Read it "
                "as a frame of another engine, or pack it anew"
            )


@contextlib.contextmanager
def _readable(uri: str) -> Iterator[None]:
    """Say which file it is that Spark refuses."""
    from pyspark.errors import AnalysisException

    try:
        yield
    except AnalysisException as error:
        raise FormatError(f"Spark cannot read {redact(uri)}: {error}") from error


def _reached(store: ArtifactStore, uri: str) -> tuple[str, dict[str, str]]:
    """Return *uri* as Hadoop writes it, and what Hadoop needs to reach it."""
    fs = store.filesystem(uri)
    return hadoop_url(uri, fs), hadoop_options(uri, fs)
