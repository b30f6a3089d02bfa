"""A clean-up takes what nothing live names, and never anything else, whatever runs beside it."""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from local_project import Project
from pandas import DataFrame

from airflow_provider_dbnd import load, output, pipeline, task
from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.gc import Policy, collect
from airflow_provider_dbnd.core.gc import sweep as sweeping
from airflow_provider_dbnd.core.gc.spool import Among, Spool
from airflow_provider_dbnd.core.manifest import Identity
from airflow_provider_dbnd.core.past.addresses import Address
from airflow_provider_dbnd.core.past.fsck import Finding, check
from airflow_provider_dbnd.core.past.history import last_attempts
from airflow_provider_dbnd.core.past.tags import promote
from airflow_provider_dbnd.core.past.versions import outputs_of
from airflow_provider_dbnd.core.remote.driver_file import driver_file, driver_key
from airflow_provider_dbnd.core.remote.job import Job, Place, remember, send
from airflow_provider_dbnd.core.settings import load_settings
from airflow_provider_dbnd.core.storage import claims
from airflow_provider_dbnd.core.storage.store import ArtifactStore, Info
from airflow_provider_dbnd.exceptions import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ConfigurationError,
    StoreError,
)

DAY = 86400.0


@task(reuse=True)
def make(n: int = 3) -> DataFrame:
    return DataFrame({"x": range(n)})


@task(reuse=True)
def halves(data: DataFrame) -> dict[str, DataFrame]:
    half = len(data) // 2
    return {"a": data[:half], "b": data[half:]}


@task
def fresh(n: int = 3) -> DataFrame:
    return DataFrame({"y": range(n)})


@task
def publish() -> Annotated[DataFrame, output(path="{store}/mart/a/b/day.parquet")]:
    return DataFrame({"x": range(3)})


@pipeline
def mart():
    return publish()


@pipeline
def daily(n: int = 3):
    return halves(make(n)), fresh(n)


def age(folder: Path, days: float) -> None:
    """Make everything in the store older."""
    for path in folder.rglob("*"):
        if path.is_file():
            time_ = path.stat().st_mtime - days * DAY
            os.utime(path, (time_, time_))


def names(project: Project, folder: str = "") -> set[str]:
    return {info.key for info in project.store.list(folder)}


def artifacts(project: Project) -> set[str]:
    return {name for name in names(project) if not name.startswith("_")}


def runs(project: Project) -> set[str]:
    return {name.split("/")[2] for name in names(project, "_runs")}


def problems(store: ArtifactStore, **options: Any) -> list[Finding]:
    return [each for each in check(store, **options) if each.level == "problem"]


@pytest.fixture
def home(project: Project) -> Path:
    return project.folder / ".dbnd" / "store"


def run(project: Project, run_id: str, n: int = 3) -> None:
    assert project.run(daily, {"n": n}, run_id=run_id).success


def version_of(project: Project, run_id: str, task_id: str) -> Any:
    manifests = last_attempts(project.store, "daily", run_id, task_id)
    return outputs_of(project.store, manifests, Address(pipeline="daily", task=task_id))["result"]


def test_without_a_rule_all_runs_stay(project: Project, home: Path) -> None:
    run(project, "one")
    age(home, 400)
    before = names(project)

    report = collect(project.store, Policy(), delete=True)

    assert names(project) == before
    assert (report.runs_live, report.runs_dead) == (1, 0)


def test_nothing_is_deleted_unless_asked(project: Project, home: Path) -> None:
    run(project, "one")
    age(home, 10)
    before = names(project)

    report = collect(project.store, Policy(keep_days=5))

    assert names(project) == before
    assert report.total.objects == len(before) - len(names(project, "_reuse/last"))


def test_what_a_dry_run_tells_is_what_goes(project: Project, home: Path) -> None:
    run(project, "one", 4)
    age(home, 10)
    run(project, "two", 5)
    told = collect(project.store, Policy(keep_days=5)).to_json()
    before = names(project)

    did = collect(project.store, Policy(keep_days=5), delete=True).to_json()

    assert {**told, "deleted": True} == did
    assert len(before) - len(names(project)) == did["total"]["objects"] > 5
    assert runs(project) == {"two"}
    assert list(check(project.store, full=True)) == []


