"""Databricks' Jobs API on loopback, as far as the official hook calls it; runs really run.

The requests are what `DatabricksHook` of provider 7.23 sends, recorded by pointing its connection at
this server; the answers have the fields that Databricks documents for Jobs API 2.2. A run's Python
file is executed by this Python, in a process of its own. Not real: there is no cluster and no Spark.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.engines.amazon import Amazon

TOKEN = "dapi-of-the-tests"

_FAULTS = {
    401: {"error_code": "UNAUTHENTICATED", "message": "Invalid access token."},
    404: {"error_code": "ENDPOINT_NOT_FOUND", "message": "No API found"},
}


class Databricks(Amazon):
    """A workspace whose runs read a bucket of moto. ``calls`` has what the hook asked for."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(folder, environment)
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.runs: dict[int, dict[str, Any]] = {}
        self.tokens: dict[str, int] = {}
        self._ids = itertools.count(1001)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def connection(self, **changed: Any) -> str:
        """Return the connection of Airflow that leads here."""
        return json.dumps(
            {
                "conn_type": "databricks",
                "host": "127.0.0.1",
                "schema": "http",
                "port": self.port,
                "password": TOKEN,
                **changed,
            }
        )

    def answer(self, method: str, path: str, given: dict[str, Any]) -> tuple[int, Any]:
        """Answer one call."""
        self.calls.append((method, path, given))
        if (method, path) == ("POST", "/api/2.2/jobs/runs/submit"):
            return 200, {"run_id": self._submit(given)}
        run = self.runs.get(int(given.get("run_id", 0)))
        if run is None:
            message = f"Run {given.get('run_id')} does not exist."
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": message}
        if (method, path) == ("GET", "/api/2.2/jobs/runs/get"):
            return 200, run["told"]
        if (method, path) == ("GET", "/api/2.2/jobs/runs/get-output"):
            return 200, {"metadata": run["told"], "error": run["error"], "error_trace": ""}
        if (method, path) == ("POST", "/api/2.2/jobs/runs/cancel"):
            self.cancel(str(given["run_id"]))
            return 200, {}
        return 404, _FAULTS[404]

    def cancel(self, job: str) -> None:
        self._end(int(job), "CANCELED", "Run cancelled.")
        self.kill(job)

    def lose(self, job: str) -> None:
        del self.runs[int(job)]
        self.kill(job)

    def stop(self) -> None:
        super().stop()
        self._server.shutdown()

    def _submit(self, given: dict[str, Any]) -> int:
        token = given.get("idempotency_token", "")
        if token in self.tokens:
            return self.tokens[token]
        (task,) = given["tasks"]
        run = self.tokens[token] = next(self._ids)
        key = {"run_id": run + 500000, "task_key": task["task_key"], "attempt_number": 0}
        told = {
            "job_id": run + 900000,
            "run_id": run,
            "run_name": given["run_name"],
            "run_page_url": f"http://127.0.0.1:{self.port}/?o=1#job/{run + 900000}/run/{run}",
            "run_type": "SUBMIT_RUN",
            "state": {"life_cycle_state": "RUNNING", "state_message": "In run"},
            "tasks": [{**key, "state": {"life_cycle_state": "RUNNING"}}],
        }
        self.runs[run] = {"told": told, "error": ""}
        self.runs[run + 500000] = self.runs[run]
        program = task["spark_python_task"]

        def done(code: int, output: str) -> None:
            if run in self.runs and told["state"]["life_cycle_state"] == "RUNNING":
                self.runs[run]["error"] = output[-200:] if code else ""
                reason = "Workload failed, see run output for details" if code else ""
                self._end(run, "FAILED" if code else "SUCCESS", reason)

        self.run(str(run), program["python_file"], program["parameters"], (), done)
        return run

    def _end(self, run: int, result: str, message: str) -> None:
        state = {
            "life_cycle_state": "TERMINATED",
            "result_state": result,
            "state_message": message,
        }
        told = self.runs[run]["told"]
        told["tasks"][0]["state"] = state
        told["state"] = state


def _handler(workspace: Databricks) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            # The hook asks in the query where it blocks, and in a body where a trigger uses it.
            self._answer("GET", url.path, {**self._body(), **dict(parse_qsl(url.query))})

        def do_POST(self) -> None:
            self._answer("POST", self.path, self._body())

        def _body(self) -> dict[str, Any]:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return dict(json.loads(data)) if data else {}

        def _answer(self, method: str, path: str, given: dict[str, Any]) -> None:
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            status, told = workspace.answer(method, path, given) if known else (401, _FAULTS[401])
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

    return Handler
