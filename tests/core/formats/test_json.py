from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import subprocess
import sys
import uuid
import zoneinfo
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
import pytest
from contract import FormatContract, read, write

from airflow_provider_dbnd.exceptions import FormatError


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Fit:
    score: float
    level: Level
    points: list[Point]
    by_id: dict[int, str]


class Model(pydantic.BaseModel):
    at: dt.datetime
    fit: Fit
    price: decimal.Decimal


class Grade(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(slots=True)
class Slots:
    count: int


class Open(pydantic.BaseModel, extra="allow"):
    pass


AT = dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone.utc)
FIT = Fit(0.5, Level.HIGH, [Point(1, 2.5)], {1: "a"})


class TestJson(FormatContract):
    name = "json"

    def values(self) -> list[Any]:
        return [
            {"a": [1, 2.5, None, True, "ü"]},
            list(range(1000)),
            FIT,
            Model(at=AT, fit=FIT, price=decimal.Decimal("1.10")),
        ]


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        pytest.param({1: "a", 2: "b"}, dict[int, str], id="int keys"),
        pytest.param({"b", "a"}, set[str], id="set"),
        pytest.param((1, "a"), tuple[int, str], id="tuple"),
        pytest.param([Point(1, 2.0)], list[Point], id="named tuples"),
        pytest.param(Level.LOW, Level, id="enum"),
        pytest.param(AT, dt.datetime, id="datetime"),
        pytest.param(dt.date(2024, 1, 1), dt.date | None, id="optional date"),
        pytest.param(dt.timedelta(days=1, microseconds=1), dt.timedelta, id="timedelta"),
        pytest.param(decimal.Decimal("1.10"), decimal.Decimal, id="decimal"),
        pytest.param(uuid.UUID(int=7), uuid.UUID, id="uuid"),
        pytest.param([float("inf"), float("nan")], list[float], id="not numbers"),
    ],
)
def test_the_annotation_brings_a_value_back(value: Any, type_: Any, tmp_path: Path) -> None:
    write("json", value, tmp_path / "f", type_)

    found = read("json", tmp_path / "f", type_)

    assert type(found) is type(value)
    assert repr(found) == repr(value) or found == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({1: "a"}, id="int keys"),
        pytest.param({"a": (1, 2)}, id="tuple inside"),
        pytest.param([{1}], id="set inside"),
        pytest.param([AT], id="datetime inside"),
        pytest.param({"a": object()}, id="object"),
        pytest.param([Level.LOW], id="enum inside"),
    ],
)
def test_what_would_change_without_an_annotation_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="JSON"):
        write("json", value, tmp_path / "f", type(value))


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        pytest.param(Slots(True), Slots, id="bool in a dataclass with slots"),
        pytest.param(Open(level=Grade.LOW), Open, id="enum in an extra field"),
        pytest.param({True}, set[int], id="bool in a set"),
    ],
)
def test_what_would_come_back_only_equal_is_refused(value: Any, type_: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="would not come back equal from JSON"):
        write("json", value, tmp_path / "f", type_)


def test_of_a_time_zone_the_offset_comes_back(tmp_path: Path) -> None:
    value = AT.astimezone(zoneinfo.ZoneInfo("Europe/Berlin"))
    written = write("json", value, tmp_path / "f", dt.datetime)

    found = read("json", tmp_path / "f", dt.datetime, written)

    assert (found, found.utcoffset()) == (value, value.utcoffset())


def test_sets_have_one_digest_in_all_processes(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, contract\n"
        "value = {str(n) for n in range(50)}\n"
        "print(contract.write('json', value, pathlib.Path(sys.argv[1]), set[str]).digest)"
    )
    path = ":".join([str(Path(__file__).parent), *sys.path])

    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "f")],
            env={"PYTHONPATH": path, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(digests) == 1


def test_json_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('{"score": "high"')

    with pytest.raises(FormatError, match=f"{tmp_path / 'f'}: the JSON does not fit"):
        read("json", tmp_path / "f", dict)
