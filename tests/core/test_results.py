"""What a task returns is what its annotation says, or an error names both; whatever its size."""

from __future__ import annotations

import collections
import datetime as dt
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, Protocol, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from local_project import Project
from pandas import DataFrame
from pydantic import BaseModel

from airflow_provider_dbnd import output, pipeline, sensor, task
from airflow_provider_dbnd.core.results import misfit_of
from airflow_provider_dbnd.exceptions import ResultError
from tests.ids import shown

FRAME = DataFrame({"x": [1, 2]})
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    n: int = 1


@dataclass
class Holder:
    frame: DataFrame


class Row(TypedDict):
    n: int


class Point(NamedTuple):
    x: int
    y: int


class Published(NamedTuple):
    frame: Annotated[DataFrame, output(path="{store}/frame.csv")]
    rows: int


class Named(Protocol):
    name: str


def parts() -> Iterator[DataFrame]:
    yield FRAME


FITTING: list[tuple[Any, Any]] = [
    (True, int),
    (1, float),
    (3.0, int),
    (1, complex),
    (np.int64(1), int),
    (np.float32(1), float),
    (np.bool_(True), bool),
    (np.str_("x"), str),
    (UserId(1), UserId),
    (None, int | None),
    (None, Any),
    ("x", int | str),
    ("a", Literal["a", "b"]),
    (Colour.RED, Colour),
    (pd.Timestamp("2026-01-01 06:00"), dt.datetime),
    (dt.timedelta(1), dt.timedelta),
    ((1, 2), list[int]),
    ({1, 2}, set[int]),
    ([1, None], list[int | None]),
    ([1, 2.5], list[float]),
    ([np.int64(1)], list[int]),
    ([], list[int]),
    ((1, "a"), tuple[int, str]),
    ((), tuple[()]),
    (collections.deque([1]), Sequence[int]),
    ({"a": [1]}, dict[str, list[int]]),
    ({"a": 1}, Mapping[str, int]),
    (collections.Counter("ab"), dict[str, int]),
    ({"n": 1}, Row),
    (Model(), Model),
    ([Model()], list[Model]),
    (Holder(FRAME), Holder),
    (Point(1, 2), Point),
    (object(), Named),
    (Path("a.csv"), Path),
    (FRAME, DataFrame),
    (pl.DataFrame(), DataFrame),
    (pa.table({"x": [1]}), pl.DataFrame),
    (None, DataFrame | None),
    ([FRAME, None], list[DataFrame | None]),
    ({"a": FRAME}, dict[str, DataFrame]),
    (np.zeros(2), np.ndarray),
    (np.zeros(2), npt.NDArray[np.float64]),
    (np.array(3), np.ndarray),
    (FRAME, Iterator[DataFrame]),
    ([1], Iterable[int]),
]

WRONG: list[tuple[Any, Any]] = [
    ("3", int),
    (3.5, int),
    (3, str),
    (None, int),
    (None, DataFrame),
    (None, Iterator[DataFrame]),
    (1.5, int | str),
    ("c", Literal["a", "b"]),
    ("data/raw.csv", Path),
    ("data/raw.csv", DataFrame),
    ([1, 2], DataFrame),
    (FRAME["x"], DataFrame),
    ([1.0], np.ndarray),
    (np.zeros(2), list[float]),
    (FRAME, int),
    (FRAME, dict[str, int]),
    ("abc", list[str]),
    ("abc", Iterable[str]),
    ([1], dict[str, int]),
    (["x"], list[int]),
    ([["x"]], list[list[int]]),
    ([FRAME, "x"], list[DataFrame]),
    (["a.csv"], list[Path]),
    ({1: 1}, dict[str, int]),
    ({"a": "x"}, dict[str, int]),
    ((1, 2), tuple[int, str]),
    ((1, 2, 3), tuple[int, int]),
    (3, Model),
    (3, Holder),
]


@pytest.mark.parametrize(("value", "annotation"), FITTING, ids=shown)
def test_what_the_annotation_says_is_taken(value: Any, annotation: Any) -> None:
    assert misfit_of(value, annotation) is None


@pytest.mark.parametrize(("value", "annotation"), WRONG, ids=shown)
def test_what_the_annotation_does_not_say_is_found(value: Any, annotation: Any) -> None:
    assert misfit_of(value, annotation) is not None


def test_a_stream_is_not_used_up() -> None:
    stream = parts()

    assert misfit_of(stream, Iterator[DataFrame]) is None
    assert misfit_of(stream, DataFrame) is None
    assert len(list(stream)) == 1


def returning(value: Any, annotation: Any, *, kind: Any = task) -> Any:
    def make() -> Any:
        return value

    make.__annotations__["return"] = annotation

    @pipeline
    def p() -> Any:
        return kind(make)()

    return p


@pytest.mark.parametrize("count", [1, 2000])
@pytest.mark.parametrize(
    ("one", "annotation", "message"),
    [
        (["x"], list[int], "expected int at [0], in list[int], got 'x'."),
        (["3"], list[int], "expected int at [0], in list[int], got '3'."),
        (
            [{"n": 1}, {"n": "x"}],
            list[dict[str, int]],
            "expected int at [1]['n'], in list[dict[str, int]], got 'x'.",
        ),
        (
            [Point(1, 2), 3],
            list[Point],
            "expected Point at [1], in list[Point], got 3. Input should be a tuple, list, dictionary or "
            "an instance of Point.",
        ),
    ],
)
def test_a_wrong_result_is_an_error_of_one_line_whatever_its_size(
    project: Project, one: Any, annotation: Any, message: str, count: int
) -> None:
    with pytest.raises(ResultError) as error:
        project.value(returning(one * count, annotation))

    assert str(error.value) == (
        f"output 'result' of task 'make': {message} Return what the annotation says, or annotate "
        "what is returned."
    )


def test_the_output_that_is_wrong_is_named(project: Project) -> None:
    with pytest.raises(ResultError, match=r"^output 'y' of task 'make': expected int, got 'high'"):
        project.value(returning(Point(1, "high"), Point))  # type: ignore[arg-type]


def test_nothing_of_a_wrong_result_is_stored_or_published(project: Project) -> None:
    result = project.run(returning(Published(FRAME, None), Published))  # type: ignore[arg-type]

    assert not result.success
    assert [info.key for info in project.store.list() if not info.key.startswith("_")] == []


@pytest.mark.parametrize("count", [1, 2000])
def test_a_list_of_floats_may_hold_whole_numbers_whatever_its_size(
    project: Project, count: int
) -> None:
    assert project.value(returning([1, 2.5] * count, list[float])) == [1, 2.5] * count


@pytest.mark.parametrize("value", [None, False])
def test_a_sensor_that_waits_says_so_whatever_its_annotation(project: Project, value: Any) -> None:
    waits = returning(value, str, kind=sensor(timeout=0.1, poke_interval=0.05))

    (outcome,) = project.run(waits).outcomes.values()

    assert "timeout" in str(outcome.error) or "0.1 s" in str(outcome.error)
    assert not isinstance(outcome.error, ResultError)


def test_a_message_tells_a_few_of_many_errors(project: Project) -> None:
    class Many(BaseModel):
        a: int
        b: int
        c: int
        d: int
        e: int

    with pytest.raises(ResultError, match=r"c: Field required; and 2 more\. Return what"):
        project.value(returning({}, Many))
