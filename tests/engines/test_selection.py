"""Which engine a task runs on, with which options, and who may say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dbnd import sensor, task
from airflow_provider_dbnd.core.settings import load_settings
from airflow_provider_dbnd.engines.registry import engine_type, operator_class
from airflow_provider_dbnd.engines.selection import Engine, select_engine
from airflow_provider_dbnd.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    SignatureError,
)

TOML = """
engine = "box"

[engines.box]
type = "docker"
image = "team/base:1"
environment = { A = "1", B = "1" }

[engines.gpu]
type = "kubernetes"
image = "team/gpu:1"
tolerations = [{ key = "gpu" }]

[tasks.train]
engine = "gpu"

[tasks.train.kubernetes]
labels = { team = "ml" }
tolerations = [{ key = "spot" }]

[environments.laptop]
engine = "local"

[environments.laptop.engines.gpu]
type = "docker"
image = "team/gpu-small:1"
"""


@task
def plain() -> int:
    return 1


@task(docker={"environment": {"B": "2"}}, kubernetes={"labels": {"from": "code"}})
def train() -> int:
    return 1


def selected(
    tmp_path: Path, of: Any, *, environment: str | None = None, name: str | None = None
) -> Engine:
    (tmp_path / "dbnd.toml").write_text(TOML)
    settings = load_settings(tmp_path, environment=environment)
    definition = of.definition.with_options(**settings.tasks.get(of.definition.name, {}))
    return select_engine(definition, settings, name)


def test_a_task_that_names_no_engine_takes_the_files(tmp_path: Path) -> None:
    engine = selected(tmp_path, plain)

    assert (engine.name, engine.type) == ("box", "docker")
    assert engine.options == {"image": "team/base:1", "environment": {"A": "1", "B": "1"}}


def test_options_of_engine_code_and_task_table_are_merged(tmp_path: Path) -> None:
    engine = selected(tmp_path, train)

    assert engine.name == "gpu"
    assert engine.options == {
        "image": "team/gpu:1",
        "tolerations": [{"key": "gpu"}, {"key": "spot"}],
        "labels": {"from": "code", "team": "ml"},
    }


def test_options_of_another_type_wait_for_their_engine(tmp_path: Path) -> None:
    engine = selected(tmp_path, train, name="box")

    assert engine.options["environment"] == {"A": "1", "B": "2"}
    assert "labels" not in engine.options


def test_an_environment_replaces_the_default_and_redefines_an_engine(tmp_path: Path) -> None:
    assert selected(tmp_path, plain, environment="laptop").local
    engine = selected(tmp_path, train, environment="laptop")
    assert (engine.type, engine.options["image"]) == ("docker", "team/gpu-small:1")
    assert "tolerations" not in engine.options


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            'engine = "bxo"\n[engines.box]\ntype = "docker"',
            "unknown engine 'bxo'; did you mean 'box'?",
        ),
        ('engine = "box"\n[engines.box]\nimage = "i"', "[engines.box]: type is 'missing'"),
        ('engine = "box"\n[engines.box]\ntype = "dockr"', "did you mean 'docker'?"),
    ],
)
def test_an_engine_that_is_none_is_named_with_what_was_meant(
    tmp_path: Path, toml: str, message: str
) -> None:
    (tmp_path / "dbnd.toml").write_text(toml)

    with pytest.raises(ConfigurationError) as error:
        select_engine(plain.definition, load_settings(tmp_path))

    assert message in str(error.value)


NEEDED = [
    ("docker", "image"),
    ("emr", "job_flow_id or job_flow_name"),
    ("emr_serverless", "application_id"),
]


@pytest.mark.parametrize(("type_", "needed"), NEEDED)
def test_what_an_engine_cannot_do_without_is_an_import_error(
    tmp_path: Path, airflow_db: str, configure: Any, type_: str, needed: str
) -> None:
    from airflow_provider_dbnd.cli.dags import parse

    pytest.importorskip("airflow.providers.amazon")
    configure(f'[engines.box]\ntype = "{type_}"')
    file = tmp_path / "dag_file.py"
    file.write_text(
        "from airflow_provider_dbnd import pipeline, task\n"
        "@task(engine='box')\ndef f(n: int = 1) -> int: return 1\n"
        "@pipeline\ndef p_needs(): f.expand(n=[1])\ndag = p_needs.as_dag()\n"
    )

    (error,) = parse(str(file)).import_errors.values()

    assert (
        f"ConfigurationError: task 'f': engine 'box' ({type_}) needs {needed}, got none. Set it in "
        "[engines.box] of dbnd.toml.\n"
    ) in error


def test_what_an_engine_cannot_do_without_fails_a_local_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_dbnd.cli.main import main

    monkeypatch.chdir(tmp_path)
    Path("dbnd.toml").write_text('engine = "docker"')
    Path("one.py").write_text(
        "from airflow_provider_dbnd import task\n@task\ndef f() -> int: return 1\n"
    )

    assert main(["run", "one.py", "--quiet"]) == 1
    assert capsys.readouterr().err == (
        "task f failed: ConfigurationError: task 'f': engine 'docker' (docker) needs image, got "
        "none. Set it in [engines.docker] of dbnd.toml.\n"
    )


def test_the_default_args_of_a_dag_are_options_of_its_engines(
    configure: Any, airflow_db: str
) -> None:
    from airflow.sdk import DAG, TaskGroup

    configure('engine = "docker"')
    with DAG("defaults", schedule=None, default_args={"image": "i"}):
        assert plain().operator.image == "i"  # type: ignore[attr-defined]
    with DAG("grouped", schedule=None), TaskGroup("g", default_args={"image": "j"}):
        assert plain().operator.image == "j"  # type: ignore[attr-defined]


def test_a_sensor_stays_in_the_worker_and_cannot_be_sent_elsewhere(tmp_path: Path) -> None:
    @sensor
    def there() -> bool:
        return True

    assert selected(tmp_path, there).local
    with pytest.raises(SignatureError, match="sensor 'there' cannot run on engine 'box'"):
        selected(tmp_path, there.override(engine="box"))


def test_a_missing_provider_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "airflow.providers.docker.operators.docker", None)
    monkeypatch.delitem(sys.modules, "airflow_provider_dbnd.engines.docker", raising=False)

    with pytest.raises(MissingDependencyError, match=r"airflow-provider-dbnd\[docker\]"):
        operator_class("docker")


@pytest.mark.usefixtures("process_engine")
def test_another_packages_engine_is_found_by_its_entry_point() -> None:
    assert engine_type("process").operator == "process_engine:ProcessTask"


def test_an_option_the_operator_does_not_take_is_an_import_error_with_the_closest(
    tmp_path: Path, airflow_db: str, configure: Any
) -> None:
    from airflow_provider_dbnd.cli.dags import parse

    configure('[engines.box]\ntype = "docker"\nimagee = "x"')
    file = tmp_path / "dag_file.py"
    file.write_text(
        "from airflow_provider_dbnd import pipeline, task\n"
        "@task(engine='box')\ndef f() -> int: return 1\n"
        "@pipeline\ndef p_option(): f()\ndag = p_option.as_dag()\n"
    )

    errors = parse(str(file)).import_errors

    assert "engine 'box' (docker): unknown option 'imagee'; did you mean 'image'?" in "".join(
        errors.values()
    )
