"""The sensor behind ``@sensor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_provider_dbnd.operators.task import DbndOperatorMixin


class DbndSensor(DbndOperatorMixin, DecoratedOperator, BaseSensorOperator):
    """One call of a ``@sensor`` function: satisfied by any result but None and False."""

    custom_operator_name = "@task.dbnd_sensor"
    template_fields: Sequence[str] = ("op_args", "op_kwargs", "parameters")
    template_fields_renderers = {"op_args": "py", "op_kwargs": "py", "parameters": "json"}
    ui_color = "#e6f1f2"

    def __init__(self, *, mode: str = "reschedule", **kwargs: Any) -> None:
        self.parameters = None
        super().__init__(mode=mode, **kwargs)

    def poke(self, context: Any) -> PokeReturnValue:
        """Call the function once."""
        result = self.push_outputs(context, self.run_function(context))
        return PokeReturnValue(
            is_done=result is not None and result is not False, xcom_value=result
        )

    def execute(self, context: Any) -> Any:
        """Poke until satisfied, by Airflow's own loop."""
        return BaseSensorOperator.execute(self, context)
