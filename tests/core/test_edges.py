"""Edges are checked while the graph is built."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from local_project import Project
from pandas import DataFrame, Series

from airflow_provider_dbnd import Artifact, pipeline, task
from airflow_provider_dbnd.core.edges import fits
from airflow_provider_dbnd.exceptions import GraphError


class Halves(NamedTuple):
    left: DataFrame
    n: int


@task
def number() -> float:
    return 1.5


@task
def table() -> DataFrame:
    return DataFrame()


@task
def tables() -> list[DataFrame]:
    return []


@task
def halves() -> Halves: ...


@task
def nothing() -> None: ...


@task
def use(data: DataFrame) -> int:
    return len(data)


@task
def use_all(data: list[DataFrame]) -> int:
    return len(data)


@task
def use_number(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("produced", "wanted"),
    [
        (int, float),
        (str, int),
        (str, list[int]),
        (str, DataFrame),
        (Path, DataFrame),
        (list[str], DataFrame),
        (DataFrame, pa.Table),
        (DataFrame, pl.DataFrame),
        (DataFrame, Artifact),
        (DataFrame, Path),
        (DataFrame, Optional[DataFrame]),
        (Optional[DataFrame], DataFrame),
        (Union[int, DataFrame], DataFrame),
        (list[int], set[float]),
        (dict[str, int], dict[str, float]),
        (Any, DataFrame),
        (DataFrame, Any),
        (None, Optional[int]),
        (dt.date, str),
    ],
)
def test_edges_that_can_work_are_let_through(produced: Any, wanted: Any) -> None:
    assert fits(produced, wanted)


@pytest.mark.parametrize(
    ("produced", "wanted"),
    [
        (DataFrame, int),
        (int, DataFrame),
        (float, list[int]),
        (list[DataFrame], DataFrame),
        (list[int], dict[str, int]),
        (list[dict[str, int]], list[int]),
        (dict[str, DataFrame], dict[str, int]),
        (int, str),
        (int, Path),
        (DataFrame, Series),
        (np.ndarray, DataFrame),
        (None, int),
        (tuple[DataFrame, DataFrame], DataFrame),
    ],
)
def test_edges_that_can_never_work_are_found(produced: Any, wanted: Any) -> None:
    assert not fits(produced, wanted)


def line(function: Callable[..., Any]) -> str:
    return f"{__file__}:{function.__wrapped__.__code__.co_firstlineno}"  # type: ignore[attr-defined]


def test_the_message_names_functions_types_and_lines(project: Project) -> None:
    @pipeline
    def p():
        use(number())  # type: ignore[arg-type]

    with pytest.raises(GraphError) as error:
        project.graph(p)

    assert str(error.value) == (
        "number() returns float, which cannot become parameter 'data' (DataFrame) of use().\n"
        f"  number: {line(number)}\n"
        f"  use: {line(use)}\n"
        f"  called at {__file__}:{p.function.__code__.co_firstlineno + 2}\n"
        "Change one of the two annotations, or convert in a task between them."
    )


@pytest.mark.parametrize(
    ("body", "first_line"),
    [
        (
            lambda: use_all([table(), number()]),  # type: ignore[list-item]
            "number() returns float, which cannot become parameter 'data' (DataFrame) of use_all().",
        ),
        (
            lambda: use_number.expand(n=tables()),
            "tables() returns DataFrame, which cannot become parameter 'n' (int) of use_number().",
        ),
        (
            lambda: use(halves()),  # type: ignore[arg-type]
            "halves() returns Halves, which cannot become parameter 'data' (DataFrame) of use().",
        ),
        (
            lambda: use(halves().n),  # type: ignore[arg-type]
            "halves() returns int, which cannot become parameter 'data' (DataFrame) of use().",
        ),
        (
            lambda: use_number(nothing()),  # type: ignore[func-returns-value, arg-type]
            "nothing() returns None, which cannot become parameter 'n' (int) of use_number().",
        ),
    ],
)
def test_every_way_into_an_argument_is_checked(
    project: Project, body: Any, first_line: str
) -> None:
    @pipeline
    def p():
        body()

    with pytest.raises(GraphError) as error:
        project.graph(p)

    assert str(error.value).splitlines()[0] == first_line
