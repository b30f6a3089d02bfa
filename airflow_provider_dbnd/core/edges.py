"""Build-time check of an edge: can this producer's result become that parameter?"""

from __future__ import annotations

import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core import formats
from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.conversion import (
    accepts_none,
    is_class,
    is_union,
    strip_annotated,
    type_text,
)
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.signature import code_of
from airflow_provider_dbnd.exceptions import GraphError

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_NUMBERS = (bool, int, float, complex)
_SEQUENCES = (list, tuple, set, frozenset)


def check_edge(
    producer: Definition, produced: Any, consumer: Definition, name: str, wanted: Any
) -> None:
    """Raise GraphError where *produced* can never become *wanted*, the type of parameter *name*."""
    if fits(produced, wanted):
        return
    raise GraphError(
        f"{producer.signature.name}() returns {type_text(produced)}, which cannot become parameter "
        f"{name!r} ({type_text(wanted)}) of {consumer.signature.name}().\n"
        f"  {producer.signature.name}: {_line(producer.function)}\n"
        f"  {consumer.signature.name}: {_line(consumer.function)}\n"
        f"  called at {_call_site()}\n"
        "Change one of the two annotations, or convert in a task between them."
    )


def fits(produced: Any, wanted: Any) -> bool:
    """Tell whether a value annotated *produced* can become one annotated *wanted*.

    >>> fits(int, float), fits(float, list[int]), fits(str, int)
    (True, False, True)
    """
    produced, wanted = strip_annotated(produced), strip_annotated(wanted)
    if any(annotation in (Any, MISSING, object) for annotation in (produced, wanted)):
        return True
    if produced in (None, type(None)):
        return accepts_none(wanted)
    if is_union(produced):
        return any(fits(arm, wanted) for arm in typing.get_args(produced) if arm is not type(None))
    if is_union(wanted):
        return any(fits(produced, arm) for arm in typing.get_args(wanted))
    if isinstance(produced, typing.TypeVar) or isinstance(wanted, typing.TypeVar):
        return True
    if produced == wanted:
        return True
    if wanted in (Artifact, Path):
        return produced not in _NUMBERS  # they travel as themselves, in no file
    if produced is Artifact:
        return wanted not in _NUMBERS  # what it refers to is known in the run
    if formats.is_data_type(produced) or formats.is_data_type(wanted):
        return _data_fits(produced, wanted)
    return _plain_fits(produced, wanted)


def _data_fits(produced: Any, wanted: Any) -> bool:
    if formats.is_data_type(produced) and formats.is_data_type(wanted):
        return formats.can_convert(produced, wanted)
    if formats.is_data_type(wanted):
        # A path or a URI is loaded; so is a list of them.
        named = typing.get_args(produced)[0] if typing.get_origin(produced) is list else produced
        return named is str or is_class(named, os.PathLike)
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
            if made == needed == "mapping" and len(arms) == len(want) == 2:
                return fits(arms[1], want[1])
            return made == needed
        return not (_is_scalar(produced) or _is_scalar(wanted))
    return not (produced in _NUMBERS and wanted is str)


def _container(annotation: Any) -> str | None:
    origin = typing.get_origin(annotation) or annotation
    if origin in _SEQUENCES:
        return "sequence"
    return "mapping" if origin is dict else None


def _is_scalar(annotation: Any) -> bool:
    return annotation in (*_NUMBERS, str, bytes)


def _line(function: Callable[..., Any]) -> str:
    code = code_of(function)
    return f"{code.co_filename}:{code.co_firstlineno}"


def _call_site() -> str:
    """Return the user's line that makes the call: the innermost frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