def test_the_last_runs_of_each_pipeline_stay(project: Project, home: Path) -> None:
    for number in range(4):
        age(home, 2)
        run(project, f"r{number}", number + 2)
    age(home, 2)

    collect(project.store, Policy(keep_last=2), delete=True)

    assert runs(project) == {"r2", "r3"}
    assert problems(project.store) == []
    assert len(load("daily/make", run="r2")) == 4


def test_a_run_stays_while_one_rule_keeps_it(project: Project, home: Path) -> None:
    run(project, "old", 2)
    age(home, 10)
    run(project, "new", 3)
    age(home, 2)

    collect(project.store, Policy(keep_last=1, keep_days=30), delete=True)

    assert runs(project) == {"old", "new"}


def test_objects_that_a_live_run_names_as_well_stay(project: Project, home: Path) -> None:
    run(project, "old", 3)
    age(home, 10)
    run(project, "new", 3)

    report = collect(project.store, Policy(keep_days=5), delete=True)

    assert report.dead == {}
    assert problems(project.store) == []


def test_a_result_that_is_reused_stays_reusable(project: Project, home: Path) -> None:
    run(project, "first")
    age(home, 10)
    run(project, "second")
    collect(project.store, Policy(keep_days=5), delete=True)

    result = project.run(daily, run_id="third")

    (manifest,) = result.outcomes["make"].manifests
    assert manifest.reuse["hit"]["run_id"] == "first"
    # Nobody reused the other task of that run.
    assert {n.split("/")[3] for n in names(project, "_runs/daily/first")} == {"make", "halves"}


def test_a_record_of_reuse_goes_with_its_manifest(project: Project, home: Path) -> None:
    run(project, "first")
    age(home, 10)

    collect(project.store, Policy(keep_days=5), delete=True)

    assert names(project, "_reuse/results") == set()
    result = project.run(daily, run_id="second")
    assert result.success
    assert "hit" not in result.outcomes["make"].manifests[0].reuse


def test_a_tagged_version_stays_with_its_run(project: Project, home: Path) -> None:
    run(project, "prod", 3)
    promote(version_of(project, "prod", "make"), "prod")
    run(project, "other", 4)
    age(home, 10)

    collect(project.store, Policy(keep_days=5), delete=True)

    assert runs(project) == {"prod"}
    assert len(load("daily/make", tag="prod")) == 3


def test_a_run_whose_job_is_under_way_stays(project: Project, home: Path) -> None:
    run(project, "one")
    project.store.put_bytes("_jobs/daily/one/make/-1.json", b"{}")
    age(home, 10)

    collect(project.store, Policy(keep_days=5), delete=True)

    assert runs(project) == {"one"}


def sent(project: Project) -> Job:
    """Send a job as an engine does that is told of a program in the store."""
    identity = Identity(pipeline="daily", run_id="one", task_id="make")
    spec = TaskSpec(identity=identity, arguments={}, store=project.store)
    place = Place(engine="livy", type="livy", shares_disk=True, code="image")
    job = send(spec, make.definition, load_settings(project.folder), place)
    driver_file(project.store)
    remember(project.store, identity, job)
    return job


def test_the_program_of_a_job_that_is_under_way_stays(project: Project, home: Path) -> None:
    sent(project)
    age(home, 10)

    collect(project.store, Policy(keep_days=5), delete=True)

    assert project.store.exists(driver_key())


