"""``@spark_job``: a typed function that declares a Spark program of another kind: a jar, a script."""

from __future__ import annotations

import functools
import inspect
import string
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from airflow_provider_dbnd.core.artifacts import Artifact
from airflow_provider_dbnd.core.conversion import type_text
from airflow_provider_dbnd.core.formats import is_data_type
from airflow_provider_dbnd.core.signature import Signature
from airflow_provider_dbnd.core.spark.session import PROGRAM
from airflow_provider_dbnd.decorators.task import Task, make_task
from airflow_provider_dbnd.exceptions import EngineError, SignatureError

P = ParamSpec("P")
R = TypeVar("R")


def spark_job(
    application: str, *, args: Sequence[str] = (), java_class: str | None = None, **options: Any
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a Spark program a task; the decorated function is its signature and has no body.

    :param application: URL of a jar or a Python file, or a path from this file's folder.
    :param args: the program's arguments, with names in braces: of a parameter, its value or, for an
        artifact, a frame or a path to one, where Spark finds it; of an output, the folder where the
        program is to write parquet.
    :param java_class: the main class of a jar.
    :param options: as of ``@task``. The engine has to be one of type ``spark`` or ``livy``.

    ``application``, ``args`` and ``java_class`` are parameters of the task too, so a run or a file may
    set them.

    >>> @spark_job("s3://jobs/clean-1.4.jar", java_class="org.example.Clean",
    ...            args=["--orders", "{orders}", "--min", "{least}", "--to", "{result}"], engine="spark")
    ... def clean(orders: Artifact, least: int = 10) -> Artifact: ...
    >>> list(clean.definition.signature.inputs)
    ['orders', 'least', 'application', 'java_class', 'args']
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        program = _program(
            function, {"application": application, "java_class": java_class, "args": list(args)}
        )
        task = make_task("task", program, options)
        _check(task.definition.signature, args)
        return task

    return decorate


_TYPES = {"application": str, "java_class": str | None, "args": list[str]}


def _program(function: Callable[P, R], defaults: dict[str, Any]) -> Callable[P, R]:
    """Return *function* with the program's own parameters."""
    written = inspect.signature(function)
    for name in defaults:
        if name in written.parameters:
            raise SignatureError(
                f"{function.__name__}(): parameter {name!r} is the program's own. Name it otherwise."
            )

    @functools.wraps(function)
    def run(*_: Any, **__: Any) -> R:
        raise EngineError(
            f"Spark job {function.__name__!r} runs on an engine of type spark or livy, and not here. "
            "Call it in a pipeline, and set engine=... in its decorator, in dbnd.toml or by --env"
        )

    ours = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in defaults.items()
    ]
    run.__signature__ = written.replace(  # type: ignore[attr-defined]
        parameters=[*written.parameters.values(), *ours]
    )
    run.__annotations__ = {**function.__annotations__, **_TYPES}
    setattr(run, PROGRAM, True)
    return run


def _check(signature: Signature, args: Sequence[str]) -> None:
    outputs = {slot.name for slot in signature.outputs}
    known = (signature.inputs.keys() - _TYPES.keys()) | outputs
    used = {name for each in args for _, name, _, _ in string.Formatter().parse(each) if name}
    for name in sorted(used - known):
        raise SignatureError(
            f"{signature.name}(): args name {name!r}, which is neither a parameter nor an output: "
            f"{', '.join(sorted(known))}. Braces that are none of ours are doubled: {{{{ }}}}."
        )
    for slot in signature.outputs:
        if slot.annotation is not Artifact and not is_data_type(slot.annotation):
            raise SignatureError(
                f"{signature.name}(): output {slot.name!r} is {type_text(slot.annotation)}, and a Spark "
                "job leaves parquet. Annotate it with Artifact or the type of a frame."
            )
        if slot.name not in used:
            raise SignatureError(
                f"{signature.name}(): no argument tells the program where to write output "
                f"{slot.name!r}. Add '{{{slot.name}}}' to args."
            )
