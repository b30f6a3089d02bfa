"""What must agree between files of the repository: versions, names, pins, extras, documentation."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import airflow_provider_dbnd
from airflow_provider_dbnd.core.formats import FormatRow
from airflow_provider_dbnd.core.formats.registry import formats
from airflow_provider_dbnd.core.storage.filesystem import SCHEMES
from airflow_provider_dbnd.get_provider_info import get_provider_info

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "airflow_provider_dbnd"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTATION = "\n".join(
    page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
)

#: Taken apart, so that this file does not hold what it looks for.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("test", "pypi"),
        ("pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("registry", "npmjs"),
        ("repo1", "maven"),
        ("repo", "maven", "apache"),
        ("conda", "anaconda"),
        ("index", "crates"),
        ("proxy", "golang"),
    )
]
MACHINE_PATHS = re.compile(
    r"(?<![\w.~*}-])/(?:root|work|Users)/\w|(?<![\w.~*}-])/home/(?!(?:airflow|me)\b)\w"
)


def files() -> list[Path]:
    """Return the files git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git work tree")
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def texts() -> dict[Path, str]:
    found = {}
    for path in files():
        try:
            found[path] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "pyproject.toml",
        "constraints.txt",
        "constraints-airflow-3.1.txt",
        "docker-compose.yaml",
        "airflow_provider_dbnd/py.typed",
        ".ci/run",
        ".ci/services",
        "docs/concepts.md",
        "docs/parameters.md",
        "docs/artifacts.md",
        "docs/cli.md",
        "docs/from_dbnd.md",
        "docs/from_taskflow.md",
        "docs/architecture.md",
        "docs/performance.md",
    ],
)
def test_file_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", ["run", "test", "ui", "check", "install"])
def test_script_can_be_executed(name: str) -> None:
    assert (ROOT / "scripts" / name).stat().st_mode & 0o111


def test_no_file_names_a_package_registry() -> None:
    named = [
        f"{path.relative_to(ROOT)}: {host}"
        for path, text in texts().items()
        for host in REGISTRIES
        if host in text
    ]

    assert named == []


def test_no_file_names_a_path_of_one_machine() -> None:
    named = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, text in texts().items()
        for match in MACHINE_PATHS.finditer(text)
    ]

    assert named == []


def test_the_version_is_the_same_everywhere() -> None:
    changelog = re.search(
        r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )

    assert changelog is not None
    assert [changelog[1], get_provider_info()["versions"][0]] == [
        airflow_provider_dbnd.__version__
    ] * 2


def test_public_names_resolve() -> None:
    names = airflow_provider_dbnd.__all__

    assert sorted(names) == sorted(airflow_provider_dbnd._HOMES)
    assert all(getattr(airflow_provider_dbnd, name) is not None for name in names)
    assert set(names) <= set(dir(airflow_provider_dbnd))


def test_public_names_are_those_type_checkers_see() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (alias.name, node.module)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert seen == {
        (n, f"airflow_provider_dbnd.{home}") for n, home in airflow_provider_dbnd._HOMES.items()
    }


def test_importing_the_package_loads_neither_airflow_nor_data_libraries() -> None:
    heavy = [
        "airflow",
        "pandas",
        "numpy",
        "pyarrow",
        "polars",
        "fsspec",
        "pydantic",
        "rich",
        "typer",
    ]
    code = f"import sys, airflow_provider_dbnd; print(*[m for m in {heavy} if m in sys.modules])"

    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert loaded.stdout.split() == []


