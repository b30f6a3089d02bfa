"""A program: print what Airflow stores of the DAGs in a file or folder, on any Airflow."""

import json
import sys

from airflow_provider_dbnd.cli.dags import parse

try:
    from airflow.serialization.serialized_objects import DagSerialization as Serialized
except ImportError:
    from airflow.serialization.serialized_objects import (  # type: ignore[no-redef,attr-defined,unused-ignore]
        SerializedDAG as Serialized,
    )

bag = parse(sys.argv[1])
assert not bag.import_errors, bag.import_errors
# Airflow compares sorted keys: the order of a DAG's own attributes follows the hash seed.
print(json.dumps([Serialized.to_dict(d) for _, d in sorted(bag.dags.items())], sort_keys=True))
