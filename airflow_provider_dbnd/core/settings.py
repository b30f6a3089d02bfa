"""Project settings: ``dbnd.toml``, its environments, and what the environment overrides.

environment = "local"            # used when --env and DBND_ENVIRONMENT say nothing
store = ".dbnd/store"

[parameters]                     # of the run's root; [parameters.TASK] of one task
raw = "data/raw.csv"

[tasks.train]                    # operator options of one task
retries = 2
engine = "gpu_pods"              # where it runs: an engine below, or a type ("docker", ...)

[tasks.train.kubernetes]         # options of that type of engine, over the engine's own
labels = {team = "ml"}

[engines.gpu_pods]               # a type of engine with options
type = "kubernetes"
image = "team/train:1.4"

[bundle]                         # which files of the project travel with a task
exclude = ["notebooks"]

[gc]                             # which runs a clean-up keeps
keep_days = 30

[environments.prod]              # any of the above again, for one environment
store = "s3://bucket/dbnd"
engine = "pods"                  # for every task that names none
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ConfigurationError

FILE_NAME = "dbnd.toml"
LOCAL_STORE = ".dbnd/store"
STORE_VARIABLE = "DBND_STORE"
ENVIRONMENT_VARIABLE = "DBND_ENVIRONMENT"
FILE_VARIABLE = "DBND_CONFIG"

#: Options whose layers cannot be merged by key: the engine lays one over the other, in order.
LAYERED = frozenset({"pod_override"})

_TABLES = ("environments", "parameters", "tasks", "engines", "bundle", "gc", "storage_options")
_TEXTS = ("environment", "store", "engine")
_KEYS = frozenset((*_TEXTS, *_TABLES))
_ENVIRONMENT_KEYS = _KEYS - {"environment", "environments"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One table of parameter values: ``{"param": v, "task.param": v}`` and where it is written.

    :param has_null: whether None can be written there; where it cannot, the word ``none`` means it.
    """

    values: Mapping[str, Any]
    source: str
    base: str
    has_null: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a run needs to know besides its code. Relative paths in the code start from ``base``."""

    base: str
    store: str
    store_source: str
    environment: str | None = None
    file: str | None = None
    parameters: tuple[Layer, ...] = ()
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    engine: str | None = None
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bundle: Mapping[str, Any] = field(default_factory=dict)
    gc: Mapping[str, Any] = field(default_factory=dict)
    storage_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def load_settings(
    start: str | os.PathLike[str],
    *,
    environment: str | None = None,
    store: tuple[str, str] | None = None,
    file: str | os.PathLike[str] | None = None,
) -> Settings:
    """Read the settings that hold for code in folder *start*.

    :param environment: name of an ``[environments.x]`` table; else ``DBND_ENVIRONMENT``, else the
        file's own.
    :param store: (URL, source) used when neither ``DBND_STORE`` nor the file names a store.
    :param file: the settings file; else ``DBND_CONFIG``, else the nearest ``dbnd.toml`` in *start*
        or above it.
    """
    base = os.path.abspath(start)
    chosen = file or os.environ.get(FILE_VARIABLE)
    path = Path(chosen).absolute() if chosen else _nearest(Path(base))
    document = _read(path) if path else {}
    name = environment or os.environ.get(ENVIRONMENT_VARIABLE) or document.get("environment")
    tables = list(_tables(document, name, str(path) if path else None))
    folder = str(path.parent) if path else base
    url, source = _store(tables, folder, base, store)
    return Settings(
        base=base,
        store=url,
        store_source=source,
        environment=name,
        file=str(path) if path else None,
        parameters=tuple(
            Layer(values=_flat(table.get("parameters", {})), source=label, base=folder)
            for label, table in tables
        ),
        tasks=_merged(tables, "tasks"),
        engine=next((table["engine"] for _, table in tables if "engine" in table), None),
        engines=_merged(tables, "engines"),
        bundle=merged_options(*(table.get("bundle", {}) for _, table in reversed(tables))),
        gc=merged_options(*(table.get("gc", {}) for _, table in reversed(tables))),
        storage_options=_merged(tables, "storage_options"),
    )


def _nearest(folder: Path) -> Path | None:
    return next((p for f in (folder, *folder.parents) if (p := f / FILE_NAME).is_file()), None)


def _read(path: Path) -> dict[str, Any]:
    # Where a task runs that was sent there, nothing reads this file: the library may be missing.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(
            f"Cannot read settings file {path}: {exc.strerror}. It is named by "
            f"{FILE_VARIABLE} or is the nearest {FILE_NAME}."
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is not UTF-8 text: {exc}.") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{path} is not valid TOML: {exc}.") from exc
    _check(document, _KEYS, str(path))
    for name, table in document.get("environments", {}).items():
        _check(table, _ENVIRONMENT_KEYS, f"{path} [environments.{name}]")
    return document


def _check(table: Any, allowed: frozenset[str], where: str) -> None:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where}: expected a table, got {table!r}.")
    for key, value in table.items():
        if key not in allowed:
            raise ConfigurationError(f"{where}: unknown key {key!r}{did_you_mean(key, allowed)}")
        if key in _TABLES and not isinstance(value, dict):
            raise ConfigurationError(f"{where}: {key!r} must be a table ([{key}]), got {value!r}.")
        if key in _TEXTS and not isinstance(value, str):
            raise ConfigurationError(f"{where}: {key!r} must be text, got {value!r}.")


def _tables(
    document: dict[str, Any], name: str | None, path: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (label, table), the one that wins first: the environment, then the base."""
    environments = document.get("environments", {})
    if name is not None and name in environments:
        yield f"{path} [environments.{name}]", environments[name]
    elif name is not None:
        where = path or f"no {FILE_NAME} was found"
        raise ConfigurationError(
            f"Unknown environment {name!r} ({where}){did_you_mean(name, environments)}"
        )
    if path:
        yield path, document


