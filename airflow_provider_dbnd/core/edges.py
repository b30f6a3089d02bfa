"""Build-time check of an edge: can this producer's result become that parameter?"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.conversion import is_union, strip_annotated, type_text
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.signature import Input, Signature
from airflow_provider_dbnd.exceptions import GraphError

_NUMBERS = (bool, int, float, complex)
_SEQUENCES = (list, tuple, set, frozenset)


def check_edge(producer: Signature, annotation: Any, consumer: Signature, spec: Input) -> None:
    """Raise GraphError where *annotation* of *producer* can never become parameter *spec* of *consumer*."""
    if fits(annotation, spec.annotation):
        return
    raise GraphError(
        f"{producer.name}() returns {type_text(annotation)}, which cannot become parameter {spec.name!r} "
        f"({type_text(spec.annotation)}) of {consumer.name}().\n"
        f"  {producer.name}: {_line(producer.function)}\n"
        f"  {consumer.name}: {_line(consumer.function)}\n"
        "Change one of the two annotations, or convert in a task between them."
    )


def fits(produced: Any, wanted: Any) -> bool:
    """Tell whether a value annotated *produced* can become one annotated *wanted*.

    >>> fits(int, float), fits(float, list[int]), fits(str, int)
    (True, False, True)
    """
    produced, wanted = strip_annotated(produced), strip_annotated(wanted)
    if Any in (produced, wanted) or MISSING in (produced, wanted) or object in (produced, wanted):
        return True
    if is_union(produced):
        return any(fits(arm, wanted) for arm in typing.get_args(produced) if arm is not type(None))
    if is_union(wanted):
        return any(fits(produced, arm) for arm in typing.get_args(wanted))
    if isinstance(produced, typing.TypeVar) or isinstance(wanted, typing.TypeVar):
        return True
    if wanted in (Artifact, Path) or produced == wanted:
        return True
    if formats.is_data_type(produced) or formats.is_data_type(wanted):
        return _data_fits(produced, wanted)
    return _plain_fits(produced, wanted)


def _data_fits(produced: Any, wanted: Any) -> bool:
    if formats.is_data_type(produced) and formats.is_data_type(wanted):
        return formats.can_convert(produced, wanted)
    if formats.is_data_type(wanted):
        # A path or a URI is loaded; so is a list of them.
        return (
            produced is str
            or _is_class(produced, os.PathLike)
            or typing.get_origin(produced) is list
        )
    return False


def _plain_fits(produced: Any, wanted: Any) -> bool:
    """False only where no value can make it: pydantic converts text and numbers at run time."""
    made, needed = _container(produced), _container(wanted)
    if made or needed:
        if produced is str:
            return True
        if made and needed:
            arms, want = typing.get_args(produced), typing.get_args(wanted)
            if made == needed == "sequence" and len(arms) == 1 and len(want) == 1:
                return fits(arms[0], want[0])
            return made == needed
        return not (_is_scalar(produced) or _is_scalar(wanted))
    return not (produced in _NUMBERS and _is_class(wanted, os.PathLike))


def _container(annotation: Any) -> str | None:
    origin = typing.get_origin(annotation) or annotation
    if origin in _SEQUENCES:
        return "sequence"
    return "mapping" if origin is dict else None


def _is_scalar(annotation: Any) -> bool:
    return annotation in (*_NUMBERS, str, bytes)


def _is_class(annotation: Any, base: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, base)


def _line(function: Callable[..., Any]) -> str:
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
