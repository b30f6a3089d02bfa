"""The topology of docker-compose.yaml as processes: PostgreSQL, Redis, S3, Airflow, two Celery workers.

The workers share a network and nothing else: each has a host name of its own and a root file system it
cannot write to, apart from a private tmpfs, mounted at the same path in both. So the path of a file that
one worker wrote exists for the other, too, and the file is not there, as on two machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ENGINES = Path(__file__).parents[1] / "engines"
DATABASE = "dbnd_celery"
BROKER = 5  # a Redis database of its own, emptied at the start
PORT = 18180
CONNECTION = "dbnd_s3"
WORKERS = {"worker-a": "a", "worker-b": "b"}
DAEMONS = ("api-server", "scheduler", "dag-processor", "triggerer")

# Arguments: host name, disk, command. Only then is a file a worker wrote out of the other one's reach.
OWN_DISK = """
set -eu
name=$1 disk=$2
shift 2
hostname "$name"
while read -r _ folder type _; do
    case $type in ext?|xfs|btrfs|overlay|tmpfs|9p|virtiofs|fuse*|nfs*) mount -o remount,bind,ro "$folder" ;; esac
done </proc/self/mounts
mount -t tmpfs -o size=4g "$name" "$disk"
[ ! -d /dev/shm ] || mount -t tmpfs "$name" /dev/shm
mkdir "$disk/airflow" "$disk/home" "$disk/tmp" "$disk/work"
cd "$disk/work"
exec "$@"
"""


class TopologyError(Exception):
    """A daemon did not start, or a run did not end; the message ends with the log."""


@dataclass(frozen=True, kw_only=True)
class Servers:
    """What the topology stands on, from the variables `.ci/services up` writes."""

    postgres: str
    redis: str
    s3: str
    key: str
    secret: str
    bin: Path

    @classmethod
    def from_environment(cls) -> Servers:
        """Read the DBND_TEST_ variables; a missing one is a KeyError that names it."""
        return cls(
            postgres=os.environ["DBND_TEST_POSTGRES"],
            redis=os.environ["DBND_TEST_REDIS"],
            s3=os.environ["DBND_TEST_S3_CEPH"],
            key=os.environ["DBND_TEST_S3_KEY"],
            secret=os.environ["DBND_TEST_S3_SECRET"],
            bin=Path(os.environ["DBND_TEST_AIRFLOW_VENV"]) / "bin",
        )


@dataclass
class CeleryTopology:
    """A running Airflow: `trigger`, `wait`, and what the runs left behind."""

    servers: Servers
    base: Path
    store: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _token: str = ""

    @property
    def dags(self) -> Path:
        """The dags folder; both workers can read it and cannot write to it."""
        return self.base / "dags"

    @property
    def disk(self) -> Path:
        """Where each worker's own disk is mounted; empty for everybody else."""
        return self.base / "disk"

    def environment(self) -> dict[str, str]:
        """Return the variables of the daemons; the workers' differ only in folders."""
        postgres = self.servers.postgres.rpartition("/")[0] + f"/{DATABASE}"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "AWS_", "DBND", "PYTHON"))
        }
        connection = {
            "conn_type": "aws",
            "login": self.servers.key,
            "password": self.servers.secret,
            "extra": {"endpoint_url": self.servers.s3, "region_name": "us-east-1"},
        }
        return inherited | {
            "PATH": f"{self.servers.bin}:{os.environ['PATH']}",
            # Compiled files would go into the checkout, which the workers cannot write to.
            "PYTHONDONTWRITEBYTECODE": "1",
            # The engine that another package brings.
            "PYTHONPATH": str(ENGINES),
            "AIRFLOW_HOME": str(self.base / "airflow"),
            f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps(connection),
            "AIRFLOW__DBND__STORE": self.store,
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{PORT}",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(PORT),
            "AIRFLOW__API__SECRET_KEY": "not-a-secret",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "not-a-secret-but-long-enough-to-sign-a-token-with-it-in-a-test-run",
            "AIRFLOW__CELERY__BROKER_URL": f"{self.servers.redis.rpartition('/')[0]}/{BROKER}",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{postgres}",
            # One at a time, so that tasks side by side need both workers.
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{PORT}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            # getfqdn would ask a name server for the workers' made-up names.
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres,
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            # Tasks ask the same api-server.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "90",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def start(self) -> None:
        """Make an empty database and start every daemon; returns when all are healthy."""
        for folder in (self.dags, self.disk, self.base / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        admin = (
            urlsplit(self.servers.postgres.replace("+psycopg2", ""))
            ._replace(path="/postgres")
            .geturl()
        )
        _run("psql", "-qd", admin, "-c", f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        _run("psql", "-qd", admin, "-c", f"CREATE DATABASE {DATABASE}")
        _run("redis-cli", "-u", self.environment()["AIRFLOW__CELERY__BROKER_URL"], "FLUSHDB")
        _run(str(self.servers.bin / "airflow"), "db", "migrate", env=self.environment())
        try:
            for daemon in DAEMONS:
                # Without --skip-serve-logs the triggerer serves its logs on every interface.
                rest = ("--skip-serve-logs",) if daemon == "triggerer" else ()
                self._spawn(daemon, ["airflow", daemon, *rest], self.environment())
            for name, queue in WORKERS.items():
                self._spawn_worker(name, queue)
            self._await("the health report", 120, self._healthy)
            self._await("the workers", 60, self._workers_ready)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every daemon with all its children."""
        for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
            for process in self.processes.values():
                with contextlib.suppress(ProcessLookupError):
                    # The parent alone would leave its children running (Airflow 3.3).
                    os.killpg(process.pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and any(map(_group_alive, self.processes.values())):
                time.sleep(0.2)
        self.processes.clear()

    def request(
        self, path: str, body: dict[str, Any] | None = None, method: str | None = None
    ) -> Any:
        """Call the REST API: a POST where there is a *body*, else a GET, or what *method* says.

        On a busy machine the api-server's first calls take it tens of seconds.
        """
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}{path}", data=data, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=90) as response:
            return json.load(response)

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a run as soon as the DAG is there; return the run's id."""
        self._await(f"DAG {dag_id}", 90, lambda: self._has_dag(dag_id))
        run = self.request(f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def mark_failed(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Mark a task as failed, as somebody does in the UI."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self.request(path, {"new_state": "failed"}, method="PATCH")

    def wait_for_task(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Wait until a task is in *state*."""
        self._await(
            f"{task_id} of {run_id} to be {state}",
            120,
            lambda: self.task_instances(dag_id, run_id)[task_id]["state"] == state,
        )

    def wait(self, dag_id: str, run_id: str, *, seconds: float) -> str:
        """Return the state the run ended in."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"

        def ended() -> str | None:
            state = str(self.request(path)["state"])
            return state if state in {"success", "failed"} else None

        return str(self._await(f"the end of {run_id}", seconds, ended))

    def task_instances(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the run's task instances by task id."""
        found = self.request(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")
        return {each["task_id"]: each for each in found["task_instances"]}

    def xcoms(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return what a task pushed, by key."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
        keys = [entry["key"] for entry in self.request(path)["xcom_entries"]]
        return {key: self.request(f"{path}/{key}?deserialize=true")["value"] for key in keys}

    def explain(self, dag_id: str, run_id: str) -> str:
        """Return each task's state and the logs of those that failed, for an assertion's message."""
        lines = []
        for task_id, instance in self.task_instances(dag_id, run_id).items():
            lines.append(f"{task_id}: {instance['state']} on {instance['hostname'] or 'no worker'}")
            if instance["state"] not in {"success", "upstream_failed"}:
                lines += [log.read_text()[-6000:] for log in self._task_logs(run_id, task_id)]
        return "\n".join(lines)

    def on_disk(self, worker: str) -> Path:
        """Return the folder under which this process sees the disk of *worker*."""
        return Path(f"/proc/{self.processes[worker].pid}/root{self.disk}")

    def _task_logs(self, run_id: str, task_id: str) -> Iterator[Path]:
        for worker in WORKERS:
            yield from self.on_disk(worker).glob(
                f"airflow/logs/*/run_id={run_id}/task_id={task_id}/**/*.log"
            )

    def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with self._log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env=environment,
                cwd=self.base,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _spawn_worker(self, name: str, queue: str) -> None:
        folders = {
            "AIRFLOW_HOME": str(self.disk / "airflow"),
            "HOME": str(self.disk / "home"),
            "TMPDIR": str(self.disk / "tmp"),
        }
        own_disk = ["unshare", "--mount", "--uts", "sh", "-c", OWN_DISK, "sh", name, str(self.disk)]
        worker = [
            "airflow",
            "celery",
            "worker",
            "--skip-serve-logs",
            "--celery-hostname",
            f"celery@{name}",
        ]
        self._spawn(
            name, [*own_disk, *worker, "--queues", f"default,{queue}"], self.environment() | folders
        )

    def _log(self, name: str) -> Path:
        return self.base / "logs" / f"{name}.log"

    def _healthy(self) -> bool:
        try:
            health = self.request("/api/v2/monitor/health")
            if all(
                health[part]["status"] == "healthy"
                for part in ("scheduler", "triggerer", "dag_processor")
            ):
                self._token = self.request("/auth/token")["access_token"]
        except urllib.error.URLError:
            return False
        return bool(self._token)

    def _workers_ready(self) -> bool:
        return all(" ready." in self._log(worker).read_text() for worker in WORKERS)

    def _has_dag(self, dag_id: str) -> bool:
        try:
            self.request(f"/api/v2/dags/{dag_id}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        else:
            return True
        if broken := self.request("/api/v2/importErrors")["import_errors"]:
            raise TopologyError(
                f"no DAG {dag_id}:\n" + "\n".join(each["stack_trace"] for each in broken)
            )
        return False

    def _await(self, what: str, seconds: float, ready: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise TopologyError(f"{name} ended:\n{self._log(name).read_text()[-4000:]}")
            if answer := ready():
                return answer
            time.sleep(0.5)
        logs = "\n".join(
            f"--- {name}\n{self._log(name).read_text()[-1500:]}" for name in self.processes
        )
        raise TopologyError(f"waited {seconds:.0f} s in vain for {what}\n{logs}")


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise TopologyError(f"{' '.join(command[:3])}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _group_alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # a zombie would count as alive
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


if (
    __name__ == "__main__"
):  # by hand: `python tests/services/celery_topology.py FOLDER STORE`, then Ctrl-C
    topology = CeleryTopology(
        servers=Servers.from_environment(), base=Path(sys.argv[1]), store=sys.argv[2]
    )
    topology.start()
    print(
        f"http://127.0.0.1:{PORT}, dags in {topology.dags}, logs in {topology.base / 'logs'}",
        flush=True,
    )
    try:
        signal.pause()
    except KeyboardInterrupt:
        topology.stop()
