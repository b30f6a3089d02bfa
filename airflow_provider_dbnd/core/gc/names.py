"""Which names of a store a clean-up may take, and what manifests, specs and tags name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.references import key_of
from airflow_provider_dbnd.core.remote.bundle import CODE
from airflow_provider_dbnd.core.remote.travel import INPUTS

Kind = Literal["artifact", "code", "inputs"]

#: ``{digest}[-{form}].{ext}``, as results are named by their content.
_ARTIFACT = re.compile(r"[0-9a-f]{32}(-[0-9a-f]{12})?\.[A-Za-z0-9~_.]+")
_PART = re.compile(r"_parts\.json|part-\d{5,}-[0-9a-f]{12}\.\w+")
#: ``{digest}/{name}`` is a user's program, as engines find it by its own name.
_CODE = re.compile(rf"{CODE}/([0-9a-f]{{32}}/)?[^/]+")
_SHIPPED = re.compile(rf"/({INPUTS}/[0-9a-f]+|{_CODE.pattern})(?=/|$)")


@dataclass(frozen=True, slots=True)
class Unit:
    """What lives and goes as one: an object, or a folder of them."""

    kind: Kind
    name: str


def unit_of(name: str) -> Unit | None:
    """Return what the object *name* belongs to; None for what a clean-up never touches.

    Published files and whatever else lies in a store are not named by their content.

    >>> unit_of("p/t/result/" + 32 * "a" + ".parquet/_parts.json").name[-8:]
    '.parquet'
    >>> unit_of("mart/2026/day.parquet")
    """
    parts = name.split("/")
    if _CODE.fullmatch(name):
        return Unit("code", name)
    if parts[0] == INPUTS and len(parts) > 2:
        return Unit("inputs", "/".join(parts[:2]))
    if parts[0].startswith("_") or len(parts) not in (4, 5) or not _ARTIFACT.fullmatch(parts[3]):
        return None
    if len(parts) == 5 and not _PART.fullmatch(parts[4]):
        return None
    return Unit("artifact", "/".join(parts[:4]))


def named_in(document: Any) -> Iterator[str]:
    """Yield the names of units that JSON names at any depth, in this store or as in a copy of it."""
    if is_reference(document):
        yield key_of(document)
    elif isinstance(document, str):
        yield from (found[1] for found in _SHIPPED.finditer(document))
    elif isinstance(document, Mapping):
        for each in document.values():
            yield from named_in(each)
    elif isinstance(document, list | tuple):
        for each in document:
            yield from named_in(each)
