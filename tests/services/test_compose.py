"""docker-compose.yaml: valid, complete, and in agreement with itself and with the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yaml"
AIRFLOW = {"api-server", "scheduler", "dag-processor", "triggerer", "init", "worker-a", "worker-b"}
WORKERS = ("worker-a", "worker-b")

OPTIONS = """
from airflow.configuration import conf
import json
conf.load_providers_configuration()
print("OPTIONS" + json.dumps({s: sorted(o["options"]) for s, o in conf.configuration_description.items()}))
"""


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text())["services"])


@pytest.fixture(scope="module")
def airflow_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The options of Airflow and of its providers, Celery's and ours among them."""
    if "DBND_TEST_AIRFLOW_VENV" not in os.environ:
        pytest.skip("DBND_TEST_AIRFLOW_VENV does not name an Airflow with the Celery provider")
    done = subprocess.run(
        [f"{os.environ['DBND_TEST_AIRFLOW_VENV']}/bin/python", "-c", OPTIONS],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.rpartition("OPTIONS")[2]))


def compose_command() -> list[str]:
    plugin = os.environ.get("DBND_TEST_COMPOSE")
    if plugin:
        return [plugin]
    docker = shutil.which("docker")
    if (
        docker
        and subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
        == 0
    ):
        return [docker, "compose"]
    pytest.skip("no docker compose here: .ci/services up installs the plugin")


def test_compose_itself_finds_nothing_to_complain_about() -> None:
    done = subprocess.run(
        [*compose_command(), "-f", str(FILE), "config", "-q"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_part_of_the_topology_is_there(services: dict[str, Any]) -> None:
    needed = AIRFLOW | {"postgres", "redis", "s3", "spark-master", "spark-worker", "livy"}

    assert needed <= services.keys()


def test_airflow_variables_name_options_that_exist(
    services: dict[str, Any], airflow_options: dict[str, list[str]]
) -> None:
    for name in AIRFLOW:
        variables = [each for each in services[name]["environment"] if each.startswith("AIRFLOW__")]
        assert "AIRFLOW__DBND__STORE" in variables
        for variable in variables:
            section, option = variable.removeprefix("AIRFLOW__").lower().split("__", 1)
            assert option in airflow_options[section], variable


def test_urls_lead_to_services_of_this_file(services: dict[str, Any]) -> None:
    for name, service in services.items():
        texts = [str(value) for value in service.get("environment", {}).values()]
        texts += [str(service.get("command", "")), str(service.get("entrypoint", ""))]
        for scheme, host in re.findall(
            r"([a-z0-9+]+)://(?:[\w-]+(?::[\w-]+)?@)?([\w-]+)", " ".join(texts)
        ):
            if scheme != "s3":  # there the host is a bucket
                assert host in {*services, "localhost"}, f"{name}: {scheme}://{host}"


def test_the_store_is_reached_with_the_servers_own_credentials(services: dict[str, Any]) -> None:
    environment = services["worker-a"]["environment"]
    conn_id, bucket = re.match(
        r"s3://(\w+)@([\w-]+)/", environment["AIRFLOW__DBND__STORE"]
    ).groups()
    connection = json.loads(environment[f"AIRFLOW_CONN_{conn_id.upper()}"])
    server = services["s3"]["environment"]

    assert (connection["login"], connection["password"]) == (
        server["MINIO_ROOT_USER"],
        server["MINIO_ROOT_PASSWORD"],
    )
    assert f"store/{bucket}" in services["s3-bucket"]["entrypoint"][-1]


def test_workers_share_nothing_but_code(services: dict[str, Any]) -> None:
    for name in WORKERS:
        assert services[name]["hostname"] == name
        assert services[name]["volumes"] == ["./dags_examples:/opt/airflow/dags:ro"]
    assert services["worker-a"]["command"] != services["worker-b"]["command"]
    assert (ROOT / "dags_examples").is_dir()


def test_ports_are_bound_to_this_machine_alone(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_what_is_waited_for_can_become_true(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}"
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert other in {"init", "s3-bucket"}, f"{name} waits for the end of {other}"


def test_images_are_built_from_this_checkout_and_its_pins(services: dict[str, Any]) -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    pinned = re.search(
        r"^apache-airflow==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    sources = [
        source
        for line in re.findall(r"^COPY (?:--\S+ )*(.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]

    assert services["worker-a"]["build"] == {"context": ".", "dockerfile": "docker/Dockerfile"}
    assert f"FROM apache/airflow:{pinned[1]}-" in text
    assert "constraints.txt" in sources
    assert all((ROOT / source).exists() for source in sources), sources


def test_spark_and_livy_are_built_of_what_the_tests_run(services: dict[str, Any]) -> None:
    folder = ROOT / "docker" / "spark"
    text = (folder / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)

    assert services["spark-master"]["build"] == {"context": "docker/spark", "target": "spark"}
    assert services["livy"]["build"] == {"context": "docker/spark", "target": "livy"}
    assert services["spark-worker"]["image"] == services["spark-master"]["image"]
    assert stages == ["jars", "spark", "livy"]
    assert all((folder / name).is_file() for line in copied for name in line.split())
    assert "docker/spark/requirements.txt" in (ROOT / ".ci" / "services").read_text()


def test_drivers_and_executors_reach_the_store_as_tasks_do(services: dict[str, Any]) -> None:
    connection = json.loads(services["worker-a"]["environment"]["AIRFLOW_CONN_DBND_S3"])
    defaults = (ROOT / "docker" / "spark" / "spark-defaults.conf").read_text()

    for name in ("livy", "spark-worker"):
        environment = services[name]["environment"]
        assert environment["AWS_ACCESS_KEY_ID"] == connection["login"]
        assert environment["AWS_SECRET_ACCESS_KEY"] == connection["password"]
        assert environment["AWS_ENDPOINT_URL_S3"] == connection["extra"]["endpoint_url"]
    assert f"fs.s3a.endpoint {connection['extra']['endpoint_url']}\n" in defaults
