"""A process that is the driver of a Spark application: its session, and the project's code on executors.

The session starts before the task's function does, so a cluster that cannot be reached is an error of
its own, and Python functions that run on executors find their modules there: the archives that
travelled with the task are added to the application.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_dbnd.core.scratch import process_folder
from airflow_provider_dbnd.core.spark.session import session
from airflow_provider_dbnd.exceptions import DbndError, EngineError

#: Set in Python processes that spark-submit starts, by whatever service.
_VARIABLE = "PYSPARK_GATEWAY_PORT"

_LINES = 3

log = logging.getLogger("airflow_provider_dbnd")


def in_driver() -> bool:
    """Tell whether this process is the driver of an application that spark-submit started."""
    return _VARIABLE in os.environ


def start_application(archives: Sequence[str], folder: str | None, module: str | None) -> None:
    """Start the application, and give its executors the code that this process runs on.

    :param archives: local paths of the zips that travelled here, of code that is only Python.
    :param folder: the folder of the task's file below the project's, where they are not one: modules
        beside the file are imported by their bare names.
    :param module: name of the task's own module, if it travelled. Its functions are sent as they are,
        since importing it needs this package with all its libraries, which executors may not have.
    """
    _end_with(os.getppid())
    beside = [_zipped(folder, archives[-1])] if folder else []
    with _starting():
        context = session().sparkContext
        log.info("Spark application %s on %s", context.applicationId, context.master)
        # Here the modules come from the folders they were unpacked to, with data files beside them.
        path = list(sys.path)
        for archive in (*archives, *beside):
            context.addPyFile(archive)
        sys.path[:] = path
    if module is not None:
        _send_by_value(module)


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Say that it was the start that failed. Spark hands out a context that has given up by then."""
    try:
        yield
        error = None
    except (DbndError, ImportError):
        raise
    except Exception as exc:  # noqa: BLE001 - told below
        error = exc
    if _has_given_up():
        raise EngineError(
            f"Spark did not start: the master {_master()} does not answer, or it ended the "
            "application. Check its address and that it is up, and look at the log above"
        ) from error
    if error is not None:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise EngineError(
            f"Spark did not start on {_master()}: {type(error).__name__}: "
            f"{' '.join(lines[:_LINES])}. Look at the log above"
        ) from error


def _has_given_up() -> bool:
    from pyspark import SparkContext

    context = SparkContext._active_spark_context
    return context is not None and bool(context._jsc.sc().isStopped())


def _master() -> str:
    from pyspark import SparkConf

    return str(SparkConf().get("spark.master", "an unknown master"))


def _zipped(folder: str, beside: str) -> str:
    """Return a zip of *folder* by itself, named after the archive *beside* that holds all."""
    name = f"{Path(beside).stem}-{Path(folder).name}.zip"
    target = os.path.join(process_folder(), name)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in _files(Path(folder)):
            zipped.write(path, path.relative_to(folder))
    return target


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _send_by_value(module: str) -> None:
    from pyspark import cloudpickle

    pickler: Any = cloudpickle
    pickler.register_pickle_by_value(sys.modules[module])


def _end_with(parent: int, ended: Callable[[int], Any] = os._exit) -> None:
    """End this process when the JVM that started it is gone: a killed job leaves no driver behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        log.error("the process that started this one is gone: it was killed")
        ended(1)

    threading.Thread(target=watch, name="dbnd-parent", daemon=True).start()
