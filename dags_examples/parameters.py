"""Every kind of parameter, from the signature: checked, and printed with its source.

You will see values from defaults, ``dbnd.toml`` beside this file, the environment and flags; and a
wrong one refused with what was expected. In Airflow the same fields are the form of "Trigger".

    dbnd run dags_examples/parameters.py --set season=WINTER --set 'grid={"width": 5}'
    dbnd show dags_examples/parameters.py --env prod
    DBND__FORECAST__ALPHA=7 dbnd run dags_examples/parameters.py
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from airflow_provider_dbnd import LOGICAL_DATE, parameter, pipeline, task


class Season(Enum):
    """Set by name or by value."""

    SUMMER = "s"
    WINTER = "w"


@dataclass(frozen=True)
class Grid:
    """A dataclass; its fields come as JSON, or as a table in ``dbnd.toml``."""

    width: int = 3
    height: int = 2


class Limits(BaseModel, frozen=True):
    """A pydantic model brings rules of its own."""

    low: float = Field(default=0.0, ge=0)
    high: float = Field(default=1.0, le=1)


@task
def plan(
    day: date, horizon: timedelta, season: Season, columns: list[str], note: str | None
) -> str:
    until = day + horizon
    return f"{', '.join(columns)} from {day} to {until}, {season.name.lower()}, note {note}"


@task(token=parameter(hidden=True))
def draw(grid: Grid, limits: Limits, alpha: float, method: str, token: str) -> str:
    look = f"{grid.width}x{grid.height} from {limits.low:g} to {limits.high:g}"
    return f"{look}, {method}, alpha {alpha:g}, token of {len(token)}"


@pipeline
def forecast(
    *,
    alpha: Annotated[float, parameter(ge=0, le=1, description="smoothing: 0 none, 1 full")] = 0.1,
    method: Annotated[str, parameter(choices=("mean", "median"))] = "mean",
    season: Season = Season.SUMMER,
    horizon: timedelta = timedelta(days=2),
    columns: list[Literal["temp", "humid", "wind"]] = ["temp", "humid"],  # noqa: B006
    grid: Grid = Grid(),
    limits: Limits = Limits(),  # noqa: B008
    note: str | None = None,
    token: Annotated[str, parameter(hidden=True)] = "",
    day: date = LOGICAL_DATE,
) -> tuple[str, str]:
    outlook = plan(day, horizon, season, columns, note)
    return outlook, draw(grid, limits, alpha, method, token)


dag = forecast.as_dag(schedule=None, tags=["dbnd"])