def _store(
    tables: list[tuple[str, dict[str, Any]]],
    folder: str,
    base: str,
    default: tuple[str, str] | None,
) -> tuple[str, str]:
    if from_environment := os.environ.get(STORE_VARIABLE):
        return _absolute(from_environment, os.getcwd()), f"environment variable {STORE_VARIABLE}"
    for label, table in tables:
        if "store" in table:
            return _absolute(str(table["store"]), folder), label
    if default is not None:
        return _absolute(default[0], base), default[1]
    return _absolute(LOCAL_STORE, folder), "default"


def _absolute(url: str, folder: str) -> str:
    return url if "://" in url else os.path.abspath(os.path.join(folder, os.path.expanduser(url)))


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return dotted keys. A table is there as a whole too: it may be the value of a parameter."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat[f"{above}{name}"] = value
        if isinstance(value, dict):
            flat.update(_flat(value, f"{above}{name}."))
    return flat


def _merged(tables: list[tuple[str, dict[str, Any]]], key: str) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for _, table in reversed(tables):
        for name, options in table.get(key, {}).items():
            if not isinstance(options, dict):
                raise ConfigurationError(f"[{key}.{name}] must be a table, got {options!r}.")
            below = merged.get(name, {})
            if options.get("type", below.get("type")) != below.get("type"):
                below = {}  # another type of engine has other options
            merged[name] = merged_options(below, options)
    return merged


def merged_options(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge options, a later layer over an earlier one: tables key by key, lists one after the other.

    A value of another type replaces what was there. Of :data:`LAYERED` options every layer is kept.

    >>> merged_options({"conf": {"a": 1}, "jars": ["x"]}, {"conf": {"b": 2}, "jars": ["y"]})
    {'conf': {'a': 1, 'b': 2}, 'jars': ['x', 'y']}
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            below = merged.get(name)
            if name in LAYERED:
                merged[name] = [*_listed(below), *_listed(value)]
            elif isinstance(below, Mapping) and isinstance(value, Mapping):
                merged[name] = merged_options(below, value)
            elif isinstance(below, list) and isinstance(value, list):
                merged[name] = _appended(below, value)
            else:
                merged[name] = value
    return merged


def _appended(below: list[Any], value: list[Any]) -> list[Any]:
    # Objects of other libraries may fail to compare with what is not of their type.
    return [
        *below,
        *(each for each in value if not any(type(x) is type(each) and x == each for x in below)),
    ]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
