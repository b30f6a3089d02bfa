"""Every kind of parameter, from the signature: checked, in the trigger form, printed with its source.

You will see values from defaults, ``dbnd.toml`` beside this file, the environment and flags; and a wrong
one refused with what was expected. In Airflow the same fields are the form of "Trigger".

    dbnd run dags_examples/parameters.py --set season=WINTER --set horizon=36h --set 'grid={"width": 5}'
    dbnd run dags_examples/parameters.py --env prod
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
def plan(day: date, horizon: timedelta, season: Season, columns: list[str]) -> str:
    return f"{', '.join(columns)} from {day} to {day + horizon}, {season.name.lower()}"


@task
def draw(grid: Grid, limits: Limits, alpha: float, method: str, note: str | None, token: Annotated[str, parameter(hidden=True)]) -> str:
    return f"{grid.width}x{grid.height} {method} {limits.low:g}..{limits.high:g} alpha {alpha:g} {note or '-'} {len(token)}"


@pipeline
def forecast(
    alpha: Annotated[float, parameter(ge=0, le=1, description="smoothing: 0 none, 1 full")] = 0.1,
    method: Literal["mean", "median"] = "mean",
    season: Season = Season.SUMMER,
    horizon: timedelta = timedelta(days=2),
    columns: Annotated[list[str], parameter(min_length=1)] = ["temp", "humid"],  # noqa: B006
    grid: Grid = Grid(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    note: str | None = None,
    token: Annotated[str, parameter(hidden=True)] = "secret",
    day: date = LOGICAL_DATE,
) -> tuple[str, str]:
    return plan(day, horizon, season, columns), draw(grid, limits, alpha, method, note, token)


dag = forecast.as_dag(schedule=None, tags=["dbnd"])
