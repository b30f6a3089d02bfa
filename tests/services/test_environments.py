"""The same flights_mart in two environments: here, and with every task in a pod and data in a bucket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_dbnd import Run

ROOT = Path(__file__).parents[2]
VARIABLES = ("DBND_TEST_KUBECONFIG", "DBND_TEST_S3_MOTO", "DBND_TEST_IMAGE")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples, whose environment ``cluster`` is the cluster and bucket of the tests."""
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing and not os.environ.get("DBND_TEST_SERVICES"):
        pytest.skip(f"{missing[0]} is not set: run .ci/services up and export its env file")
    config, s3, image = (os.environ[name] for name in VARIABLES)
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1")
    client.create_bucket(Bucket="dbnd-examples")
    folder = tmp_path / "examples"
    shutil.copytree(
        ROOT / "dags_examples", folder, ignore=shutil.ignore_patterns("__pycache__", ".dbnd")
    )
    settings = (folder / "dbnd.toml").read_text()
    there = f'image = "{image}"\nimage_pull_policy = "Never"\nhostnetwork = true\nconfig_file = "{config}"\n'
    there += f'env_vars = {{ AWS_ACCESS_KEY_ID = "AK", AWS_SECRET_ACCESS_KEY = "SK", AWS_ENDPOINT_URL = "{s3}" }}\n'
    assert 'image = "python-data:3.11"\n' in settings
    # The test machine has two cores, which four pods at once would share with everything else.
    settings = settings.replace('cpu = "1", memory = "2Gi"', 'cpu = "100m", memory = "64Mi"')
    (folder / "dbnd.toml").write_text(settings.replace('image = "python-data:3.11"\n', there))
    return folder


def test_flights_mart_gives_the_same_mart_here_and_in_pods(cluster: Path) -> None:
    for environment in ("local", "cluster"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "airflow_provider_dbnd.cli",
                "run",
                "flights_mart.py",
                "--env",
                environment,
                "--run-id",
                environment,
                "--parallel",
                "2",
            ],
            cwd=cluster,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    here = Run("flights_mart", "local", store=str(cluster / ".dbnd" / "store"))["build_mart"]
    there = Run("flights_mart", "cluster", store="s3://dbnd-examples/store")["build_mart"]
    assert {name: v.digest for name, v in here.outputs.items()} == {
        name: v.digest for name, v in there.outputs.items()
    }
    assert there.manifests[0].engine["type"] == "kubernetes"
