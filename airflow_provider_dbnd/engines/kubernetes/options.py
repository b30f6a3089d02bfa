"""The engine's options as KubernetesPodOperator takes them, from tables or from objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.engines.kubernetes.models import build, text
from airflow_provider_dbnd.exceptions import ConfigurationError

#: The device that ``gpu = 1`` asks for.
GPU = "nvidia.com/gpu"

_MODELS: Mapping[str, str] = {
    "affinity": "V1Affinity",
    "container_resources": "V1ResourceRequirements",
    "container_security_context": "V1SecurityContext",
    "dns_config": "V1PodDNSConfig",
    "env_from": "list[V1EnvFromSource]",
    "full_pod_spec": "V1Pod",
    "host_aliases": "list[V1HostAlias]",
    "init_containers": "list[V1Container]",
    "pod_runtime_info_envs": "list[V1EnvVar]",
    "ports": "list[V1ContainerPort]",
    "security_context": "V1PodSecurityContext",
    "tolerations": "list[V1Toleration]",
    "volume_mounts": "list[V1VolumeMount]",
    "volumes": "list[V1Volume]",
}


def operator_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return *options* with objects where the operator wants objects."""
    ready = dict(options)
    for name, kind in _MODELS.items():
        if ready.get(name) is not None:
            ready[name] = build(kind, ready[name], name)
    for name, convert in _OTHERS.items():
        if ready.get(name) is not None:
            ready[name] = convert(ready[name])
    return ready


def pod_overrides(given: Any, container: str) -> list[Any]:
    """Return the layers of ``pod_override``, the one that wins last.

    :param container: the name of the first container where a layer leaves it out.
    """
    layers = given if isinstance(given, (list, tuple)) else [given]
    return [
        build("V1Pod", _named(layer, container), f"pod_override[{i}]")
        for i, layer in enumerate(layers)
        if layer is not None
    ]


def with_gpu(resources: Any, gpu: int | Mapping[str, Any] | None) -> Any:
    """Return *resources* with the devices of option ``gpu`` among the limits."""
    if not gpu:
        return resources
    from kubernetes.client import models

    devices = gpu if isinstance(gpu, Mapping) else {GPU: gpu}
    resources = resources or models.V1ResourceRequirements()
    limits = dict(resources.limits or {})
    for name, count in devices.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ConfigurationError(
                f"gpu: expected a number of devices, or a table as "
                f'{{"amd.com/gpu" = 1}}, got {gpu!r}.'
            )
        if limits.get(name, str(count)) != str(count):
            raise ConfigurationError(
                f"gpu asks for {count} of {name}, and container_resources for {limits[name]}. "
                "Leave one out."
            )
        limits[name] = str(count)
    return models.V1ResourceRequirements(
        limits=limits, requests=resources.requests, claims=resources.claims
    )


def _named(layer: Any, container: str) -> Any:
    if not isinstance(layer, Mapping) or not isinstance(layer.get("spec"), Mapping):
        return layer
    containers = layer["spec"].get("containers")
    if not isinstance(containers, (list, tuple)) or not containers:
        return layer
    first, *others = containers
    if not isinstance(first, Mapping):
        return layer
    containers = [{"name": container, **first}, *others]
    return {**layer, "spec": {**layer["spec"], "containers": containers}}


def _env_vars(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return build("list[V1EnvVar]", given, "env_vars")
    if not any(isinstance(value, Mapping) for value in given.values()):
        return {name: text(value, f"env_vars.{name}") for name, value in given.items()}
    return [
        build(
            "V1EnvVar",
            {"name": name, **(value if isinstance(value, Mapping) else {"value": value})},
            f"env_vars.{name}",
        )
        for name, value in given.items()
    ]


def _image_pull_secrets(given: Any) -> Any:
    if isinstance(given, str):
        return given
    named = [{"name": each} if isinstance(each, str) else each for each in given]
    return build("list[V1LocalObjectReference]", named, "image_pull_secrets")


def _pod_template_dict(given: Any) -> Any:
    from kubernetes.client import ApiClient, Configuration

    pod = build("V1Pod", given, "pod_template_dict")
    # What reads it knows the keys of YAML only.
    return ApiClient(configuration=Configuration()).sanitize_for_serialization(pod)


_SECRET = {"type": "deploy_type", "target": "deploy_target"}
_SECRET |= {name: name for name in ("deploy_type", "deploy_target", "secret", "key", "items")}


def _secrets(given: Any) -> list[Any]:
    from airflow.providers.cncf.kubernetes.secret import Secret

    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ConfigurationError(f"secrets: expected a list, got {given!r}.")
    return [
        Secret(**_secret(each, f"secrets[{i}]"))  # type: ignore[no-untyped-call]
        if isinstance(each, Mapping)
        else each
        for i, each in enumerate(given)
    ]


def _secret(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key in table:
        if key not in _SECRET:
            known = ("type", "target", "secret", "key", "items")
            raise ConfigurationError(f"{where}: unknown key {key!r}{did_you_mean(key, known)}")
    fields: dict[str, Any] = {"deploy_target": None}
    fields |= {_SECRET[key]: value for key, value in table.items()}
    if fields.get("deploy_type") not in ("env", "volume") or not fields.get("secret"):
        raise ConfigurationError(
            f'{where}: expected type = "env" or "volume" and secret = NAME, got {dict(table)!r}.'
        )
    if fields["deploy_target"] is None and (fields["deploy_type"] == "volume" or "key" in fields):
        raise ConfigurationError(
            f"{where}: target is missing: the variable, or the folder of a volume."
        )
    fields["items"] = build("list[V1KeyToPath]", fields.get("items"), f"{where}.items")
    return fields


_OTHERS: Mapping[str, Callable[[Any], Any]] = {
    "env_vars": _env_vars,
    "image_pull_secrets": _image_pull_secrets,
    "pod_template_dict": _pod_template_dict,
    "secrets": _secrets,
}
