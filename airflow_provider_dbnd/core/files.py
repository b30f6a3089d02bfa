"""Text that names a user's files: for which parameters it does, how many, and what it is short for."""

from __future__ import annotations

import json
import typing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.conversion import (
    AnnotationKey,
    elements_of,
    record_fields,
    without_none,
)

if TYPE_CHECKING:
    from airflow_provider_dbnd.core.storage.store import ArtifactStore

_STORE = "{store}/"


def is_file(annotation: Any) -> bool:
    """Tell whether text given for a parameter names a file, a folder or a pattern."""
    wanted = without_none(annotation)
    return wanted is Path or (wanted is not Artifact and formats.is_data_type(wanted))


def holds_files(annotation: Any) -> bool:
    """Tell whether text given for a parameter, or in parts of it, names files."""
    return _holds_files(AnnotationKey(annotation))


@lru_cache(maxsize=1024)
def _holds_files(key: AnnotationKey) -> bool:
    wanted = without_none(key.annotation)
    if is_file(wanted):
        return True
    inside = (*typing.get_args(wanted), *record_fields(wanted).values())
    return any(holds_files(each) for each in inside if each is not Ellipsis)


def files_in_text(value: Any, annotation: Any) -> Any:
    """Return the list or dict that *value* is the JSON of, where *annotation* asks for files."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    if not holds_files(annotation):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value  # {store}/... and patterns start like this as well


def named(text: str, annotation: Any) -> list[str]:
    """Return each file, folder or pattern that *text* names for a parameter.

    Commas part them where the parameter is a list of files; elsewhere they belong to a name.
    """
    several = not is_file(annotation) and is_file(elements_of(annotation, 1)[0])
    return [part.strip() for part in text.split(",")] if several else [text]


def is_below_store(text: str) -> bool:
    """Tell whether *text* names something below the store, wherever that is."""
    return text.startswith(_STORE)


def located(text: str, store: ArtifactStore) -> str:
    """Fill in ``{store}``, which output paths may start with as well."""
    return f"{store.url}/{text.removeprefix(_STORE)}" if is_below_store(text) else text
