"""Arguments cross to another machine exactly, or sending says why they do not."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import os
import uuid
import zoneinfo
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_dbnd import LOGICAL_DATE, Artifact, parameter, task
from airflow_provider_dbnd.core.definition import Definition
from airflow_provider_dbnd.core.execute import TaskSpec, arguments_in_memory, value_of_run
from airflow_provider_dbnd.core.manifest import Identity
from airflow_provider_dbnd.core.parameters import Output
from airflow_provider_dbnd.core.remote.travel import INPUTS, Packer, unpack
from airflow_provider_dbnd.core.resolution import Value
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import Encoder
from airflow_provider_dbnd.exceptions import (
    ArtifactNotFoundError,
    CodeDeliveryError,
    DbndError,
    ParameterError,
)
from tests.ids import shown

DAY = "2026-03-04T05:06:07+00:00"


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: float
    tag: str = "t"


@dataclasses.dataclass
class Job:
    where: Path
    table: pd.DataFrame
    n: int = 1


class Model(pydantic.BaseModel):
    day: dt.date
    points: list[Point]


class Login(pydantic.BaseModel):
    user: str
    password: pydantic.SecretStr


class Holder(pydantic.BaseModel):
    file: Path


class Pair(NamedTuple):
    a: int
    b: str


class Opaque:
    """Nothing knows how to write it."""


@dataclasses.dataclass(kw_only=True)
class Trip:
    """Where arguments go from and to. ``shares_disk`` as for the engine."""

    folder: Path
    store: ArtifactStore
    shares_disk: bool = False

    @property
    def identity(self) -> Identity:
        return Identity(pipeline="p", run_id="r", task_id="f", logical_date=DAY)

    def packed(self, definition: Definition, value: Any, **more: Any) -> dict[str, Any]:
        """Return the argument ``x`` as the spec has it: through its text."""
        given = self.value(definition, value, **more)
        packer = Packer(
            self.identity, self.store, str(self.folder / "scratch"), shares_disk=self.shares_disk
        )
        found: dict[str, Any] = json.loads(json.dumps(packer.pack(definition, {"x": given})))
        return found

    def value(self, definition: Definition, value: Any, **more: Any) -> Value:
        given = Value(**{"value": value, "source": "call", "base": str(self.folder), **more})
        return value_of_run(self.identity, definition.signature.inputs["x"], given)

    def here(self, definition: Definition, value: Any) -> Any:
        """Return what the function gets in the worker."""
        return self._called(definition, {"x": self.value(definition, value)})

    def there(self, definition: Definition, value: Any) -> Any:
        """Return what the function gets where it was sent to."""
        return self._called(definition, unpack(definition, self.packed(definition, value), "f"))

    def _called(self, definition: Definition, arguments: dict[str, Value]) -> Any:
        spec = TaskSpec(identity=self.identity, arguments=arguments, store=self.store)
        return arguments_in_memory(spec, definition)["x"]


@pytest.fixture
def trip(tmp_path: Path) -> Trip:
    return Trip(folder=tmp_path, store=ArtifactStore(str(tmp_path / "store")))


def taking(annotation: Any, **options: Any) -> Definition:
    """Return a task whose parameter ``x`` is of a type."""

    def f(x: Any) -> None: ...

    f.__annotations__ = {"x": annotation, "return": None}
    return task(**options)(f).definition if options else task(f).definition


def table(n: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"n": range(n), "t": ["a"] * n})


PLAIN: list[tuple[Any, Any]] = [
    (int, 3),
    (int, 10**300),
    (int, "7"),
    (int, np.int64(3)),
    (float, 0.1),
    (float, math.inf),
    (float, -math.inf),
    (float, math.nan),
    (float, np.float64(0.5)),
    (bool, True),
    (bool, np.bool_(False)),
    (str, "ü\U0001f600"),
    (str, "\udcff"),
    (str, ""),
    (str, "*" * 100_000),
    (bytes, b"\xff\x00"),
    (bytes, b"plain"),
    (Any, b"\xff"),
    (Optional[int], None),
    (Any, None),
    (dt.date, dt.date(2026, 1, 2)),
    (dt.date, "2026-01-02"),
    (dt.datetime, dt.datetime(2026, 1, 2, 3, 4, 5, 678901)),
    (dt.datetime, dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)),
    (dt.datetime, dt.datetime(2026, 7, 2, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))),
    (dt.date, LOGICAL_DATE),
    (dt.datetime, LOGICAL_DATE),
    (dt.time, dt.time(3, 4, 5)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=3)),
    (dt.timedelta, "2d"),
    (Color, Color.BLUE),
    (Color, "RED"),
    (Level, Level.LOW),
    (Literal["a", 1], 1),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (uuid.UUID, uuid.UUID(int=3)),
    (complex, 1 + 2j),
    (Point, Point(1.5)),
    (Point, {"x": 1}),
    (Point, '{"x": 1}'),
    (Optional[Point], Point(2)),
    (Model, Model(day=dt.date(2026, 1, 2), points=[Point(1)])),
    (Pair, Pair(1, "b")),
    (list[Pair], [Pair(1, "b")]),
    (set[int], {3, 1, 2}),
    (frozenset[dt.date], frozenset({dt.date(2026, 1, 2)})),
    (tuple[int, str], (1, "a")),
    (tuple[dt.date, ...], (dt.date(2026, 1, 2),) * 2),
    (list[int], (1, 2)),
    (Any, (1, (2, 3))),
    (list, [1, "a", None, [True]]),
    (list[float], [0.5, math.nan, math.inf]),
    (Any, [math.nan, -math.inf]),
    (list[dt.date], [dt.date(2026, 1, 2)]),
    (list[str], "a,b"),
    (dict[str, dt.date], {"a": dt.date(2026, 1, 2)}),
    (dict[int, str], {1: "a", 10**20: "b"}),
    (dict[dt.date, Color], {dt.date(2026, 1, 2): Color.RED}),
    (dict[str, Any], {"a": {"b": [1, None]}}),
    (dict[str, list[Optional[Point]]], {"a": [Point(1), None]}),
    (OrderedDict[str, int], OrderedDict(b=1, a=2)),
]


def equal(here: Any, there: Any) -> bool:
    if isinstance(here, float) and math.isnan(here):
        return isinstance(there, float) and math.isnan(there)
    if isinstance(here, list):
        return len(here) == len(there) and all(map(equal, here, there))
    return type(here) is type(there) and bool(here == there)


class TestPlainValues:
    @pytest.mark.parametrize(("annotation", "value"), PLAIN, ids=shown)
    def test_arrive_as_what_the_task_gets_here(
        self, trip: Trip, annotation: Any, value: Any
    ) -> None:
        definition = taking(annotation)

        here, there = trip.here(definition, value), trip.there(definition, value)

        assert equal(here, there), (here, there)

    def test_a_time_zone_arrives_as_its_offset(self, trip: Trip) -> None:
        moment = dt.datetime(2026, 7, 2, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))

        there = trip.there(taking(dt.datetime), moment)

        assert there == moment
        assert there.utcoffset() == dt.timedelta(hours=2)

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (Any, {1, 2}),
            (Any, dt.date(2026, 1, 2)),
            (Any, {1: "a"}),
            (Any, Color.RED),
            (Any, Point(1)),
            (Any, OrderedDict(a=1)),
            (dict[str, Any], {"a": [dt.date(2026, 1, 2)]}),
            (Any, Opaque()),
            (Opaque, Opaque()),
            (Any, range(3)),
            (Any, len),
            (Any, iter([1])),
            (dict[tuple[int, int], str], {(1, 2): "a"}),
            (Login, Login(user="me", password=pydantic.SecretStr("s3cr3t"))),
        ],
        ids=shown,
    )
    def test_are_refused_where_they_would_arrive_as_something_else(
        self, trip: Trip, annotation: Any, value: Any
    ) -> None:
        with pytest.raises(ParameterError) as error:
            trip.packed(taking(annotation), value)

        text = str(error.value)
        assert text.startswith(
            "parameter 'x' of task 'f' (from call) cannot travel to another machine: "
        )
        assert "would not arrive as the same" in text
        assert "Annotate the parameter with the type of the value" in text
        assert "s3cr3t" not in text

    def test_are_refused_with_the_type_that_they_do_not_fit(self, trip: Trip) -> None:
        with pytest.raises(ParameterError, match=r"expected int, got datetime.date\(2026, 1, 2\)"):
            trip.packed(taking(int), dt.date(2026, 1, 2))

    def test_sets_are_packed_in_one_order_in_every_process(self, trip: Trip) -> None:
        names = [f"name-{n}" for n in range(50)]

        one, other = (trip.packed(taking(set[str]), set(each)) for each in (names, reversed(names)))

        assert one == other

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        value=st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.text(max_size=5).filter(lambda k: k != "dbnd_artifact"), inner, max_size=4
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_json_arrives_as_it_is(self, trip: Trip, value: Any) -> None:
        assert equal(trip.there(taking(Any), value), value)


class TestData:
    def test_in_memory_arrives_by_reference(self, trip: Trip) -> None:
        packed = trip.packed(taking(pd.DataFrame), table())

        assert packed["x"]["value"]["uri"].startswith(f"{trip.store.url}/p/f/x/")
        pd.testing.assert_frame_equal(trip.there(taking(pd.DataFrame), table()), table())

    @pytest.mark.parametrize("annotation", [list[pd.DataFrame], tuple[pd.DataFrame, ...], Any])
    def test_a_list_of_frames_arrives_one_by_one(self, trip: Trip, annotation: Any) -> None:
        there = trip.there(taking(annotation), [table(1), table(2)])

        assert [len(each) for each in there] == [1, 2]

    def test_dicts_of_frames_and_references_do(self, trip: Trip) -> None:
        definition = taking(dict[str, pd.DataFrame])
        encoder = Encoder(store=trip.store, pipeline="p", task_id="up")
        reference = encoder.encode(table(4), "result", Output())

        there = trip.there(definition, {"a": reference, "b": table(2)})

        assert {name: len(each) for name, each in there.items()} == {"a": 4, "b": 2}

    def test_a_reference_stays_what_it_is(self, trip: Trip) -> None:
        encoder = Encoder(store=trip.store, pipeline="p", task_id="up")
        reference = encoder.encode(table(4), "result", Output())

        assert trip.packed(taking(Any), [reference])["x"]["value"] == [reference]
        assert isinstance(trip.there(taking(Artifact), reference), Artifact)
        assert trip.there(taking(Path), reference).is_file()

    def test_a_record_that_holds_frames_and_files_does(self, trip: Trip) -> None:
        (trip.folder / "f.txt").write_text("text")

        there = trip.there(taking(Job), Job(where=trip.folder / "f.txt", table=table(2), n=3))

        assert isinstance(there, Job)
        assert (there.where.read_text(), len(there.table), there.n) == ("text", 2, 3)
        assert there.where != trip.folder / "f.txt"


@pytest.fixture
def files(trip: Trip) -> list[str]:
    """Three files beside the function's, by names that sort."""
    folder = trip.folder / "data"
    folder.mkdir()
    for n in range(1, 4):
        table(n).to_csv(folder / f"{n}.csv", index=False)
    return [f"data/{n}.csv" for n in range(1, 4)]


