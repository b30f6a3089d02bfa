"""Encoded values: small JSON, references to artifacts, and lists and dicts of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore

#: ``{pipeline}/{task}/{output}/{file}``: the end of an artifact's URI, wherever its store is.
_KEY_PARTS = 4


def references(encoded: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the references in an encoded value."""
    if is_reference(encoded):
        yield encoded
    elif isinstance(encoded, list | tuple | dict):
        for each in encoded.values() if isinstance(encoded, dict) else encoded:
            yield from references(each)


def replaced(encoded: Any, change: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Return an encoded value with each reference in it replaced by what *change* makes of it."""
    if is_reference(encoded):
        return change(encoded)
    if type(encoded) in (list, tuple):
        return type(encoded)(replaced(each, change) for each in encoded)
    if isinstance(encoded, dict):
        return {name: replaced(each, change) for name, each in encoded.items()}
    return encoded


def data_digest(encoded: Any) -> str:
    """Return one digest for an encoded value: that of its data, wherever and however stored."""
    from airflow_provider_dbnd.core.digest import bytes_digest

    if is_reference(encoded):
        return str(encoded["digest"])
    named = replaced(encoded, lambda reference: {"digest": reference["digest"]})
    return bytes_digest(json.dumps(named, sort_keys=True).encode())


def artifact_key(pipeline: str, task: str, output: str, file: str) -> str:
    """Return the key of a stored result.

    The store's own folders begin with an underscore, so a pipeline of such a name has it escaped.

    >>> artifact_key("drift", "prepare", "result", "ab12.arrow")
    'drift/prepare/result/ab12.arrow'
    >>> artifact_key("_runs", "prepare", "result", "ab12.arrow")
    '~5Fruns/prepare/result/ab12.arrow'
    """
    where = key(pipeline, task, output, file)
    return f"~5F{where[1:]}" if where.startswith("_") else where


def key_of(reference: Mapping[str, Any]) -> str:
    """Return the key of the object in its store, wherever that is or was."""
    return "/".join(str(reference["uri"]).split("/")[-_KEY_PARTS:])


def in_store(store: ArtifactStore, encoded: Any) -> Any:
    """Return an encoded value with its references leading to *store*, where it has the objects.

    A manifest names objects by the URL its task knew the store by. The store may have been moved
    or mounted elsewhere since; keys and checksums stay.
    """

    def moved(reference: Mapping[str, Any]) -> Mapping[str, Any]:
        uri = str(reference["uri"])
        if uri.startswith(f"{store.url}/"):
            return reference
        here = f"{store.url}/{key_of(reference)}"
        return {**reference, "uri": here} if store.exists(here) else reference

    return replaced(encoded, moved)
