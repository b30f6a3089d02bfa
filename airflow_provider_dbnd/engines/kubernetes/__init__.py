"""Tasks in Kubernetes pods."""

from airflow_provider_dbnd.engines.kubernetes.operator import KubernetesTask

__all__ = ["KubernetesTask"]