GIVEN: list[tuple[Any, Callable[[Path], Any], Any]] = [
    (pd.DataFrame, lambda p: "data/1.csv", 1),
    (pd.DataFrame, lambda p: str(p / "data" / "2.csv"), 2),
    (pd.DataFrame, lambda p: p / "data" / "2.csv", 2),
    (pd.DataFrame, lambda p: f"file://{p}/data/2.csv", 2),
    (Optional[pd.DataFrame], lambda p: "data/1.csv", 1),
    (pd.DataFrame, lambda p: "data/*.csv", 6),
    (pd.DataFrame, lambda p: "data/[23].csv", 5),
    (pd.DataFrame, lambda p: "data", 6),
    (pd.DataFrame, lambda p: "data/", 6),
    (pd.DataFrame, lambda p: ["data/3.csv", "data/1.csv"], 4),
    (pd.DataFrame, lambda p: ["data/[12].csv", "data/3.csv"], 6),
    (list[pd.DataFrame], lambda p: "data/3.csv, data/1.csv", [3, 1]),
    (list[pd.DataFrame], lambda p: ["data/3.csv", "data/1.csv"], [3, 1]),
    (tuple[pd.DataFrame, ...], lambda p: "data/3.csv, data/1.csv", (3, 1)),
    (dict[str, pd.DataFrame], lambda p: {"a": "data/3.csv"}, {"a": 3}),
]


