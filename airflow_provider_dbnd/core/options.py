"""Options of tasks: known by name without Airflow, and of the types that runs need."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_dbnd.core.conversion import convert
from airflow_provider_dbnd.core.definition import INHERITED, Definition
from airflow_provider_dbnd.core.parameters import Parameter
from airflow_provider_dbnd.core.settings import Settings
from airflow_provider_dbnd.core.suggestions import closest
from airflow_provider_dbnd.exceptions import ConfigurationError, SignatureError

_DURATIONS = ("execution_timeout", "retry_delay", "max_retry_delay")
_OF_SENSORS = ("poke_interval", "timeout")

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
_KNOWN = OPERATOR_OPTIONS | {*INHERITED, "result"}
#: With arguments of engines' operators that look like one of them.
_TAKEN = _KNOWN | {"poll_interval"}


def configured(definition: Definition, task_id: str, settings: Settings) -> Definition:
    """Lay ``[tasks.ID]`` of dbnd.toml over the options in code, check both and convert them."""
    table = settings.tasks.get(task_id, {})
    definition = definition.with_options(**table)
    check_spelling(task_id, definition.options)
    durations = (*_DURATIONS, *(_OF_SENSORS if definition.kind == "sensor" else ()))
    types: Mapping[str, Any] = {"retries": int, **dict.fromkeys(durations, dt.timedelta)}

    def typed(name: str, value: Any) -> Any:
        if value is None or name not in types:
            return value
        where = f"[tasks.{task_id}] of {settings.file}" if name in table else "the code"
        return _converted(task_id, name, value, types[name], where)

    options = {name: typed(name, value) for name, value in definition.options.items()}
    return replace(definition, options=options)


def check_spelling(task_id: str, options: Mapping[str, Any]) -> None:
    """Raise SignatureError for an option that looks like a misspelt argument of an operator.

    Others may be an engine's, or of a newer Airflow: that is for the operator to say.
    """
    for name, value in options.items():
        # A table is an engine's.
        if name in _TAKEN or isinstance(value, Mapping):
            continue
        if (close := closest(name, _KNOWN, cutoff=0.8)) is not None:
            raise SignatureError(
                f"task {task_id!r} has an unknown option {name!r}; did you mean {close!r}? Options in "
                f"@task and [tasks.{task_id}] of dbnd.toml are arguments of Airflow's operator."
            )


def _converted(task_id: str, name: str, value: Any, type_: Any, where: str) -> Any:
    try:
        return convert(value, type_, Parameter(ge=type_()))
    except ValueError as exc:
        wanted = (
            "a whole number, 0 or more"
            if type_ is int
            else "a duration, such as '90s', '1h30m' or a number of seconds"
        )
        raise ConfigurationError(
            f"option {name!r} of task {task_id!r}: expected {wanted}, got {value!r} (from {where})."
        ) from exc
