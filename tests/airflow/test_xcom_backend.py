"""Native TaskFlow tasks with our XCom backend, in an Airflow configured with it."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from airflow_provider_dbnd.xcom import ArtifactXComBackend

DAG = """
import os
import pandas as pd
from airflow.sdk import dag, task
from airflow_provider_dbnd import task as dbnd_task

@task
def frame():
    return pd.DataFrame({"x": [1, 2, 3], "c": pd.Categorical(["a", "b", "a"])})

@task
def mixed():
    return {"frames": [pd.DataFrame({"y": [1]})], "n": 1}

@task
def parts():
    return [pd.DataFrame({"x": [i]}) for i in range(3)]

@task
def check(df, other):
    assert str(df["c"].dtype) == "category", df.dtypes
    assert other["frames"][0]["y"].tolist() == [1] and other["n"] == 1
    return len(df)

@task
def each(df):
    return int(df["x"].iloc[0])

@task
def add(values):
    return sum(values)

@dbnd_task
def ours(df: pd.DataFrame) -> int:
    return len(df)

@dag
def backend():
    df = frame()
    check(df, mixed())
    ours(df)
    add(each.expand(df=parts()))

d = backend()

if __name__ == "__main__":
    run = d.test()
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    with create_session() as session:
        for x in session.query(XComModel).filter(XComModel.run_id == run.run_id).all():
            print("XCOM", x.task_id, x.map_index, x.key, x.value)
    print("STATE", run.state)
"""


def test_native_tasks_pass_frames_by_reference(airflow_db: str, store_url: str) -> None:
    path = Path(airflow_db) / "backend.py"
    path.write_text(DAG)
    try:
        done = subprocess.run(
            [sys.executable, str(path)],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "AIRFLOW__CORE__XCOM_BACKEND": "airflow_provider_dbnd.xcom.ArtifactXComBackend",
            },
            check=False,
        )
    finally:
        path.unlink()

    assert "STATE success" in done.stdout, done.stdout + done.stderr
    xcoms = [line for line in done.stdout.splitlines() if line.startswith("XCOM")]
    assert any(line.startswith("XCOM frame -1 return_value {'dbnd_artifact': 1") for line in xcoms)
    assert "XCOM add -1 return_value 3" in xcoms
    assert "XCOM ours -1 return_value 3" in xcoms


def test_small_json_is_left_as_it_is(store_url: str) -> None:
    assert ArtifactXComBackend.serialize_value({"a": [1, "x", None]}) == {"a": [1, "x", None]}


@pytest.mark.parametrize(
    "value",
    [
        dt.date(2020, 1, 1),
        dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc),
        dt.timedelta(days=1),
        (1, 2),
        {1, 2},
        {"day": dt.date(2020, 1, 1), "pair": (1, [2, {"deep": (3,)}])},
        [dt.date(2020, 1, 1)] * 500,
        list(range(5000)),
        "x" * 5000,
        b"\0\1",
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_come_back_of_their_types(store_url: str, value: object) -> None:
    stored = json.loads(json.dumps(ArtifactXComBackend.serialize_value(value)))

    found = ArtifactXComBackend.deserialize_value(SimpleNamespace(value=stored))

    assert (type(found), found) == (type(value), value)
    assert len(json.dumps(stored)) < 1500


def test_data_in_a_tuple_becomes_artifacts_of_their_own(store_url: str) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    stored = ArtifactXComBackend.serialize_value((frame, {"day": dt.date(2020, 1, 1)}))

    found, rest = ArtifactXComBackend.load_value(json.loads(json.dumps(stored)))

    pd.testing.assert_frame_equal(found, frame)
    assert rest == {"day": dt.date(2020, 1, 1)}


def test_what_no_serializer_takes_is_refused_as_by_airflow(store_url: str) -> None:
    with pytest.raises(TypeError, match="object"):
        ArtifactXComBackend.serialize_value(object())


def test_the_newer_names_store_and_load_the_same(store_url: str) -> None:
    class Coordinate:
        dag_id, task_id, run_id = "d", "t", "r"

    frame = pd.DataFrame({"a": [1, 2]})

    stored = ArtifactXComBackend.store_value(Coordinate, "return_value", frame)

    assert stored["dbnd_artifact"] == 1
    pd.testing.assert_frame_equal(ArtifactXComBackend.load_value(stored), frame)


def test_purge_keeps_content_that_others_may_share(store_url: str) -> None:
    stored = ArtifactXComBackend.serialize_value(
        pd.DataFrame({"a": [1]}), dag_id="d", task_id="t", key="k"
    )

    ArtifactXComBackend.purge(stored)

    assert len(ArtifactXComBackend.load_value(stored)) == 1