def rows(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(rows, value))
    if isinstance(value, dict):
        return {name: rows(each) for name, each in value.items()}
    return len(value)


class TestFiles:
    @pytest.mark.parametrize("shares_disk", [True, False], ids=["sees the disk", "does not"])
    @pytest.mark.parametrize(("annotation", "given", "expected"), GIVEN, ids=range(len(GIVEN)))
    def test_are_read_there_as_here(
        self,
        trip: Trip,
        files: list[str],
        annotation: Any,
        given: Callable[[Path], Any],
        expected: Any,
        shares_disk: bool,
    ) -> None:
        trip.shares_disk = shares_disk
        definition, value = taking(annotation), given(trip.folder)

        packed = json.dumps(trip.packed(definition, value))

        assert rows(trip.here(definition, value)) == expected
        assert rows(trip.there(definition, value)) == expected
        copies = list(trip.store.list(INPUTS))
        assert bool(copies) is not shares_disk
        assert (f"{trip.folder}/data" in packed) is shares_disk

    def test_with_a_comma_in_their_name_are_one_there_as_here(self, trip: Trip) -> None:
        table(4).to_csv(trip.folder / "jan,feb.csv", index=False)

        assert rows(trip.here(taking(pd.DataFrame), "jan,feb.csv")) == 4
        assert rows(trip.there(taking(pd.DataFrame), "jan,feb.csv")) == 4

    def test_of_a_folder_keep_their_names_below_it(self, trip: Trip) -> None:
        for year in (2025, 2026):
            folder = trip.folder / "parts" / f"year={year}"
            folder.mkdir(parents=True)
            table(1).to_csv(folder / "a.csv", index=False)

        uri = trip.packed(taking(pd.DataFrame), "parts")["x"]["value"]

        assert uri.endswith("/parts")
        names = {each.key.partition("/parts/")[2] for each in trip.store.list(INPUTS)}
        assert names == {"year=2025/a.csv", "year=2026/a.csv"}

    def test_in_a_folder_whose_name_cannot_be_kept_are_refused(self, trip: Trip) -> None:
        folder = trip.folder / "parts" / "city=New York"
        folder.mkdir(parents=True)
        table(1).to_csv(folder / "a.csv", index=False)

        with pytest.raises(ParameterError, match="in a folder whose name cannot be kept"):
            trip.packed(taking(pd.DataFrame), "parts")

    def test_are_copied_once_and_again_when_they_changed(
        self, trip: Trip, files: list[str]
    ) -> None:
        definition = taking(pd.DataFrame)
        one = trip.packed(definition, "data/1.csv")

        assert trip.packed(definition, "data/1.csv") == one
        table(9).to_csv(trip.folder / "data" / "1.csv", index=False)
        assert trip.packed(definition, "data/1.csv") != one
        assert len(list(trip.store.list(INPUTS))) == 2
        assert (trip.folder / "data" / "1.csv").exists()

    def test_that_are_given_as_paths_arrive_as_paths(self, trip: Trip, files: list[str]) -> None:
        one = trip.there(taking(Path), "data/1.csv")
        more = trip.there(taking(list[Path]), ["data/1.csv", trip.folder / "data" / "2.csv"])
        listed = trip.there(taking(list[Path]), "data/1.csv,data/2.csv")

        assert [len(pd.read_csv(each)) for each in (one, *more, *listed)] == [1, 1, 2, 1, 2]

    def test_a_path_to_nothing_here_travels_as_it_is(self, trip: Trip) -> None:
        assert trip.there(taking(Path), "/mnt/there/only.csv") == Path("/mnt/there/only.csv")

    @pytest.mark.parametrize(
        "url",
        ["s3://bucket/a.csv", "s3://conn@bucket/*.csv", "https://host/a.csv", "{store}/a.csv"],
    )
    @pytest.mark.parametrize("annotation", [pd.DataFrame, Path])
    def test_urls_travel_as_they_are(self, trip: Trip, url: str, annotation: Any) -> None:
        assert trip.packed(taking(annotation), url)["x"]["value"] == url

    def test_in_the_store_are_found_by_its_name(self, trip: Trip) -> None:
        trip.store.put_bytes("in/a.csv", table(5).to_csv(index=False).encode())

        assert rows(trip.there(taking(pd.DataFrame), "{store}/in/a.csv")) == 5

    def test_text_that_names_no_file_stays_text(self, trip: Trip, files: list[str]) -> None:
        assert trip.there(taking(str), "data/1.csv") == "data/1.csv"
        assert trip.there(taking(Any), "data/1.csv") == "data/1.csv"

    @pytest.mark.parametrize(
        ("annotation", "value", "error", "message"),
        [
            (pd.DataFrame, "data/none.csv", ArtifactNotFoundError, "matches no file"),
            (Path, "data", ParameterError, "is a folder, which is not copied for a Path"),
            (pd.DataFrame, "memory://m/a.csv", ParameterError, "in the memory of this process"),
            (Path, "memory://m/a.csv", ParameterError, "in the memory of this process"),
        ],
    )
    def test_that_cannot_be_copied_are_named(
        self,
        trip: Trip,
        files: list[str],
        annotation: Any,
        value: str,
        error: type[DbndError],
        message: str,
    ) -> None:
        with pytest.raises(error) as raised:
            trip.packed(taking(annotation), value)

        assert str(raised.value).startswith("parameter 'x' of task 'f' (from call) cannot travel")
        assert message in str(raised.value)

    def test_in_a_model_that_does_not_say_so_to_us_are_refused(
        self, trip: Trip, files: list[str]
    ) -> None:
        model = Holder(file=trip.folder / "data" / "1.csv")

        with pytest.raises(ParameterError, match=r"holds the path of a file here, .*/data/1.csv"):
            trip.packed(taking(Holder), model)
        assert trip.there(taking(Holder), Holder(file=Path("/mnt/x"))).file == Path("/mnt/x")
        trip.shares_disk = True
        assert trip.there(taking(Holder), model) == model


