"""The digest of a function and of all it reaches in the project."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_dbnd.core.code.declared import declared_part
from airflow_provider_dbnd.core.code.objects import vars_of
from airflow_provider_dbnd.core.code.project import project_of
from airflow_provider_dbnd.core.code.reach import Reach
from airflow_provider_dbnd.core.digest import digest_of
from airflow_provider_dbnd.exceptions import DbndError, FingerprintError

#: Part of every digest; another one when the rules change.
_RULES = "code 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeFingerprint:
    """What a function's code amounts to.

    ``parts`` has a short digest (of a declared package the version) of each thing that counts, by a
    name for people, so that two of them tell which parts changed. ``blind`` names the spots whose
    meaning only shows when they run.
    """

    digest: str
    parts: Mapping[str, str]
    blind: tuple[str, ...] = ()


def fingerprint(function: Callable[..., Any], *, declared: Sequence[str] = ()) -> CodeFingerprint:
    """Return the fingerprint of a function: equal when what it would do is, as far as code goes.

    It covers the function and what it refers to in the project, at any depth: functions, classes
    and their bases, decorators, closures, modules. Global variables count by value where they are
    data, whatever made it, and by the statements that make them where they are other objects. Code
    outside the project (the standard library, installed packages) counts by nothing.

    Of what is computed while the code runs nothing can be seen: ``getattr`` with a computed name,
    ``importlib.import_module(variable)``, ``globals()[...]``, ``eval``, what one module patches
    into another, files that are read. ``blind`` lists such spots as far as they can be told.

    :param declared: what counts besides: an installed package by its version, a module, a file or a
        folder by its content; relative paths start at the function's file
    :raises FingerprintError: for code without a source file, or when the file is not what runs
    """
    file = _file_of(function)
    project = project_of(file)
    reach = Reach(project)
    try:
        reach.follow(function)
    except DbndError:
        raise
    # The user's objects are looked into, and some raise when they are.
    except Exception as exc:
        raise FingerprintError(
            f"{function!r} has no fingerprint: something it refers to cannot be looked into "
            f"({type(exc).__name__}: {exc})."
        ) from exc
    parts = reach.units.parts()
    if not parts:
        raise FingerprintError(
            f"{function!r} has no fingerprint: expected a function of the project, got one from "
            f"{file}. Write a function that calls it."
        )
    extra = [declared_part(name, project, os.path.dirname(file)) for name in declared]
    texts = (_RULES, reach.units.digest(), *(part for each in extra for part in each))
    return CodeFingerprint(
        digest=digest_of(text.encode() for text in texts).hex(),
        parts={**parts, **dict(extra)},
        blind=tuple(reach.spots),
    )


def _file_of(function: Any) -> str:
    inner: Any = function
    seen: set[int] = set()
    while id(inner) not in seen and "__wrapped__" in vars_of(inner):
        seen.add(id(inner))
        inner = vars_of(inner)["__wrapped__"]
    if type(inner) is not types.FunctionType:
        raise FingerprintError(
            f"{function!r} has no fingerprint: expected a function written in Python, got "
            f"{type(inner).__name__}."
        )
    return os.path.abspath(inner.__code__.co_filename)
