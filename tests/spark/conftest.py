"""One Spark session for all tests here. They need pyspark with its JVM part, and no Airflow.

``python -m pytest tests/spark`` runs them in an environment of pyspark 3.5 or 4, pytest and this
package's own requirements without Airflow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")

SETTINGS = {
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "3",
    # Not the machine's, and not UTC: no result may depend on it.
    "spark.sql.session.timeZone": "America/New_York",
}


@pytest.fixture(scope="session")
def whole_pyspark() -> None:
    """Skip where there is no Spark to run."""
    pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed")
    if not (Path(pyspark.__file__).parent / "jars").is_dir():
        pytest.skip("pyspark is installed without its JVM part")


@pytest.fixture(scope="session")
def spark(whole_pyspark: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session of this process, with the libraries of S3 where a variable names their folder."""
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    builder = SparkSession.builder.master("local[2]")
    builder = builder.config("spark.sql.warehouse.dir", str(folder / "warehouse"))
    builder = builder.config("spark.local.dir", str(folder / "local"))
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    if jars := os.environ.get("DBND_TEST_SPARK_JARS"):
        builder = builder.config("spark.driver.extraClassPath", f"{jars}/*")
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
