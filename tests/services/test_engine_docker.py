"""Tasks in real containers."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.engines.engine_contract import PASSWORD, EngineContract


@pytest.fixture(scope="session")
def docker() -> dict[str, str]:
    """Where the Docker daemon is, and its images."""
    try:
        return {
            "url": os.environ["DBND_TEST_DOCKER"],
            "image": os.environ["DBND_TEST_IMAGE"],
            "bare": os.environ["DBND_TEST_IMAGE_BARE"],
            "no_python": os.environ["DBND_TEST_IMAGE_NO_PYTHON"],
        }
    except KeyError as missing:
        if os.environ.get("DBND_TEST_SERVICES"):
            raise
        pytest.skip(f"{missing} is not set: run .ci/services up and export its env file")


class TestDocker(EngineContract):
    @pytest.fixture
    def engine(self, docker: dict[str, str]) -> str:
        name, value = PASSWORD
        return f"""
[engines.here]
type = "docker"
image = "{docker["image"]}"
docker_url = "{docker["url"]}"
network_mode = "host"
private_environment = {{ {name} = "{value}" }}
"""

    def test_a_container_is_removed_when_it_ended(self, run: Any, client: Any) -> None:
        assert run("contract_hidden").states() == {"login": "success"}
        assert client.containers(all=True, filters={"label": "dbnd.spec"}) == []


@pytest.fixture
def client(docker: dict[str, str]) -> Any:
    """Docker's own client."""
    from docker import APIClient

    return APIClient(base_url=docker["url"])


SOURCE = """
import time
from pathlib import Path
from airflow_provider_dbnd import pipeline, task

@task(engine="here", docker={OPTIONS})
def work(seconds: float = 0, mb: int = 0) -> int:
    import pandas
    time.sleep(seconds)
    return len(bytearray(mb * 2**20))

@pipeline
def in_docker(seconds: float = 0, mb: int = 0):
    work(seconds, mb)

dag = in_docker.as_dag()
"""


@pytest.fixture
def work(docker: dict[str, str], store_url: str, configure: Any, run_source: Any) -> Any:
    """``work(conf, **options)`` runs one task in a container; returns its state and log."""

    def go(conf: dict[str, Any] | None = None, **options: Any) -> tuple[str, str]:
        configure(
            f'[engines.here]\ntype = "docker"\nimage = "{docker["image"]}"\n'
            f'docker_url = "{docker["url"]}"\nnetwork_mode = "host"\n'
        )
        left, log = run_source(SOURCE.replace("{OPTIONS}", repr(options)), **(conf or {}))
        return left.states()["work"], log

    return go


def test_an_image_without_python_is_named(work: Any, docker: dict[str, str]) -> None:
    state, log = work(image=docker["no_python"])

    assert state == "failed"
    assert f"image {docker['no_python']} has no python3" in log
    assert "engine 'here' (docker), job " in log


def test_an_image_without_a_library_names_the_library(work: Any, docker: dict[str, str]) -> None:
    state, log = work(image=docker["bare"])

    assert state == "failed"
    assert "No module named 'pandas'" in log


def test_a_container_out_of_memory_says_so(work: Any) -> None:
    state, log = work({"mb": 300}, mem_limit="150m")

    assert state == "failed"
    assert "killed for want of memory (mem_limit=150m)" in log


def test_a_daemon_that_is_not_there_is_named(work: Any) -> None:
    state, log = work(docker_url="tcp://127.0.0.1:9", timeout=2)

    assert state == "failed"
    assert "engine 'here' (docker), job not started" in log
    assert "127.0.0.1" in log


def test_a_store_the_container_may_not_write_is_named(
    work: Any, store_url: str, docker: dict[str, str]
) -> None:
    state, log = work(user="65534:65534")

    assert state == "failed"
    assert "Permission denied" in log
    assert store_url in log


def test_a_container_that_is_removed_while_it_runs_is_a_lost_job(work: Any, client: Any) -> None:
    import threading
    import time

    def remove() -> None:
        for _ in range(300):
            found = client.containers(filters={"label": "dbnd.spec"})
            if found:
                time.sleep(1)
                client.remove_container(found[0]["Id"], force=True)
                return
            time.sleep(0.2)

    thread = threading.Thread(target=remove)
    thread.start()
    state, log = work({"seconds": 60})
    thread.join()

    assert state == "failed"
    assert "the container is gone" in log, log
