"""The code fingerprint of a task: equal when its function, and all that it reaches, is equal."""

from __future__ import annotations

from airflow_provider_dbnd.core.code.fingerprint import CodeFingerprint, fingerprint

__all__ = ["CodeFingerprint", "fingerprint"]