SECRET = Annotated[str, parameter(hidden=True)]


class TestHiddenValues:
    def test_never_travel_but_the_name_of_their_variable_does(self, trip: Trip) -> None:
        assert trip.packed(taking(SECRET), "s3cr3t") == {"x": {"variable": "DBND__F__X"}}

    def test_of_a_pipeline_never_travel_either(self, trip: Trip) -> None:
        packed = trip.packed(taking(str), "s3cr3t", hidden=True)

        assert packed == {"x": {"variable": "DBND__F__X"}}

    def test_are_read_from_the_environment_there(
        self, trip: Trip, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DBND__F__X", "s3cr3t")

        assert trip.there(taking(SECRET), "s3cr3t") == "s3cr3t"

    def test_that_are_missing_there_name_variable_and_remedy(self, trip: Trip) -> None:
        assert "DBND__F__X" not in os.environ

        with pytest.raises(ParameterError) as error:
            trip.there(taking(SECRET), "s3cr3t")

        assert "parameter 'x' of task 'f' is hidden, so its value does not travel" in str(
            error.value
        )
        assert "environment variable DBND__F__X" in str(error.value)
        assert "kubernetes: secrets, docker: private_environment" in str(error.value)
        assert "s3cr3t" not in str(error.value)

    def test_that_are_the_functions_own_default_come_with_its_code(self, trip: Trip) -> None:
        @task
        def f(x: SECRET = "from-code") -> None: ...

        assert trip.packed(f.definition, "from-code", source="default") == {"x": {"default": True}}
        assert unpack(f.definition, {"x": {"default": True}}, "f")["x"].value == "from-code"
        assert "variable" in trip.packed(f.definition, "other", source="default")["x"]

    def test_that_are_data_travel_by_reference(self, trip: Trip) -> None:
        encoder = Encoder(store=trip.store, pipeline="p", task_id="up")
        reference = encoder.encode(table(), "result", Output())

        packed = trip.packed(taking(Annotated[pd.DataFrame, parameter(hidden=True)]), reference)

        assert packed["x"] == {"value": reference, "source": "call", "hidden": True}


def test_a_parameter_that_the_function_there_does_not_have_is_an_error(trip: Trip) -> None:
    with pytest.raises(CodeDeliveryError, match=r"task 'f' has no parameter 'y' where it runs"):
        unpack(taking(int), {"y": {"value": 1, "source": "call", "hidden": False}}, "f")
