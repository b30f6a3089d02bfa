"""Clean-up: which runs, records and objects of a store are live, and taking away what is not.

One rule, which reuse shares. A run is live while the policy keeps it, a tag is on one of its versions,
a job of it is under way, or it is younger than the grace period. The manifests of a live run are live,
and so is the one whose result they reused. An object is live while a live manifest, a live spec, a
job under way or a tag that holds names it. What reuse could hand out is live, or its record goes first.

The order of deletion is: reuse records, manifests and specs of dead runs, then objects. Killed at any
point, what is left is a consistent store with less garbage, and the next clean-up finds the rest. See
:mod:`~airflow_provider_dbnd.core.storage.claims` for why it is safe beside running tasks.
"""

from __future__ import annotations

from airflow_provider_dbnd.core.gc.plan import Plan, made_plan
from airflow_provider_dbnd.core.gc.policy import Policy
from airflow_provider_dbnd.core.gc.report import Report
from airflow_provider_dbnd.core.gc.sweep import collect

__all__ = ["Plan", "Policy", "Report", "collect", "made_plan"]
