"""Writing and reading frames as tasks do, without the tasks."""

from __future__ import annotations

import tempfile
from typing import Any

from airflow_provider_dbnd.core.parameters import Output, Parameter
from airflow_provider_dbnd.core.scratch import process_folder
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.core.values import Decoder, Encoder


def write(store: ArtifactStore, value: Any, format: str | None = None, **options: Any) -> Any:
    """Store *value* as a task's output; return the reference."""
    encoder = Encoder(store=store, pipeline="p", task_id="t")
    return encoder.encode(value, "result", Output(format=format)(save_options=options))


def read(store: ArtifactStore, reference: Any, type_: Any, base: str = "/", **options: Any) -> Any:
    """Load a reference, or a URI, as a task's parameter."""
    return decoder(store).load(reference, "x", type_, Parameter()(load_options=options), base)


def decoder(store: ArtifactStore) -> Decoder:
    """Return what loads the arguments of one task."""
    return Decoder(store=store, scratch=tempfile.mkdtemp(dir=process_folder()))