def test_a_program_that_a_job_is_given_while_it_is_about_to_go_stays(
    project: Project, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = driver_file(project.store)
    age(home, 10)
    condemned = claims.condemned

    def race(store: ArtifactStore, keys: Any) -> Any:
        monkeypatch.setattr(claims, "condemned", condemned)
        sent(project)
        return condemned(store, keys)

    monkeypatch.setattr(sweeping.claims, "condemned", race)

    assert collect(project.store, Policy(keep_days=5), delete=True).spared == 1
    assert project.store.exists(program)


def test_a_copy_of_a_jar_goes_unless_a_job_that_is_under_way_is_given_it(
    project: Project, home: Path
) -> None:
    used, unused = (f"_code/{32 * letter}/clean-1.4.jar" for letter in "ab")
    for jar in (used, unused):
        project.store.put_bytes(jar, b"PK")
    job = replace(sent(project), program=f"s3a://bucket/store/{used}")
    remember(project.store, Identity(pipeline="daily", run_id="one", task_id="make"), job)
    age(home, 10)
    noted = {each.where for each in check(project.store) if each.kind == "garbage"}

    report = collect(project.store, Policy(keep_days=5), delete=True)

    assert noted == {unused}
    assert {each for each in names(project, "_code") if each.endswith(".jar")} == {used}
    assert report.other["code"].objects == 1


def test_an_object_without_a_manifest_goes_once_it_is_old(project: Project, home: Path) -> None:
    run(project, "one")
    for path in (home / "_runs").rglob("*.json"):
        path.unlink()
    collect(project.store, Policy(), delete=True)
    young = artifacts(project)
    age(home, 2)

    collect(project.store, Policy(), delete=True)

    assert len(young) == 4
    assert artifacts(project) == set()


def test_published_and_foreign_files_stay(project: Project, home: Path) -> None:
    assert project.run(mart).success
    (home / "notes").mkdir()
    (home / "notes" / "read.me").write_text("mine")
    age(home, 10)

    collect(project.store, Policy(keep_days=5), delete=True)

    assert artifacts(project) == {"mart/a/b/day.parquet", "notes/read.me"}


@pytest.mark.parametrize(
    "folder",
    ["_runs", "_starts", "_specs", "_jobs", "_tags", "_reuse", "_gc", "_code", "_inputs"],
)
def test_a_pipeline_named_as_a_folder_of_the_store_keeps_its_results(
    project: Project, home: Path, folder: str
) -> None:
    def body(n: int = 3) -> DataFrame:
        return make(n)

    body.__name__ = folder
    assert project.run(pipeline(body)).success
    age(home, 10)

    report = collect(project.store, Policy(), delete=True)

    assert report.total.objects == 0
    assert problems(project.store, full=True) == []
    assert load(f"{folder}/make", store=project.store)["x"].tolist() == [0, 1, 2]


def test_staging_of_writers_that_were_killed_goes(project: Project, home: Path) -> None:
    run(project, "one")
    for name in ("host.1.2.a.arrow", "host.1.3.b/part-0.parquet", "host.1.4.c"):
        path = home / ".staging" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"half")
    age(home, 2)
    (home / ".staging" / "host.1.4.c").touch()

    report = collect(project.store, Policy(), delete=True)

    assert os.listdir(home / ".staging") == ["host.1.4.c"]
    assert report.other["staging"].objects == 2


def test_a_damaged_live_manifest_stops_the_clean_up(project: Project, home: Path) -> None:
    run(project, "one")
    run(project, "two", 5)
    age(home, 10)
    (home / "_runs/daily/two/make/-1/1.json").write_bytes(b"{half")
    before = names(project)

    with pytest.raises(ArtifactCorruptedError, match="daily/two/make"):
        collect(project.store, Policy(keep_days=5, keep_last=1), delete=True)

    assert names(project) == before


