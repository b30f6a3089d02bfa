"""Options of tasks: known by name without Airflow, so that a slip fails in ``dbnd run`` as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_dbnd.core.definition import INHERITED
from airflow_provider_dbnd.core.suggestions import closest
from airflow_provider_dbnd.exceptions import SignatureError

#: Arguments of Airflow's operators and sensors; a test compares them with the installed Airflow.
OPERATOR_OPTIONS = frozenset(
    [
        "allow_nested_operators",
        "dag",
        "default_args",
        "depends_on_past",
        "do_xcom_push",
        "doc",
        "doc_json",
        "doc_md",
        "doc_rst",
        "doc_yaml",
        "email",
        "email_on_failure",
        "email_on_retry",
        "end_date",
        "execution_timeout",
        "executor",
        "executor_config",
        "ignore_first_depends_on_past",
        "inlets",
        "logger_name",
        "map_index_template",
        "max_active_tis_per_dag",
        "max_active_tis_per_dagrun",
        "max_retry_delay",
        "multiple_outputs",
        "on_execute_callback",
        "on_failure_callback",
        "on_retry_callback",
        "on_skipped_callback",
        "on_success_callback",
        "outlets",
        "owner",
        "params",
        "pool",
        "pool_slots",
        "post_execute",
        "pre_execute",
        "priority_weight",
        "queue",
        "render_template_as_native_obj",
        "resources",
        "retries",
        "retry_delay",
        "retry_exponential_backoff",
        "retry_policy",
        "run_as_user",
        "sla",
        "start_date",
        "task_display_name",
        "task_group",
        "task_id",
        "trigger_rule",
        "wait_for_downstream",
        "wait_for_past_depends_before_skipping",
        "weight_rule",
        "exponential_backoff",
        "max_wait",
        "mode",
        "never_fail",
        "poke_interval",
        "silent_fail",
        "soft_fail",
        "timeout",
    ]
)
#: Arguments of engines' operators that look like one of them.
_ENGINES = {"poll_interval"}
_KNOWN = OPERATOR_OPTIONS | {*INHERITED, "result"}


def check_spelling(task_id: str, options: Mapping[str, Any]) -> None:
    """Raise SignatureError for an option that looks like a misspelt argument of an operator.

    Others may be an engine's, or of a newer Airflow: that is for the operator to say.
    """
    for name, value in options.items():
        # A table is an engine's.
        if name in _KNOWN | _ENGINES or isinstance(value, Mapping):
            continue
        if (close := closest(name, _KNOWN, cutoff=0.8)) is not None:
            raise SignatureError(
                f"task {task_id!r} has an unknown option {name!r}; did you mean {close!r}? Options in "
                f"@task and [tasks.{task_id}] of dbnd.toml are arguments of Airflow's operator."
            )
