"""Kubernetes models of plain tables, as a pod's YAML has them: dbnd.toml cannot write objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ConfigurationError

#: The fields a model of the client cannot be made without, where a layer of a pod may lack them.
_OPTIONAL: Mapping[str, Mapping[str, Any]] = {"V1PodSpec": {"containers": []}}

_LIST = re.compile(r"list\[(.+)]")
_TABLE = re.compile(r"dict[(\[]str, ?(.+)[)\]]")
_PLAIN = ("bool", "int", "float", "object", "datetime")


def build(kind: str, value: Any, where: str) -> Any:
    """Return *value* as the type that the kubernetes client calls *kind*: ``list[V1Volume]``.

    Keys are spelled as in YAML (``hostPath``) or as in Python (``host_path``). Models pass as they are.

    :param where: what is built, for messages.
    """
    if value is None or kind in _PLAIN:
        return value
    if kind == "str":
        return text(value, where)
    if match := _LIST.fullmatch(kind):
        if not isinstance(value, (list, tuple)):
            raise ConfigurationError(f"{where}: expected a list, got {value!r}.")
        return [build(match[1], each, f"{where}[{i}]") for i, each in enumerate(value)]
    if match := _TABLE.fullmatch(kind):
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{where}: expected a table, got {value!r}.")
        return {str(k): build(match[1], each, f"{where}.{k}") for k, each in value.items()}
    return _model(kind, value, where)


def text(value: Any, where: str) -> str:
    """Return a scalar of TOML as Kubernetes wants it: ``cpu = 1`` is the quantity "1"."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    raise ConfigurationError(f"{where}: expected text, got {value!r}.")


def _model(kind: str, value: Any, where: str) -> Any:
    from kubernetes.client import models

    class_ = getattr(models, kind)
    if isinstance(value, class_):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: expected a table or a {kind}, got {value!r}.")
    names = {spelled: name for name, spelled in class_.attribute_map.items()}
    names |= {name: name for name in class_.attribute_map}
    fields: dict[str, Any] = dict(_OPTIONAL.get(kind, {}))
    for key, each in value.items():
        if key not in names:
            raise ConfigurationError(
                f"{where}: unknown key {key!r}{did_you_mean(key, class_.attribute_map)}"
            )
        name = names[key]
        fields[name] = build(class_.openapi_types[name], each, f"{where}.{name}")
    try:
        return class_(**fields)
    except ValueError as exc:
        raise ConfigurationError(f"{where}: {exc}") from exc
