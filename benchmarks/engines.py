"""A task elsewhere: what it costs with each engine, against Airflow's own decorator.

Needs the servers of ``.ci/services up`` and their variables; engines whose server is not named are
left out. The Docker image has Python and the data libraries, as an engine asks for.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import child, watched_memory
from benchmarks.options import Options
from benchmarks.table import Row, seconds

OURS = """
from pandas import DataFrame
from airflow_provider_dbnd import pipeline, task

@task(engine="local")
def make() -> DataFrame:
    from benchmarks.frames import mixed
    return mixed({megabytes})

@task
def through(rows: DataFrame) -> DataFrame:
    return rows.assign(amount=rows["amount"] + 1)

@task
def empty() -> int:
    return 1

@pipeline
def bench():
    {body}

dag = bench.as_dag()
"""

THEIRS = """
from airflow.sdk import DAG, task

@task
def make():
    from benchmarks.frames import mixed
    return mixed({megabytes})

@task.{decorator}({options})
def through(rows):
    return rows.assign(amount=rows["amount"] + 1)

@task.{decorator}({options})
def empty():
    return 1

with DAG("bench") as dag:
    {body}
"""

BODIES = {"empty": "empty()", "through": "through(make())"}


def rows(options: Options) -> Iterator[Row]:
    """Measure an empty task and a large one on every engine that is there."""
    for engine, table, decorator, native in _engines():
        for what, task in (("an empty task", "empty"), ("1 GB in and out", "through")):
            if task == "through" and options.size < 100:
                continue
            ours = _measured(OURS, task, options.size, options.rounds, table=table)
            way = partial(_measured, THEIRS, task, decorator=decorator, options_=native)
            # What does not pass a megabyte is not given a gigabyte.
            theirs = way(1, options.rounds if task == "empty" else 1)
            if task == "through" and theirs["seconds"] is not None:
                theirs = way(options.size, 1)
            yield _row(f"{engine}: {what}", ours, theirs, decorator)


def _row(what: str, ours: dict[str, Any], theirs: dict[str, Any], decorator: str) -> Row:
    memory = f", worker +{ours['memory'] / 1e6:.0f} MB"
    detail = f"ours {seconds(ours['seconds'])}{memory}; "
    if theirs["seconds"] is None:
        detail += f"@task.{decorator} cannot, with 1 MB: {theirs['error']}"
        return Row(subject="engines", what=what, value=ours["seconds"], unit="s", detail=detail)
    detail += (
        f"@task.{decorator} {seconds(theirs['seconds'])}, worker +{theirs['memory'] / 1e6:.0f} MB"
    )
    return Row(
        subject="engines", what=what, value=ours["seconds"] / theirs["seconds"], detail=detail
    )


def _measured(
    source: str, task: str, megabytes: float, rounds: int, **parts: str
) -> dict[str, Any]:
    table = parts.pop("table", "")
    text = source.format(
        megabytes=megabytes,
        body=BODIES[task],
        decorator=parts.get("decorator", ""),
        options=parts.get("options_", ""),
    )
    rounds = rounds if task == "empty" else 1
    found = [child("engines:run", source=text, task=task, table=table) for _ in range(rounds)]
    failed = next((each for each in found if each["seconds"] is None), None)
    if failed is not None:
        if table:
            raise RuntimeError(f"our own task failed: {failed['error']}")
        return failed
    return {
        "seconds": median(each["seconds"] for each in found),
        "memory": max(each["memory"] for each in found),
    }


def run(source: str, task: str, table: str) -> dict[str, Any]:
    """Run the DAG in an Airflow of its own; return what the task took, or why it failed."""
    with tempfile.TemporaryDirectory(prefix="dbnd-bench-") as folder:
        dags = Path(folder, "dags")
        dags.mkdir()
        (dags / "bench.py").write_text(source)
        (dags / "dbnd.toml").write_text(table)
        os.environ.update(
            AIRFLOW_HOME=folder,
            AIRFLOW__CORE__DAGS_FOLDER=str(dags),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
        )
        if "store = " not in table:
            os.environ["DBND_STORE"] = str(Path(folder, "store"))
        from airflow.utils.db import initdb

        from airflow_provider_dbnd.cli.dags import parse

        initdb()
        bag = parse(str(dags / "bench.py"))
        if bag.import_errors:
            return _failed("".join(bag.import_errors.values()))
        log = Path(folder, "log")
        with watched_memory() as peak, _printed_to(log):
            left = bag.dags["bench"].test()
            memory = peak()
        (instance,) = [i for i in left.get_task_instances() if i.task_id == task]
        if str(instance.state) != "success":
            return _failed(_reason(log.read_text()))
        return {"seconds": instance.duration, "memory": memory}


def _failed(error: str) -> dict[str, Any]:
    return {"seconds": None, "memory": 0, "error": error.strip().splitlines()[-1][:160]}


@contextlib.contextmanager
def _printed_to(log: Path) -> Iterator[None]:
    """Let this process print to a file: Airflow's own log of a test run, and a container's."""
    sys.stdout.flush()
    kept = os.dup(1)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)


def _reason(log: str) -> str:
    for hint in ("too long", "too large", "command not found", "Error: ", "Exception: "):
        if lines := [line for line in log.splitlines() if hint in line]:
            return re.sub(r"^\S+ \[\w+ *\] | +\[[\w.]+\] .*", "", lines[-1])
    return "it failed"


def _engines() -> Iterator[tuple[str, str, str, str]]:
    """Yield (name, dbnd.toml, decorator of Airflow, its options)."""
    image = os.environ.get("DBND_TEST_IMAGE", "")
    if url := os.environ.get("DBND_TEST_DOCKER"):
        table = f'engine = "here"\n[engines.here]\ntype = "docker"\nimage = "{image}"\n'
        table += f'docker_url = "{url}"\nnetwork_mode = "host"\n'
        native = f"image={image!r}, docker_url={url!r}, network_mode='host', auto_remove='force', mount_tmp_dir=False"
        yield "docker", table, "docker", native
    if config := os.environ.get("DBND_TEST_KUBECONFIG"):
        s3, key, secret = os.environ["DBND_TEST_S3_MOTO"], "AK", "SK"  # moto takes any
        table = f'engine = "here"\nstore = "{_bucket(s3, key, secret)}"\n'
        table += f'[storage_options.s3]\nendpoint_url = "{s3}"\n'
        table += f'[engines.here]\ntype = "kubernetes"\nimage = "{image}"\nhostnetwork = true\n'
        table += f'image_pull_policy = "Never"\nconfig_file = "{config}"\n'
        table += (
            f'env_vars = {{ AWS_ACCESS_KEY_ID = "{key}", AWS_SECRET_ACCESS_KEY = "{secret}" }}\n'
        )
        native = f"image={_with_python(image)!r}, image_pull_policy='Never', hostnetwork=True, config_file={config!r}, namespace='default'"
        yield "kubernetes", table, "kubernetes", native
    if venv := os.environ.get("DBND_TEST_SPARK_VENV"):
        table = 'engine = "here"\n[engines.here]\ntype = "spark"\nmaster = "local[2]"\n'
        table += f'spark_binary = "{venv}/bin/spark-submit"\npython = "{venv}/bin/python"\n'
        yield "spark", table, "pyspark", ""


def _bucket(endpoint: str, key: str, secret: str) -> str:
    import boto3

    os.environ.update(AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="dbnd-bench")
    return "s3://dbnd-bench/store"


def _with_python(image: str) -> str:
    """Return the image with a program named ``python``, which @task.kubernetes calls."""
    made = "dbnd/bench:python"
    words = ["docker", "-H", os.environ["DBND_TEST_DOCKER"], "build", "-q", "-t", made, "-"]
    lines = f"FROM {image}\nRUN ln -sf /usr/bin/python3 /usr/local/bin/python\n"
    subprocess.run(words, input=lines, text=True, check=True, capture_output=True)
    return made
