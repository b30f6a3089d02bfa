"""The ways to hand a frame from one task to the next: each writes it, and reads and uses it.

``produce`` returns what travels between the tasks, ``consume`` gets it. Preparations that a running
task has behind it (imports, clients) are made in ``__init__``.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from typing import Any, Protocol

import pandas as pd

from benchmarks import frames


class Way(Protocol):
    """One way to hand over a frame."""

    def __init__(self, root: str) -> None: ...

    def produce(self, frame: pd.DataFrame) -> Any:
        """Store *frame* and return what the next task is given."""

    def consume(self, given: Any) -> Any:
        """Load it and use all of it."""


class Ours:
    """``core.execute`` on both sides: digests, verification and manifests included."""

    def __init__(self, root: str) -> None:
        import airflow_provider_dbnd.core.formats.arrow
        import airflow_provider_dbnd.core.formats.parquet  # noqa: F401
        from airflow_provider_dbnd.core.storage.store import ArtifactStore

        self.store = ArtifactStore(root)

    def produce(self, frame: pd.DataFrame) -> Any:
        def producer() -> pd.DataFrame:
            return frame

        return self.run(producer, {})

    def consume(self, given: Any, columns: list[str] | None = None) -> Any:
        from airflow_provider_dbnd import parameter

        def consumer(frame: pd.DataFrame) -> dict[str, Any]:
            return frames.touch(frame)

        declared = {"frame": parameter(load_options={"columns": columns})} if columns else {}
        return self.run(consumer, {"frame": given}, declared)

    def read(self, given: Any, columns: list[str]) -> pd.DataFrame:
        """Load some columns as a parameter is loaded: verified, without the task around it."""
        from airflow_provider_dbnd import parameter
        from airflow_provider_dbnd.core.values import Decoder

        declaration = parameter(load_options={"columns": columns})
        decoder = Decoder(store=self.store, scratch=tempfile.gettempdir())
        frame: pd.DataFrame = decoder.load(given, "frame", pd.DataFrame, declaration, "")
        return frame

    def run(self, function: Any, arguments: dict[str, Any], declared: Any = None) -> Any:
        """Execute *function* as a task and return what its result travels as."""
        from airflow_provider_dbnd.core.definition import define
        from airflow_provider_dbnd.core.execute import TaskSpec, execute
        from airflow_provider_dbnd.core.manifest import Identity
        from airflow_provider_dbnd.core.resolution import Value

        identity = Identity(pipeline="bench", run_id=uuid.uuid4().hex, task_id=function.__name__)
        values = {k: Value(value=v, source="call", base="") for k, v in arguments.items()}
        spec = TaskSpec(identity=identity, arguments=values, store=self.store)
        return execute(spec, define("task", function, declared or {}, {})).outputs.get("result")


class XCom:
    """TaskFlow with the object-storage XCom backend, called as the task runner does."""

    def __init__(self, root: str) -> None:
        os.environ["AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH"] = (
            root if "://" in root else f"file://{root}"
        )
        os.environ["AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD"] = "0"
        os.makedirs(root, exist_ok=True)
        from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend

        self.backend = XComObjectStorageBackend

    def produce(self, frame: pd.DataFrame) -> Any:
        return self.backend.serialize_value(
            frame, key="return_value", task_id="producer", dag_id="bench", run_id="run"
        )

    def consume(self, given: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComResult

        return frames.touch(
            self.backend.deserialize_value(XComResult(key="return_value", value=given))
        )


class Parquet:
    """``to_parquet`` and ``read_parquet`` by hand."""

    def __init__(self, root: str) -> None:
        import pyarrow.parquet  # noqa: F401

        self.root = root
        if "://" not in root:
            os.makedirs(root, exist_ok=True)

    def produce(self, frame: pd.DataFrame) -> Any:
        path = f"{self.root}/{uuid.uuid4().hex}.parquet"
        frame.to_parquet(path)
        return path

    def consume(self, given: Any) -> Any:
        return frames.touch(pd.read_parquet(given))


class Arrow:
    """An Arrow IPC file and a memory map by hand: nothing is verified or recorded."""

    def __init__(self, root: str) -> None:
        import pyarrow.ipc  # noqa: F401

        self.root = root
        os.makedirs(root, exist_ok=True)

    def produce(self, frame: pd.DataFrame) -> Any:
        import pyarrow as pa

        path = f"{self.root}/{uuid.uuid4().hex}.arrow"
        table = pa.Table.from_pandas(frame)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        return path

    def consume(self, given: Any) -> Any:
        import pyarrow as pa

        table = pa.ipc.open_file(pa.memory_map(given)).read_all()
        return frames.touch(table.to_pandas(split_blocks=True))


LOCAL: dict[str, type[Way]] = {"ours": Ours, "xcom": XCom, "parquet": Parquet, "arrow": Arrow}
