"""Say where the mart of the last ``scripts/run`` is, show its first rows, and how to see it in the UI."""

from __future__ import annotations

import os
import sys

import pandas as pd

from airflow_provider_dbnd.core.past.history import last_attempts, newest_run
from airflow_provider_dbnd.hooks.settings import airflow_settings, artifact_store

SHOWN = 5


def main() -> int:
    store = artifact_store(airflow_settings(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]))
    run_id = newest_run(store, "flights_mart")
    (manifest,) = last_attempts(store, "flights_mart", run_id, "build_mart")
    print(f"Run {run_id}: {manifest.status}\n\nThe mart:")
    for name, uri in manifest.published.items():
        print(f"  {name:8} {uri}")
    carriers = pd.read_parquet(manifest.published["carrier"].removeprefix("file://"))
    print(f"\nDelays by carrier, first {SHOWN} of {len(carriers)} rows:")
    print(carriers.head(SHOWN).to_string(index=False, float_format="{:.2f}".format))
    print('\nA second day: scripts/run -c \'{"day": "2013-01-02"}\'')
    print("The UI: scripts/ui")
    return 0


if __name__ == "__main__":
    sys.exit(main())
