"""Run ``airflow standalone``, say where it is, and stop all its processes when this one is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import FrameType

HOME = Path(os.environ["AIRFLOW_HOME"])
ADDRESS = f"http://127.0.0.1:{os.environ['AIRFLOW__API__PORT']}"
LOG = HOME / "standalone.log"


def answers() -> bool:
    try:
        with urllib.request.urlopen(f"{ADDRESS}/api/v2/monitor/health", timeout=2) as response:
            health = json.load(response)
    except (OSError, ValueError):
        return False
    return all(health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor"))


def stop(process: subprocess.Popen[bytes]) -> None:
    """Signal the whole group: standalone alone leaves its children running (Airflow 3.3)."""
    for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.2)


def interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    HOME.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, interrupted)
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            ["airflow", "standalone"],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        print(f"Starting Airflow (log: {LOG})", flush=True)
        while not answers():
            if process.poll() is not None:
                print(
                    f"Airflow stopped with exit code {process.returncode}; see {LOG}",
                    file=sys.stderr,
                )
                return 1
            time.sleep(0.5)
        passwords = json.loads((HOME / "simple_auth_manager_passwords.json.generated").read_text())
        for user, password in passwords.items():
            print(f"Open {ADDRESS}  user {user}  password {password}", flush=True)
        print("Ctrl-C stops it.", flush=True)
        return process.wait()
    except KeyboardInterrupt:
        print("Stopping", flush=True)
        return 0
    finally:
        stop(process)


if __name__ == "__main__":
    sys.exit(main())
