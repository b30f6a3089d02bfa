"""Past runs: what is loaded of them, by which name, and what is read for it."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import polars as pl
import pytest
from local_project import Project
from pandas import DataFrame
from pandas.testing import assert_frame_equal

from airflow_provider_dbnd import (
    Artifact,
    Run,
    latest_successful,
    load,
    log_metric,
    output,
    parameter,
    pipeline,
    task,
)
from airflow_provider_dbnd.core.past import tags
from airflow_provider_dbnd.core.past.addresses import Address, Selector, parse, partition_text
from airflow_provider_dbnd.core.past.history import newest_run
from airflow_provider_dbnd.core.past.lookup import find, history
from airflow_provider_dbnd.core.past.runs import recent_runs
from airflow_provider_dbnd.core.past.versions import Version
from airflow_provider_dbnd.core.references import in_store
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ParameterError,
)

UTC = dt.timezone.utc


class Model:
    limit = 3


@task
def make(n: int, token: Annotated[str, parameter(hidden=True)] = "hush") -> DataFrame:
    log_metric("rows", n)
    if n < 0:
        raise ValueError("a negative number of rows")
    return DataFrame({"x": range(n), "name": [f"row {i}" for i in range(n)]})


@task(retries=1)
def count(data: DataFrame) -> int:
    return len(data)


@pipeline
def daily(n: int = 3) -> int:
    return count(make(n))


@task
def split(n: int) -> tuple[DataFrame, int]:
    return DataFrame({"x": range(n)}), n


@task
def pieces(n: int) -> list[DataFrame]:
    return [DataFrame({"x": [i]}) for i in range(n)]


@dataclass(frozen=True)
class Fit:
    rows: Annotated[DataFrame, output(name="fitted")]
    n: int
    note: DataFrame | None = None


class Sizes(NamedTuple):
    small: int
    big: int


@task
def fit(n: int) -> Fit:
    return Fit(rows=DataFrame({"x": range(n)}), n=n)


@task
def sizes(n: int) -> Sizes:
    return Sizes(n, 100 * n)


@pipeline
def records_of(n: int = 2) -> None:
    fit(n)
    sizes.expand(n=[1, 2])


@task
def describe(piece: DataFrame) -> DataFrame:
    log_metric("sum", int(piece["x"].sum()))
    if piece["x"].sum() == 13:
        raise ValueError("no luck")
    return piece.assign(twice=piece["x"] * 2)


@task
def settings() -> dict[str, Any]:
    return {
        "frame": DataFrame({"x": [1, 2]}),
        "name": "a.csv",
        "n": 3,
        "eu/de": DataFrame({"x": [3]}),
        "a]b": 1,
        "c@d": 2,
        "7": 7,
    }


@task(result=output.pickle)
def model() -> Any:
    return Model()


@pipeline
def shapes(n: int = 2) -> None:
    split(n)
    describe.expand(piece=pieces(n))
    settings()
    model()


@task
def yesterday() -> int:
    return int(load("daily/count"))


@pipeline
def reads_the_past() -> int:
    return yesterday()


@pytest.fixture
def days(project: Project) -> Project:
    """Runs d1, d2, d3 of three days, each a day after the one before, of 1, 2 and 3 rows."""
    for day in (1, 2, 3):
        project.run(daily, {"n": day}, run_id=f"d{day}", logical_date=f"2026-01-0{day}")
        age(project, f"d{day}", dt.datetime(2026, 1, day + 1, tzinfo=UTC))
    return project


def manifests(project: Project, run_id: str, name: str = "daily") -> list[Path]:
    folder = project.folder / ".dbnd/store/_runs" / name / run_id
    return sorted(folder.rglob("*.json"))


def age(project: Project, run_id: str, when: dt.datetime, name: str = "daily") -> None:
    """Let a run have taken place at another time."""
    for number, path in enumerate(manifests(project, run_id, name)):
        document = json.loads(path.read_text())
        started = when + dt.timedelta(seconds=number)
        path.write_text(json.dumps({**document, "started": started.isoformat(), "seconds": 1.0}))
        ended = started.timestamp() + 1
        os.utime(path, (ended, ended))


def frame(rows: int) -> DataFrame:
    return DataFrame({"x": range(rows), "name": [f"row {i}" for i in range(rows)]})


def test_without_a_version_the_newest_is_loaded(days: Project) -> None:
    assert load("daily/count") == 3
    assert_frame_equal(load("daily/make"), frame(3))
    assert_frame_equal(load("daily/make/result"), frame(3))
    assert_frame_equal(load("daily/make[result]"), frame(3))


def test_a_version_is_named_by_its_run(days: Project) -> None:
    assert load("daily/count", run="d1") == 1
    assert load("daily/count@d1") == 1
    assert load("daily/count@run:d1") == 1
    assert load("daily/count", run="latest") == 3


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [
        ("2026-01-03", 2),  # a day means its end
        (dt.date(2026, 1, 2), 1),
        ("2026-01-04T00:00:00", 2),  # its third run has not ended by then
        ("2026-01-04T00:00:01Z", 3),
        (dt.datetime(2026, 1, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=5))), 2),
    ],
)
def test_as_of_a_time_it_is_what_was_the_newest_then(
    days: Project, as_of: Any, expected: int
) -> None:
    assert load("daily/count", as_of=as_of) == expected


@pytest.mark.parametrize(
    "partition", ["2026-01-02", "2026-01-02T00:00:00+00:00", dt.date(2026, 1, 2)]
)
def test_a_partition_is_named_by_its_logical_date(days: Project, partition: Any) -> None:
    assert load("daily/count", partition=partition) == 2


def test_a_partition_that_was_made_again_is_loaded_as_it_is_now_or_was(days: Project) -> None:
    days.run(daily, {"n": 20}, run_id="again", logical_date="2026-01-02")
    age(days, "again", dt.datetime(2026, 2, 1, tzinfo=UTC))

    assert load("daily/count", partition="2026-01-02") == 20
    assert load("daily/count", partition="2026-01-02", as_of="2026-01-31") == 2
    assert load("daily/count@partition:2026-01-02@as_of:2026-01-31") == 2


def test_a_partition_key_of_airflow_goes_before_the_logical_date(days: Project) -> None:
    for path in manifests(days, "d1"):
        document = json.loads(path.read_text())
        document["identity"]["partition"] = "eu-west"
        path.write_text(json.dumps(document))

    assert load("daily/count", partition="eu-west") == 1
    assert Run("daily", "d1").partition == "eu-west"
    with pytest.raises(ArtifactNotFoundError) as error:
        load("daily/count", partition="eu-wst")
    assert str(error.value) == (
        "daily/count has no version of partition 'eu-wst'; did you mean 'eu-west'?"
    )


def test_a_span_of_dates_gives_a_value_for_each(days: Project) -> None:
    assert load("daily/count", dates=("2026-01-02", "2026-01-31")) == {
        "2026-01-02": 2,
        "2026-01-03": 3,
    }
    spans = load("daily/make", dates=(dt.date(2026, 1, 1), dt.date(2026, 1, 2)))
    assert pd.concat(spans).index.get_level_values(0).unique().tolist() == [
        "2026-01-01",
        "2026-01-02",
    ]


def test_a_span_of_dates_takes_what_was_made_last(days: Project) -> None:
    days.run(daily, {"n": 10}, run_id="again", logical_date="2026-01-01")

    span = ("2026-01-01", "2026-01-02")
    assert load("daily/count", dates=span) == {"2026-01-01": 10, "2026-01-02": 2}
    assert load("daily/count@as_of:2026-01-03", dates=span) == {"2026-01-01": 1, "2026-01-02": 2}


def test_hours_of_a_day_are_partitions_of_their_own(project: Project) -> None:
    for hour in (1, 2):
        date = f"2026-01-01T0{hour}:00:00+00:00"
        project.run(daily, {"n": hour}, run_id=f"h{hour}", logical_date=date)

    assert load("daily/count", partition="2026-01-01T01:00") == 1
    assert load("daily/count", dates=("2026-01-01", "2026-01-01")) == {
        "2026-01-01T01:00:00": 1,
        "2026-01-01T02:00:00": 2,
    }
    with pytest.raises(ArtifactNotFoundError, match="no version of partition '2026-01-01'"):
        load("daily/count", partition="2026-01-01")


def test_the_container_is_chosen_when_it_is_loaded(days: Project) -> None:
    as_polars = load("daily/make", pl.DataFrame)
    path = load("daily/make", Path)
    reference = load("daily/make", Artifact)
    parts = load("daily/make", Iterator[DataFrame])
    columns = load("daily/make", load_options={"columns": ["x"]})

    assert as_polars.to_dicts() == frame(3).to_dict("records")
    assert path.is_file()
    assert (reference.rows, reference.uri) == (3, f"file://{path}")
    assert [len(part) for part in parts] == [3]
    assert list(columns) == ["x"]
    assert load("daily/count", float) == 3.0


def test_a_small_value_has_no_file_to_give(days: Project) -> None:
    with pytest.raises(ParameterError) as error:
        load("daily/count", DataFrame)

    assert str(error.value) == (
        "daily/count/result@d3 is a small int, kept in the manifest: it has no file to load as "
        "DataFrame. Leave type out."
    )


def test_all_outputs_of_a_task_come_as_a_dict(project: Project) -> None:
    project.run(shapes)

    loaded = load("shapes/split")

    assert list(loaded) == ["result_1", "result_2"]
    assert_frame_equal(loaded["result_1"], DataFrame({"x": [0, 1]}))
    assert load("shapes/split/result_2") == 2


def test_fields_of_a_record_are_put_together_where_it_is_asked_for(project: Project) -> None:
    project.run(records_of)

    loaded = load("records_of/fit", Fit)

    assert (type(loaded), loaded.n, loaded.note) == (Fit, 2, None)
    assert loaded.rows["x"].tolist() == [0, 1]
    assert load("records_of/sizes", Sizes) == [Sizes(1, 100), Sizes(2, 200)]
    assert load("records_of/sizes[1]", Sizes) == Sizes(2, 200)
    assert load("records_of/fit/n", int) == 2
    assert list(load("records_of/fit")) == ["fitted", "n", "note"]


def test_parts_of_a_value_are_named_in_brackets(project: Project) -> None:
    project.run(shapes)

    whole = load("shapes/settings", pl.DataFrame)

    assert load("shapes/pieces/result[1]")["x"].tolist() == [1]
    assert load("shapes/settings/result[n]") == 3
    assert load("shapes/settings/result[eu/de]")["x"].tolist() == [3]
    assert [load(f"shapes/settings/result[{each}]") for each in ('"a]b"', "c@d", '"7"')] == [
        1,
        2,
        7,
    ]
    assert load("shapes/split/result_1[x]").tolist() == [0, 1]
    assert isinstance(whole["frame"], pl.DataFrame)
    assert (whole["name"], whole["n"]) == ("a.csv", 3)
    with pytest.raises(ParameterError, match="has no part 'y': expected a dict or list that has"):
        load("shapes/settings/result[y]")


def test_a_pickle_that_its_output_declared_is_loaded(project: Project) -> None:
    project.run(shapes)

    assert load("shapes/model").limit == 3


def test_a_mapped_task_gives_a_list_and_one_instance_by_its_index(project: Project) -> None:
    project.run(shapes, {"n": 3})

    assert [part["twice"].tolist() for part in load("shapes/describe")] == [[0], [2], [4]]
    assert load("shapes/describe[2]", pl.DataFrame)["twice"].to_list() == [4]
    assert load("shapes/describe[2]/result")["twice"].tolist() == [4]
    with pytest.raises(ArtifactNotFoundError) as error:
        load("shapes/describe[3]")
    assert str(error.value) == (
        "Task 'describe' of 'shapes' has no instance 3: it has the instances 0 to 2."
    )
    with pytest.raises(ArtifactNotFoundError, match="has no instance 0: it is not mapped"):
        load("shapes/split[0]")


def test_a_mapped_task_with_a_failed_instance_is_no_version(project: Project) -> None:
    project.run(shapes, {"n": 3}, run_id="good")
    project.run(shapes, {"n": 14}, run_id="bad")

    assert len(load("shapes/describe")) == 3
    assert load("shapes/describe[12]")["x"].tolist() == [12]
    with pytest.raises(ArtifactNotFoundError) as error:
        load("shapes/describe@bad")
    assert str(error.value) == (
        "Task 'describe[13]' is failed in run 'bad' of 'shapes': it left no result. Choose another "
        "run."
    )


def test_a_mapped_task_that_lacks_an_instance_is_no_version(project: Project) -> None:
    project.run(shapes, {"n": 3}, run_id="cut")
    shutil.rmtree(project.folder / ".dbnd/store/_runs/shapes/cut/describe/1")

    with pytest.raises(ArtifactNotFoundError, match="Instance 1 of task 'describe' left no manif"):
        load("shapes/describe", run="cut")
    with pytest.raises(ArtifactNotFoundError, match="has no version: no attempt of the task succ"):
        load("shapes/describe")


def test_a_failed_attempt_is_passed_over_for_the_last_success(days: Project) -> None:
    days.run(daily, {"n": -1}, run_id="failed")

    assert len(load("daily/make")) == 3
    with pytest.raises(ArtifactNotFoundError) as error:
        load("daily/make", run="failed")
    assert str(error.value) == (
        "Task 'make' is failed in run 'failed' of 'daily': it left no result. Choose another run."
    )


def test_a_run_whose_last_attempt_failed_has_no_version_left(days: Project) -> None:
    days.run(daily, {"n": -1}, run_id="d3")

    assert len(load("daily/make")) == 2


def test_of_a_run_started_anew_under_its_id_the_last_attempt_counts(project: Project) -> None:
    project.run(daily, {"n": 5}, run_id="same")
    for path in manifests(project, "same"):  # as after a retry
        document = json.loads(path.read_text())
        document["identity"]["try_number"] = 2
        path.with_name("2.json").write_text(json.dumps(document))
    project.run(daily, {"n": 6}, run_id="same")

    assert load("daily/count", run="same") == 6
    assert load("daily/count") == 6


def test_runs_that_test_one_task_are_loaded_by_name_only(days: Project) -> None:
    days.run(daily, {"n": 9}, run_id="test__x")

    assert load("daily/count") == 3
    assert load("daily/count", run="test__x") == 9
    assert newest_run(days.store, "daily") == "d3"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "dayli/count",
            "Store {store} has no run of 'dayli'; did you mean 'daily'? Run it once, or name "
            "another store by DBND_STORE.",
        ),
        (
            "daily/cuont",
            "Pipeline 'daily' has no task 'cuont' in {store}; did you mean 'count'?",
        ),
        (
            "daily/cuont@d1",
            "Run 'd1' of 'daily' has no manifest of task 'cuont' in {store}; did you mean 'count'?",
        ),
        (
            "daily/count/reslt",
            "Task 'count' of 'daily' has no output 'reslt' in run 'd3'; did you mean 'result'?",
        ),
        ("daily/count@d7", "Store {store} has no run 'd7' of 'daily'; there are: d1, d2, d3."),
        ("daily/count@tag:prod", "daily/count has no tag 'prod'; there are none."),
        (
            "daily/count@partition:2026-01-07",
            "daily/count has no version of partition '2026-01-07'; did you mean '2026-01-03'?",
        ),
        (
            "daily/count@as_of:2025-12-31",
            "daily/count has no version as of 2025-12-31 23:59:59Z: its first manifest is of "
            "2026-01-02 00:00:01Z.",
        ),
    ],
)
def test_what_is_not_there_is_named_with_what_is(days: Project, name: str, message: str) -> None:
    with pytest.raises(ArtifactNotFoundError) as error:
        load(name)

    assert str(error.value) == message.format(store=days.store.url)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "daily",
            {},
            "'daily' names a pipeline: expected PIPELINE/TASK or PIPELINE/TASK/OUTPUT.",
        ),
        (
            "daily/count/result/x",
            {},
            "'daily/count/result/x' is not the name of an output: expected PIPELINE/TASK/OUTPUT"
            "[@VERSION], such as drift/prepare/result_1@tag:prod.",
        ),
        (
            "daily/count@d1",
            {"run": "d2"},
            "'daily/count@d1' names a version already: leave 'd2' out.",
        ),
        (
            "daily/count",
            {"run": "d2", "tag": "prod"},
            "run and tag name two versions: give one of them; as_of goes with partition and with "
            "tag.",
        ),
        (
            "daily/count",
            {"as_of": "last week"},
            "'last week' is not a time: expected a day or a time such as 2026-01-31 or "
            "2026-01-31T06:00.",
        ),
        (
            "daily/count@d1",
            {"dates": ("2026-01-01", "2026-01-02")},
            "dates name versions by themselves: leave run, partition and tag out.",
        ),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    days: Project, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as error:
        load(name, **options)

    assert str(error.value) == message


def test_dates_without_a_run_are_an_error(days: Project) -> None:
    with pytest.raises(ArtifactNotFoundError, match="no version between 2027-01-01 and 2027-12-31"):
        load("daily/count", dates=("2027-01-01", "2027-12-31"))


def test_a_store_is_named_by_its_url_alone(days: Project, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['airflow'] = None\n"
        "from airflow_provider_dbnd import load\n"
        f"print(load('daily/count', store={days.store.url!r}), len(load('daily/make', store="
        f"{days.store.url!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["3", "3"]


def test_a_bucket_is_named_by_its_url_alone(
    days: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
        monkeypatch.setenv("DBND_STORE", "s3://bucket/dbnd")
        for n in (4, 5):
            days.run(shapes, {"n": n}, run_id=f"r{n}", logical_date=f"2026-01-0{n}")
        monkeypatch.delenv("DBND_STORE")
        url = "s3://aws_default@bucket/dbnd"  # outside Airflow a connection is ambient credentials

        assert len(load("shapes/describe", store=url)) == 5
        assert [
            len(v)
            for v in load("shapes/pieces", dates=("2026-01-01", "2026-01-09"), store=url).values()
        ] == [4, 5]
        assert repr(Run("shapes", store=url)).splitlines()[0].startswith("<Run shapes r5  success")
        tags.promote(
            find(ArtifactStore(url), *parse("shapes/split/result_2@r4"))["result_2"], "prod"
        )
        assert load("shapes/split/result_2", tag="prod", store=url) == 4
    finally:
        server.stop()


def test_a_store_that_was_moved_is_read_where_it_is(days: Project) -> None:
    moved = days.folder / "elsewhere"
    (days.folder / ".dbnd/store").rename(moved)

    assert_frame_equal(load("daily/make", store=str(moved)), frame(3))
    assert load("daily/make", Path, store=str(moved)).is_relative_to(moved)


def test_a_copy_that_lost_the_times_is_read_by_those_of_its_manifests(days: Project) -> None:
    copy = days.folder / "copy"
    for run_id in ("d3", "d1", "d2"):  # the store's own order would be this
        source = days.folder / ".dbnd/store/_runs/daily" / run_id
        shutil.copytree(source, copy / "_runs/daily" / run_id, copy_function=shutil.copyfile)

    assert load("daily/count", store=str(copy)) == 3
    assert load("daily/count", as_of="2026-01-03", store=str(copy)) == 2
    assert newest_run(ArtifactStore(str(copy)), "daily") == "d3"


def test_a_reference_to_another_store_is_looked_for_once(tmp_path: Path) -> None:
    class Counting(ArtifactStore):
        looks = 0

        def exists(self, key_or_uri: str) -> bool:
            self.looks += 1
            return super().exists(key_or_uri)

    store = Counting(str(tmp_path))
    there = {"dbnd_artifact": 1, "uri": "s3://other/p/t/result/a.parquet"}

    assert in_store(store, there) == there
    assert store.looks == 1


def test_the_newest_is_found_without_reading_what_is_older(days: Project) -> None:
    for run_id in ("d1", "d2"):
        for path in manifests(days, run_id):
            times = os.stat(path)
            path.write_text("{")
            os.utime(path, (times.st_atime, times.st_mtime))

    assert load("daily/count") == 3
    assert latest_successful("daily").id == "d3"
    assert [run.id for run in recent_runs(days.store, limit=1)] == ["d3"]


def test_only_the_manifest_of_the_task_is_read(days: Project) -> None:
    damage(days, "d3", "make")

    assert load("daily/count") == 3
    assert load("daily/count", run="d3") == 3
    assert Run("daily", "d3")["count"].outputs["result"].load() == 3


def test_no_data_is_read_before_it_is_asked_for(days: Project) -> None:
    shutil.rmtree(days.folder / ".dbnd/store/daily/make")

    run = Run("daily")
    version = run["make"].outputs["result"]

    assert (run.id, run.status, run.metrics) == ("d3", "success", {"make.rows": 3})
    assert (version.rows, version.type) == (3, "pandas.DataFrame")
    with pytest.raises(ArtifactNotFoundError, match="is not there: expected"):
        version.load()


def test_naming_a_run_reads_nothing(project: Project) -> None:
    run = Run("nothing", "here")

    assert not (project.folder / ".dbnd").exists()
    assert "has no run of 'nothing'" in repr(run)


def damage(project: Project, run_id: str, task: str) -> str:
    (path,) = (project.folder / ".dbnd/store/_runs/daily" / run_id / task).rglob("*.json")
    times = os.stat(path)
    path.write_text('{"dbnd_manifest": 1, "ident')
    os.utime(path, (times.st_atime, times.st_mtime))
    return str(path.relative_to(project.folder / ".dbnd/store"))


def test_a_damaged_manifest_is_an_error_where_it_is_asked_for(days: Project) -> None:
    where = damage(days, "d3", "count")

    for question in ({}, {"run": "d3"}, {"partition": "2026-01-03"}, {"as_of": "2026-02-01"}):
        with pytest.raises(ArtifactCorruptedError, match=f"Manifest {where} in .* cannot be read"):
            load("daily/count", **question)  # type: ignore[arg-type]
    with pytest.raises(ArtifactCorruptedError, match=f"Manifest {where}"):
        _ = Run("daily", "d3").status


def test_a_damaged_manifest_is_named_and_left_out_of_listings(
    days: Project, caplog: pytest.LogCaptureFixture
) -> None:
    where = damage(days, "d2", "count")

    with caplog.at_level(logging.WARNING, "airflow_provider_dbnd"):
        runs = recent_runs(days.store, "daily", limit=5)
        address, _ = parse("daily/count")
        versions = list(history(days.store, address, listing=True))

    assert [(run.id, list(run.tasks)) for run in runs][1] == ("d2", ["make"])
    assert [outputs["result"].run_id for outputs in versions] == ["d3", "d1"]
    assert [r.getMessage().partition(" in ")[0] for r in caplog.records] == [
        f"skipped: Manifest {where}"
    ] * 2


def test_other_files_beside_manifests_are_no_runs(days: Project) -> None:
    for name in ("daily/notes.txt", "daily/d3/run.json", "daily/d3/make/-1/1.json.bak", "x.json"):
        (days.folder / ".dbnd/store/_runs" / name).write_text("{}")

    assert [run.id for run in recent_runs(days.store, limit=9)] == ["d3", "d2", "d1"]
    assert load("daily/count") == 3


def test_a_run_shows_what_it_did(days: Project) -> None:
    run = Run("daily", "d3")

    assert repr(run).splitlines() == [
        "<Run daily d3  success, 2026-01-04 00:00:00Z, 2.00 s>",
        "  count  success  1.00 s  result",
        "  make   success  1.00 s  result",
    ]
    assert (run.status, list(run.tasks), run.seconds) == ("success", ["count", "make"], 2.0)
    assert run.started == dt.datetime(2026, 1, 4, tzinfo=UTC)
    assert (run.logical_date, run.partition) == ("2026-01-03", "2026-01-03")
    assert run.parameters["make.n"].value == 3
    assert run.parameters["make.n"].source == "--set"
    assert run.parameters["make.token"].value == "***"
    assert run.metrics == {"make.rows": 3}


def test_a_task_of_a_run_shows_its_results_and_metrics(days: Project) -> None:
    task_run = Run("daily", "d3")["make"]

    lines = repr(task_run).splitlines()

    assert lines[0] == "<make  success, 1.00 s>"
    assert lines[1].startswith("  <daily/make/result@d3  pandas.DataFrame, 3 rows, ")
    assert lines[2] == "  rows = 3"
    assert task_run.metrics == {"rows": 3}
    assert task_run.parameters["n"].value == 3
    assert (task_run.attempts, task_run.error) == (1, None)
    assert list(Run("daily", "d3")["count"].inputs) == ["data"]


def test_a_failed_run_says_why(days: Project) -> None:
    days.run(daily, {"n": -1}, run_id="failed")
    run = Run("daily", "failed")

    assert run.status == "failed"
    assert repr(run).splitlines()[1].endswith("ValueError: a negative number of rows")
    assert run["make"].outputs == {}
    with pytest.raises(ArtifactNotFoundError, match="no manifest of task 'count'"):
        _ = run["count"]


def test_instances_of_a_mapped_task_have_records_of_their_own(project: Project) -> None:
    project.run(shapes, {"n": 3})
    task_run = Run("shapes")["describe"]

    assert task_run[2].metrics == {"sum": 2}
    assert [instance.metrics["sum"] for instance in task_run] == [0, 1, 2]
    assert [len(part) for part in task_run.outputs["result"].load()] == [1, 1, 1]
    assert len(task_run[1].outputs["result"].load()) == 1
    assert Run("shapes").metrics["describe[2].sum"] == 2
    with pytest.raises(ParameterError) as error:
        _ = task_run.metrics
    assert str(error.value) == (
        "Task 'describe' is mapped: each of its 3 instances has metrics of its own, "
        "run['describe'][0].metrics."
    )
    with pytest.raises(ArtifactNotFoundError, match="no instance 7: instances 0 to 2"):
        _ = task_run[7]


def test_the_latest_successful_run_is_the_newest_without_a_failure(days: Project) -> None:
    days.run(daily, {"n": -1}, run_id="failed")

    assert Run("daily").id == "failed"
    assert latest_successful("daily").id == "d3"


def test_the_latest_successful_run_of_a_task_ignores_the_others(project: Project) -> None:
    project.run(shapes, {"n": 14}, run_id="bad")

    assert latest_successful("shapes", task="pieces").id == "bad"
    with pytest.raises(ArtifactNotFoundError) as error:
        latest_successful("shapes")
    assert str(error.value) == (
        f"Store {project.store.url} has no successful run of 'shapes': none of 1 runs is one."
    )
    with pytest.raises(ArtifactNotFoundError, match="no run of 'shapse'; did you mean 'shapes'"):
        latest_successful("shapse")


def test_a_task_loads_from_the_store_it_runs_on(days: Project) -> None:
    elsewhere = days.folder / "notebooks"
    elsewhere.mkdir()
    store = days.store
    os.chdir(elsewhere)  # where the settings would name another store

    result = Project(folder=days.folder).run(reads_the_past)

    assert load("daily/count", store=store) == 3
    assert result.success, result.outcomes["yesterday"].error
    assert result.value() == 3


def test_loading_changes_nothing_in_the_store(days: Project) -> None:
    def there() -> dict[str, float]:
        root = days.folder / ".dbnd/store"
        return {str(p): p.stat().st_mtime for p in root.rglob("*") if p.is_file()}

    before = there()
    load("daily/make")
    load("daily/count", as_of="2026-01-03")
    repr(Run("daily"))
    latest_successful("daily")

    assert there() == before


def test_data_that_was_changed_is_not_loaded(days: Project) -> None:
    path = load("daily/make", Path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)

    with pytest.raises(ArtifactCorruptedError):
        load("daily/make")


def test_equal_data_of_two_runs_has_one_digest(days: Project) -> None:
    days.run(daily, {"n": 3}, run_id="same")

    address, _ = parse("daily/make")
    digests = [outputs["result"].digest for outputs in history(days.store, address)]

    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def version(project: Project, name: str) -> Version:
    (found,) = find(project.store, *parse(name)).values()
    return found


def test_a_tag_is_loaded_until_it_moves(days: Project) -> None:
    tags.promote(version(days, "daily/count@d1"), "prod")
    assert load("daily/count", tag="prod") == 1

    tags.promote(version(days, "daily/count@d2"), "prod")
    assert load("daily/count", tag="prod") == 2
    assert load("daily/count@tag:prod") == 2


def test_promotions_are_kept(days: Project) -> None:
    made = [tags.promote(version(days, f"daily/count@{run_id}"), "prod") for run_id in ("d1", "d3")]
    tags.demote(days.store, Address(pipeline="daily", task="count"), "prod")

    history = list(tags.promotions(days.store))

    assert [each.run_id for each in history] == [None, "d3", "d1"]
    assert list(tags.tags(days.store)) == []
    assert load("daily/count", tag="prod", as_of=dt.datetime.fromisoformat(made[1].at)) == 3
    assert load("daily/count", tag="prod", as_of=dt.datetime.fromisoformat(made[0].at)) == 1
    with pytest.raises(ArtifactNotFoundError) as error:
        load("daily/count", tag="prod")
    assert str(error.value) == "daily/count has no tag 'prod'; it had one."


def test_an_unknown_tag_is_named_with_those_there_are(days: Project) -> None:
    tags.promote(version(days, "daily/count@d1"), "prod")

    with pytest.raises(ArtifactNotFoundError) as error:
        load("daily/count", tag="prd")

    assert str(error.value) == "daily/count has no tag 'prd'; did you mean 'prod'?"


def test_a_tag_outlives_the_manifests_and_a_rerun_under_the_same_id(days: Project) -> None:
    tags.promote(version(days, "daily/make@d1"), "prod")

    days.run(daily, {"n": 8}, run_id="d1")
    assert len(load("daily/make", tag="prod")) == 1

    shutil.rmtree(days.folder / ".dbnd/store/_runs")
    assert len(load("daily/make", tag="prod")) == 1


def test_outputs_of_a_task_are_promoted_together_or_named_one_by_one(project: Project) -> None:
    for n in (1, 2):
        project.run(shapes, {"n": n}, run_id=f"r{n}")
    for each in find(project.store, *parse("shapes/split@r1")).values():
        tags.promote(each, "prod")
    assert load("shapes/split", tag="prod")["result_2"] == 1

    tags.promote(version(project, "shapes/split/result_2@r2"), "prod")

    assert load("shapes/split/result_2", tag="prod") == 2
    with pytest.raises(ParameterError) as error:
        load("shapes/split", tag="prod")
    assert str(error.value) == (
        "tag 'prod' of shapes/split is on 'result_1' of run r1 and 'result_2' of run r2: load them "
        "one by one, or promote the outputs of one run together."
    )


def test_a_tag_on_a_mapped_task_holds_all_instances(project: Project) -> None:
    project.run(shapes, {"n": 3}, run_id="r1")
    tags.promote(version(project, "shapes/describe@r1"), "prod")
    project.run(shapes, {"n": 1}, run_id="r2")

    assert len(load("shapes/describe", tag="prod")) == 3
    assert load("shapes/describe[2]", tag="prod")["x"].tolist() == [2]
    assert load("shapes/describe[2]/result[twice]@tag:prod").tolist() == [4]
    with pytest.raises(ArtifactNotFoundError, match="no instance 3: it has the instances 0 to 2"):
        load("shapes/describe[3]", tag="prod")
    with pytest.raises(ParameterError, match="a tag is on a whole output, not on shapes/descr"):
        tags.promote(version(project, "shapes/describe[1]@r1"), "prod")


def test_many_who_promote_at_once_all_are_in_the_history_and_one_holds(days: Project) -> None:
    code = (
        "import pickle, sys\n"
        "from airflow_provider_dbnd.core.past import tags\n"
        "for _ in range(10): tags.promote(pickle.loads(bytes.fromhex(sys.argv[1])), 'prod')"
    )
    runs = ["d1", "d2", "d3"]
    data = [pickle.dumps(version(days, f"daily/count@{run_id}")).hex() for run_id in runs]
    started = [subprocess.Popen([sys.executable, "-c", code, each]) for each in data]

    assert [process.wait(60) for process in started] == [0, 0, 0]
    found = list(tags.promotions(days.store))
    (holding,) = tags.tags(days.store)
    assert sorted(each.run_id or "" for each in found) == sorted(runs * 10)
    assert holding == found[0]
    assert load("daily/count", tag="prod") == runs.index(str(holding.run_id)) + 1


def test_a_promotion_by_a_slow_clock_still_is_the_last(days: Project) -> None:
    tags.promote(version(days, "daily/count@d1"), "prod")
    (path,) = (days.folder / ".dbnd/store/_tags").rglob("*.json")
    ahead = f"{int(path.name[:20]) + 10**9:020d}{path.name[20:]}"
    path.rename(path.with_name(ahead))  # written by a machine whose clock is fast

    tags.promote(version(days, "daily/count@d2"), "prod")

    assert load("daily/count", tag="prod") == 2


def test_a_damaged_tag_is_an_error_that_names_it(days: Project) -> None:
    tags.promote(version(days, "daily/count@d1"), "prod")
    (path,) = (days.folder / ".dbnd/store/_tags").rglob("*.json")
    path.write_text("[]")

    with pytest.raises(ArtifactCorruptedError) as error:
        load("daily/count", tag="prod")

    assert str(error.value).startswith(f"Tag _tags/daily/count/result/prod/{path.name} in ")
    assert list(tags.tags(days.store, skip_damaged=True)) == []


@pytest.mark.parametrize(
    ("text", "address", "selector"),
    [
        ("p/t", Address(pipeline="p", task="t"), Selector()),
        ("p/g.t/o", Address(pipeline="p", task="g.t", output="o"), Selector()),
        ("p/t[o]", Address(pipeline="p", task="t", output="o"), Selector()),
        ("p/t[3][o]", Address(pipeline="p", task="t", index=3, output="o"), Selector()),
        ("p/t/o[2][k]", Address(pipeline="p", task="t", output="o", path=(2, "k")), Selector()),
        ("p/t/o[eu/de]", Address(pipeline="p", task="t", output="o", path=("eu/de",)), Selector()),
        (
            "p/t[o][a@b]@r",
            Address(pipeline="p", task="t", output="o", path=("a@b",)),
            Selector(run="r"),
        ),
        ('p/t/o["a]b"]', Address(pipeline="p", task="t", output="o", path=("a]b",)), Selector()),
        (
            r'p/t/o["/@[\""][""]["7"]@r["]',
            Address(pipeline="p", task="t", output="o", path=('/@["', "", "7")),
            Selector(run='r["]'),
        ),
        ('p/t["3"]', Address(pipeline="p", task="t", output="3"), Selector()),
        (
            "p/t@manual__2026-01-01T10:00:00+00:00",
            Address(pipeline="p", task="t"),
            Selector(run="manual__2026-01-01T10:00:00+00:00"),
        ),
        ("p/t@run:tag:x", Address(pipeline="p", task="t"), Selector(run="tag:x")),
        ("p/t@latest", Address(pipeline="p", task="t"), Selector()),
        ("p", Address(pipeline="p"), Selector()),
    ],
)
def test_an_address_is_read(text: str, address: Address, selector: Selector) -> None:
    assert parse(text) == (address, selector)
    assert parse(str(address))[0] == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/t",
        "p//o",
        "p/t[",
        "p/t]",
        "p[1]/t",
        "p/t[o]/o",
        "p/t@tag:",
        "p/t@a@b",
        "p/t[]",
        'p/t/o["a]',
        "p/t/o/x",
        r'p/t/o["\x"]',
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ParameterError):
        parse(text)


def test_a_part_that_needs_quotes_is_told_so() -> None:
    with pytest.raises(ParameterError) as error:
        parse("p/t/result[a]b]")

    assert str(error.value) == (
        "'p/t/result[a]b]' is not the name of an output: expected PIPELINE/TASK/OUTPUT[@VERSION], "
        "such as drift/prepare/result_1@tag:prod. A part with brackets or quotes in it is quoted: "
        'result_1["a]b"].'
    )


def test_a_day_that_only_newer_pythons_read_is_a_plain_partition() -> None:
    assert partition_text("20260131") == "20260131"
    assert partition_text("2026-W05-1") == "2026-W05-1"
