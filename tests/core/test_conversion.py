"""Values of every annotated type, from text as a person writes it and from code."""

from __future__ import annotations

import datetime as dt
import enum
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union

import pydantic
import pytest
from pandas import DataFrame
from typing_extensions import TypedDict

from airflow_provider_dbnd.core.conversion import convert, type_text
from airflow_provider_dbnd.core.parameters import parameter


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Point:
    x: int
    y: int = 0


class Box(pydantic.BaseModel):
    width: int
    names: list[str] = []


@dataclass
class Wait:
    wait: dt.timedelta


class WaitDict(TypedDict):
    wait: dt.timedelta


class WaitModel(pydantic.BaseModel):
    wait: dt.timedelta


class Pair(NamedTuple):
    a: int
    b: str


@dataclass
class Frames:
    table: DataFrame
    n: int


@pytest.mark.parametrize(
    ("given", "annotation", "expected"),
    [
        ("3", int, 3),
        ("3.5", float, 3.5),
        ("yes", bool, True),
        ("0", bool, False),
        ("text", str, "text"),
        ("none", Optional[int], None),
        ("none", str, "none"),
        ("4", Optional[int], 4),
        ("1,2,3", list[int], [1, 2, 3]),
        ("[1, 2]", list[int], [1, 2]),
        ("", list[int], []),
        ("a, b", set[str], {"a", "b"}),
        ("1,x", tuple[int, str], (1, "x")),
        ("2d,3h", list[dt.timedelta], [dt.timedelta(days=2), dt.timedelta(hours=3)]),
        (["2d"], list[dt.timedelta], [dt.timedelta(days=2)]),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ({"a": "1d"}, dict[str, dt.timedelta], {"a": dt.timedelta(days=1)}),
        ("a", Literal["a", "b"], "a"),
        ("2", Literal[1, 2], 2),
        ("RED", Colour, Colour.RED),
        ("b", Colour, Colour.BLUE),
        ("2", Level, Level.HIGH),
        ("2024-02-03", dt.date, dt.date(2024, 2, 3)),
        ("2024-02-03T10:00:00Z", dt.date, dt.date(2024, 2, 3)),
        ("2024-02-03T10:00", dt.datetime, dt.datetime(2024, 2, 3, 10)),
        ("2d", dt.timedelta, dt.timedelta(days=2)),
        ("1h 30m", dt.timedelta, dt.timedelta(minutes=90)),
        ("1h1h", dt.timedelta, dt.timedelta(hours=2)),
        ("PT5M", dt.timedelta, dt.timedelta(minutes=5)),
        ('{"x": 1}', Point, Point(1, 0)),
        ({"x": "1", "y": 2}, Point, Point(1, 2)),
        ('{"width": 2, "names": ["a"]}', Box, Box(width=2, names=["a"])),
        ({"a": 1, "b": "x"}, Pair, Pair(1, "x")),
        ('{"wait": "36h"}', Wait, Wait(wait=dt.timedelta(hours=36))),
        ('{"wait": "36h"}', WaitDict, {"wait": dt.timedelta(hours=36)}),
        ([{"wait": "36h"}], list[WaitModel], [WaitModel(wait=dt.timedelta(hours=36))]),
        ("5", Union[int, str], "5"),
        ("5", Annotated[int, pydantic.Field(gt=1)], 5),
        ("x", Any, "x"),
        ("a/b", Path, Path("a/b")),
    ],
)
def test_a_value_becomes_its_type(given: Any, annotation: Any, expected: Any) -> None:
    converted = convert(given, annotation, parameter)

    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("given", "annotation", "reason"),
    [
        (
            "hgh",
            int,
            "Input should be a valid integer, unable to parse string as an integer",
        ),
        (3, str, "Input should be a valid string"),
        ("x", dict[str, int], 'Write it as JSON: {"name": value}'),
        ("[1,", list[int], "It is not valid JSON: Expecting value: line 1 column 4 (char 3)"),
        ("1,x", list[int], "1: Input should be a valid integer, unable to parse string as an int"),
        ("c", Literal["a", "b"], "Input should be 'a' or 'b'"),
        (
            "2024-13-01T00:00",
            dt.date,
            "Input should be a valid date or datetime, month value is outside expected range",
        ),
        (None, int, "Input should be a valid integer"),
    ],
)
def test_a_value_that_does_not_fit_says_why(given: Any, annotation: Any, reason: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(reason)):
        convert(given, annotation, parameter)


def test_constraints_and_choices_hold() -> None:
    assert convert("3", int, parameter(ge=3)) == 3
    with pytest.raises(ValueError, match=r"^Input should be greater than or equal to 3$"):
        convert("2", int, parameter(ge=3))
    with pytest.raises(ValueError, match=r"^String should match pattern"):
        convert("B", str, parameter(pattern="^a"))
    with pytest.raises(ValueError, match=r"^It must be one of 1, 2$"):
        convert("3", int, parameter(choices=[1, 2]))


def test_a_dataclass_that_holds_data_passes_and_is_made_of_its_fields() -> None:
    table = DataFrame({"x": [1]})
    frames = Frames(table=table, n=1)

    assert convert(frames, Frames, parameter) is frames
    assert convert({"table": table, "n": 1}, Frames, parameter).table is table
    with pytest.raises(ValueError, match=r"^It needs the fields table, n$"):
        convert({"n": 1}, Frames, parameter)
    with pytest.raises(ValueError, match=r"^It must be an instance of Frames$"):
        convert(3, Frames, parameter)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (DataFrame, "DataFrame"),
        (list[DataFrame], "list[DataFrame]"),
        (Optional[int], "int | None"),
        (dict[str, list[int]], "dict[str, list[int]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Annotated[int, parameter(ge=0)], "int"),
        (Any, "Any"),
        (None, "None"),
    ],
)
def test_types_are_named_as_a_user_writes_them(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text
