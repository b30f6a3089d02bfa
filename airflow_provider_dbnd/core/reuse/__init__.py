"""Reuse: a stored result stands for a run when code, inputs and parameters are the same by content."""

from __future__ import annotations

from airflow_provider_dbnd.core.reuse.attempt import Foreseen, duration, foresee, run_or_reuse
from airflow_provider_dbnd.core.reuse.policy import Reuse

__all__ = ["Foreseen", "Reuse", "duration", "foresee", "run_or_reuse"]