def test_a_clean_up_that_stopped_half_way_is_gone_on_with(
    project: Project, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        run(project, f"r{number}", number + 2)
    age(home, 10)
    delete, left = ArtifactStore.delete, [7]

    def failing(self: ArtifactStore, name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("killed")
        delete(self, name)

    monkeypatch.setattr(ArtifactStore, "delete", failing)
    for _ in range(12):
        left[0] = 7
        try:
            collect(project.store, Policy(keep_days=5), delete=True)
        except OSError:
            assert problems(project.store) == []

    assert artifacts(project) == set()
    assert names(project, "_runs") == set()


def test_two_clean_ups_at_once_do_no_harm(project: Project, home: Path) -> None:
    for number in range(3):
        run(project, f"r{number}", number + 2)
        age(home, 3)
    fork = multiprocessing.get_context("fork")
    both = [
        fork.Process(
            target=collect, args=(project.store, Policy(keep_last=1)), kwargs={"delete": True}
        )
        for _ in range(2)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join(60)

    assert [each.exitcode for each in both] == [0, 0]
    assert runs(project) == {"r2"}
    assert list(check(project.store)) == []


def test_an_object_made_again_while_it_is_about_to_go_stays(
    project: Project, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race: listed as dead, then "already there" for a task, then its turn comes."""
    run(project, "old")
    age(home, 10)
    condemned = claims.condemned

    def race(store: ArtifactStore, keys: Any) -> Any:
        monkeypatch.setattr(claims, "condemned", condemned)
        assert project.run(fresh, {"n": 3}, run_id="new").success
        assert project.run(daily, {"n": 3}, run_id="newer").success
        return condemned(store, keys)

    monkeypatch.setattr(sweeping.claims, "condemned", race)

    report = collect(project.store, Policy(keep_days=5), delete=True)

    assert report.spared > 0
    assert runs(project) == {"new", "newer"}
    assert problems(project.store, full=True) == []
    assert len(names(project, "_gc/claims")) > 0


def test_a_claim_made_while_an_older_one_of_the_object_is_deleted_holds(
    project: Project, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(project, "old")
    kept = sorted(artifacts(project))
    claims.claim_keys(project.store, kept, always=kept)
    age(home, 10)
    delete, claimed = ArtifactStore.delete, []

    def race(store: ArtifactStore, key: str) -> None:
        if key.startswith("_gc/claims") and not claimed:
            claimed.append(key)
            claims.claim_keys(store, kept, always=kept)
        delete(store, key)

    monkeypatch.setattr(ArtifactStore, "delete", race)

    collect(project.store, Policy(keep_days=5), delete=True)

    assert claimed
    assert sorted(artifacts(project)) == kept


def test_a_task_waits_for_a_clean_up_that_deletes_its_object(
    project: Project, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(project, "old")
    (name,) = names(project, "daily/fresh")
    manifest = last_attempts(project.store, "daily", "old", "fresh")[0]
    waited = []

    def pause(_: float) -> None:
        waited.append(name)
        project.store.delete(name)
        for each in names(project, "_gc/condemned"):
            project.store.delete(each)

    monkeypatch.setattr(claims.time, "sleep", pause)
    project.store.put_bytes("_gc/condemned/x.json", json.dumps({"keys": [name]}).encode())

    with pytest.raises(ArtifactNotFoundError, match="Run the task again"):
        claims.claim(project.store, manifest.outputs)

    assert waited == [name]


def test_a_task_that_lost_its_result_to_a_clean_up_names_it_nowhere(
    project: Project, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(project, "old")
    (name,) = names(project, "daily/fresh")
    claim = claims.claim

    def late(store: ArtifactStore, *encoded: Any) -> None:
        if name in str(encoded):
            store.delete(name)
        claim(store, *encoded)

    monkeypatch.setattr(claims, "claim", late)

    assert not project.run(daily, run_id="new").success

    (failed,) = last_attempts(project.store, "daily", "new", "fresh")
    assert failed.status == "failed"
    assert failed.error is not None
    assert "Run the task again" in failed.error["message"]
    assert failed.outputs == {}


def test_what_a_killed_clean_up_condemned_is_waited_for_once_and_not_for_ever(
    project: Project, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LASTS", 0.1)
    run(project, "one")
    (name,) = names(project, "daily/make")
    waited: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr(claims.time, "sleep", lambda s: (waited.append(s), sleep(s)))

    project.store.put_bytes("_gc/condemned/x.json", json.dumps({"keys": [name]}).encode())
    claims.claim_keys(project.store, [name])
    claims.claim_keys(project.store, [name])
    assert len(waited) == 1

    project.store.put_bytes("_gc/condemned/y.json", json.dumps({"keys": [name]}).encode())
    age(home / "_gc", 1)
    claims.claim_keys(project.store, [name])
    assert len(waited) == 1


def test_a_manifest_written_anew_while_the_old_one_goes_is_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, where = project.store, "_runs/p/r/t/-1/1.json"
    store.put_bytes(where, b"new")
    store.put_bytes("_gc/condemned/x.json", json.dumps({"keys": [where]}).encode())

    def pause(_: float) -> None:
        store.delete(where)
        store.delete("_gc/condemned/x.json")

    monkeypatch.setattr(claims.time, "sleep", pause)

    claims.settle(store, where, b"new")

    assert store.get_bytes(where) == b"new"


class SlowStore(ArtifactStore):
    """Takes longer to list claims than a condemnation lasts, and a while for each delete."""

    all_claims = one_folder = 0.6
    listings = 0

    def list(self, prefix: str = "") -> Iterator[Info]:
        if prefix.startswith(claims.CLAIMS):
            self.listings += 1
            assert self.listings < 30, "this clean-up never ends"
            time.sleep(self.all_claims if prefix == claims.CLAIMS else self.one_folder)
        return super().list(prefix)

    def delete(self, key: str) -> None:
        if not key.startswith("_"):
            time.sleep(0.1)
        super().delete(key)


@pytest.fixture
def slow(project: Project, home: Path, monkeypatch: pytest.MonkeyPatch) -> SlowStore:
    """A store with old results that nothing names."""
    monkeypatch.setattr(claims, "LASTS", 0.5)
    store = SlowStore(project.store.url)
    for number in range(20):
        store.put_bytes(f"p/t/result/{number:032x}.json", b"1")
    age(home, 10)
    return store


def test_where_all_claims_take_too_long_to_list_a_clean_up_looks_at_fewer(slow: SlowStore) -> None:
    slow.one_folder = 0.0

    collect(slow, Policy(keep_days=5), delete=True)

    assert list(slow.list("p")) == []


def test_a_clean_up_of_a_store_too_slow_to_be_safe_stops_and_says_so(slow: SlowStore) -> None:
    with pytest.raises(StoreError, match="Run dbnd gc again when the store answers faster"):
        collect(slow, Policy(keep_days=5), delete=True)

    assert len(list(slow.list("p"))) == 20
    assert list(slow.list(claims.CONDEMNED)) == []


def test_a_folder_of_more_parts_than_there_is_time_for_goes_in_several_rounds(
    slow: SlowStore, home: Path
) -> None:
    slow.all_claims = slow.one_folder = 0.0
    folder = f"p/t/result/{32 * 'f'}.parquet"
    slow.put_bytes(f"{folder}/_parts.json", b"{}")
    for number in range(12):
        slow.put_bytes(f"{folder}/part-{number:05d}-{12 * '0'}.parquet", b"PAR1")
    age(home, 10)

    collect(slow, Policy(keep_days=5), delete=True)

    assert list(slow.list("p")) == []


def test_a_grace_period_too_short_for_a_task_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="grace is 0:05:00: expected 1:00:00 or more"):
        Policy(grace="5m")  # type: ignore[arg-type]


def test_the_rules_are_read_from_a_table() -> None:
    policy = Policy.of({"keep_days": 30, "grace": "2d"}, keep_last=None, keep_days=7)

    assert (policy.keep_days, policy.grace) == (7, dt.timedelta(days=2))
    with pytest.raises(ConfigurationError, match="did you mean 'keep_days'"):
        Policy.of({"keep_day": 1})


def test_lines_are_sorted_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_dbnd.core.gc.spool.CHUNK", 10)
    spool = Spool(str(tmp_path))
    numbers = [f"{n:03d}" for n in range(100)] * 2
    random.Random(1).shuffle(numbers)
    for number in numbers:
        spool.add(number, "x")

    assert [line[0] for line in spool] == sorted(set(numbers))
    among = Among(spool)
    assert [n for n in ("000", "0505", "051", "999") if n in among] == ["000", "051"]


# fsck


def test_a_missing_object_is_a_problem(project: Project, home: Path) -> None:
    run(project, "one")
    (name,) = names(project, "daily/make")
    project.store.delete(name)

    found = problems(project.store)

    assert [(each.kind, each.where) for each in found] == [("missing", name)]
    assert "run the task again" in found[0].remedy


def test_a_short_object_is_a_problem_and_a_changed_one_with_full(
    project: Project, home: Path
) -> None:
    run(project, "one")
    (short,), (changed,) = names(project, "daily/make"), names(project, "daily/fresh")
    data = (home / short).read_bytes()
    (home / short).write_bytes(data[:-1])
    data = (home / changed).read_bytes()
    (home / changed).write_bytes(data[:-1] + b"?")

    assert [each.where for each in problems(project.store)] == [short]
    assert {each.where for each in problems(project.store, full=True)} == {short, changed}


def test_damaged_manifests_tags_and_records_are_told(project: Project, home: Path) -> None:
    run(project, "one")
    promote(version_of(project, "one", "make"), "prod")
    for pattern in ("_runs/**/fresh/-1/1.json", "_tags/**/*.json", "_reuse/results/**/*.json"):
        next(path for path in home.glob(pattern)).write_bytes(b"{half")

    found = list(check(project.store))

    kinds = {each.kind for each in found}
    assert {"damaged manifest", "damaged tag", "damaged record", "garbage"} <= kinds


def test_what_lies_about_is_noted(project: Project, home: Path) -> None:
    run(project, "one")
    (home / "_runs/daily/one/make/-1/1.json").unlink()
    (home / ".staging").mkdir(exist_ok=True)
    (home / ".staging/x.arrow").write_bytes(b"half")
    age(home, 3)

    found = list(check(project.store))

    assert {each.kind for each in found} == {"reuse record", "staging"}
    assert {each.level for each in found} == {"note"}


# kill -9


def write_runs(project: Project, done: str) -> None:
    """Run pipelines one after the other; half of them reuse. Their results come back again and again."""
    dice = random.Random(os.getpid())
    for number in range(100_000):
        result = project.run(daily, {"n": dice.randrange(2, 14)}, run_id=f"r{number:06d}")
        if result.success:
            with open(done, "a") as file:
                file.write(f"r{number:06d}\n")
        time.sleep(0.1)


def test_killing_clean_ups_beside_writers_loses_nothing(
    project: Project, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 rounds of kill -9 at random points, seconds instead of days; the store is consistent."""
    # Between its claims and its manifest a task may have to wait for clean-ups that were killed, each
    # twice as long as a delete may take: all in all for less than the grace period.
    monkeypatch.setattr(claims, "FRESH", 0.2)
    monkeypatch.setattr(claims, "LASTS", 0.3)
    policy = Policy(keep_last=3, grace=dt.timedelta(seconds=2.2))
    fork = multiprocessing.get_context("fork")
    done, dice = str(project.folder / "done"), random.Random(7)
    run(project, "r")
    writer = fork.Process(target=write_runs, args=(project, done))
    writer.start()
    killed, took = 0, 0.2
    try:
        for number in range(220):
            started = time.monotonic()
            gc = fork.Process(target=collect, args=(project.store, policy), kwargs={"delete": True})
            gc.start()
            # Now and then one ends, and tells how long that takes.
            gc.join(60 if number % 11 == 0 else dice.uniform(0, took))
            if gc.is_alive():
                assert gc.pid is not None
                os.kill(gc.pid, signal.SIGKILL)
                killed += 1
            else:
                assert gc.exitcode == 0
                took = max(0.02, time.monotonic() - started)
            gc.join(60)
            finished = Path(done).read_text().split() if Path(done).exists() else []
            for run_id in finished[-2:]:
                assert len(names(project, f"_runs/daily/{run_id}")) == 3
            if number % 4 == 0:
                assert problems(project.store) == []
    finally:
        alive = writer.is_alive()
        writer.kill()
        writer.join(60)
    assert alive
    assert killed > 100
    time.sleep(2.3)
    collect(project.store, policy, delete=True)
    left = list(check(project.store, full=True))

    assert [each for each in left if each.level == "problem"] == []
    assert len(finished) > 20
    assert len(names(project, "_runs")) < 3 * len(finished)