def test_decorating_a_function_loads_neither_airflow_nor_data_libraries() -> None:
    heavy = ["airflow", "pandas", "numpy", "pyarrow", "polars", "rich", "typer"]
    code = (
        "import sys\nfrom airflow_provider_dbnd import pipeline, task\n"
        f"print(*[m for m in {heavy} if m in sys.modules])"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert loaded.stdout.split() == []


def test_the_core_runs_a_pipeline_where_airflow_cannot_be_imported(tmp_path: Path) -> None:
    file = tmp_path / "doubled.py"
    file.write_text(
        "from airflow_provider_dbnd import pipeline, task\n"
        "@task\ndef double(n: int) -> int:\n    return 2 * n\n"
        "@pipeline\ndef doubled(n: int = 3) -> int:\n    return double(double(n))\n"
        "dag = doubled.as_dag()\n"
    )
    code = (
        "import importlib, pkgutil, sys\nsys.modules['airflow'] = None\n"
        "import airflow_provider_dbnd.core as core\n"
        "for m in pkgutil.walk_packages(core.__path__, core.__name__ + '.'):\n"
        "    importlib.import_module(m.name)\n"
        "from airflow_provider_dbnd.cli.main import main\n"
        f"sys.exit(main(['run', {str(file)!r}]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert "double__1.result = 12" in done.stdout


def test_airflow_finds_the_provider_under_its_distributions_name() -> None:
    assert get_provider_info()["package-name"] == PROJECT["name"]


def test_the_provider_metadata_names_things_that_exist() -> None:
    info = get_provider_info()
    paths = [each["class-name"] for each in info["task-decorators"]]
    paths += [each["hook-class-name"] for each in info["connection-types"]]
    paths += info["cli"]

    for path in paths:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_the_provider_metadata_fits_airflows_schema() -> None:
    import json
    from importlib.resources import files as resources

    import jsonschema

    schema = json.loads(resources("airflow").joinpath("provider_info.schema.json").read_text())

    jsonschema.validate(get_provider_info(), schema)


def test_every_extra_an_error_names_exists() -> None:
    extras = set(PROJECT["optional-dependencies"])
    named = {scheme.extra for scheme in SCHEMES.values()} - {None}
    for path in PACKAGE.rglob("*.py"):
        for found in re.findall(r"airflow-provider-dbnd\[([a-z,0-9]+)\]", path.read_text()):
            named.update(found.split(","))

    assert named <= extras


def test_the_extra_all_has_every_other() -> None:
    extras = dict(PROJECT["optional-dependencies"])
    (everything,) = extras.pop("all")

    assert everything == f"{PROJECT['name']}[{','.join(sorted(extras))}]"


@pytest.mark.parametrize("row", formats(), ids=lambda row: row.name)
def test_format_is_documented_with_its_extensions(row: FormatRow) -> None:
    for page in ("README.md", "docs/artifacts.md"):
        text = (ROOT / page).read_text()
        assert f"`{row.name}`" in text
        assert [e for e in row.extensions if not re.search(rf"[` ]\.{re.escape(e)}\b", text)] == []


def test_every_format_in_the_table_exists() -> None:
    text = (ROOT / "docs/artifacts.md").read_text()
    table = text.partition("| format | extensions | holds |\n")[2].partition("\n\n")[0]
    named = {
        name for row in table.splitlines()[1:] for name in re.findall("`(\\w+)`", row.split("|")[1])
    }

    assert named == {row.name for row in formats()}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_scheme_is_documented(scheme: str) -> None:
    assert f"{scheme}://" in DOCUMENTATION or f"`{scheme}`" in DOCUMENTATION


@pytest.mark.parametrize("name", sorted(PROJECT["optional-dependencies"]))
def test_extra_is_documented(name: str) -> None:
    assert f"`{name}`" in (ROOT / "README.md").read_text()


def test_every_configuration_option_is_documented() -> None:
    for section, content in get_provider_info()["config"].items():
        assert f"[{section}]" in DOCUMENTATION
        for option in content["options"]:
            assert re.search(
                rf"\[{section}\] {option}\b|^#? ?{option} = ", DOCUMENTATION, re.MULTILINE
            ), option


def test_every_environment_variable_is_documented() -> None:
    from airflow_provider_dbnd.core import settings

    variables = {value for name, value in vars(settings).items() if name.endswith("_VARIABLE")}

    assert len(variables) >= 3
    assert [name for name in variables if name not in DOCUMENTATION] == []


def test_every_key_of_the_settings_file_is_documented() -> None:
    from airflow_provider_dbnd.core import settings

    page = (ROOT / "docs" / "parameters.md").read_text()

    assert [
        key
        for key in settings._KEYS
        if not re.search(rf"\[(\w+\.)?{key}\b|^{key} = ", page, re.MULTILINE)
    ] == []


def test_every_option_of_a_parameter_is_documented() -> None:
    from airflow_provider_dbnd import parameter

    page = (ROOT / "docs" / "parameters.md").read_text()

    assert [name for name in parameter._options - {"type"} if f"`{name}`" not in page] == []


def test_every_command_is_documented() -> None:
    import typer.main

    from airflow_provider_dbnd.cli.main import app

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    page = (ROOT / "docs" / "cli.md").read_text()

    assert [name for name in commands if f"## dbnd {name}" not in page] == []


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-airflow-3.1.txt"])
def test_pins_have_neither_hashes_nor_addresses(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()

    assert lines
    assert [
        line for line in lines if not re.match(r"[a-z0-9-]+==[\w.+!]+( ; .+)?$|#|$", line)
    ] == []
    assert "://" not in "\n".join(lines)


@pytest.mark.parametrize("group", ["dependencies", "extras", "dev"])
def test_every_dependency_is_pinned(group: str) -> None:
    wanted = {
        "dependencies": PROJECT["dependencies"],
        "extras": [r for extra in PROJECT["optional-dependencies"].values() for r in extra],
        "dev": tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"],
    }[group]
    pinned = {
        line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()
    }

    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}  # type: ignore[index]

    assert names - pinned - {PROJECT["name"]} == set()


def test_the_compose_file_is_yaml_with_what_it_promises() -> None:
    import yaml

    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]

    assert {
        "api-server",
        "scheduler",
        "dag-processor",
        "triggerer",
        "postgres",
        "redis",
        "livy",
    } <= set(services)
    assert sum("worker" in name and not name.startswith("spark") for name in services) == 2
