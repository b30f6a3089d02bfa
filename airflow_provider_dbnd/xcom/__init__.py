"""The XCom backend, under the short path that ``[core] xcom_backend`` names."""

from airflow_provider_dbnd.xcom.backend import ArtifactXComBackend

__all__ = ["ArtifactXComBackend"]
