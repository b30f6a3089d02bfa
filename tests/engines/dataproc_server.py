"""Dataproc's job API on loopback, over gRPC with TLS as the official hook speaks it; jobs really run.

The hook takes no address. What leads it here is Google's own means: the universe domain of
environment and service account is `localhost:PORT`, and gRPC trusts the certificate of this server.
The messages are those of google-cloud-dataproc. A job's program is downloaded from the GCS emulator
and executed by this Python, in a process of its own. Not real: there is no cluster and no Spark.
"""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import functools
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.engines.cloud import Cloud

PROJECT, REGION, CLUSTER = "project-1", "europe-west1", "cluster-1"


class Dataproc(Cloud):
    """A cluster whose jobs read the GCS emulator. ``calls`` has what the hook asked for."""

    def __init__(self, folder: Path, storage: str, environment: Mapping[str, str]) -> None:
        super().__init__(
            folder,
            {
                "STORAGE_EMULATOR_HOST": storage,
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
                **environment,
            },
        )
        self.storage = storage
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.known: dict[str, Any] = {}
        self.requests: dict[str, Any] = {}

    def fetch(self, uri: str, path: str) -> None:
        import gcsfs

        gcsfs.core.GCSFileSystem(token="anon", endpoint_url=self.storage).get_file(uri, path)

    def cancel(self, job: str) -> None:
        self._end(job, "CANCELLED", "Cancelled by user")
        self.kill(job)

    def lose(self, job: str) -> None:
        del self.known[job]
        self.kill(job)

    def answer(self, method: str, request: Any, context: Any) -> Any:
        """Answer one call."""
        import grpc

        self.calls.append((method, type(request).to_dict(request)))
        if method == "SubmitJob":
            return self._submit(request, context)
        if request.job_id not in self.known:
            path = f"projects/{PROJECT}/regions/{REGION}/jobs/{request.job_id}"
            context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: Job {path}")
        if method == "CancelJob":
            self.cancel(request.job_id)
        return self.known[request.job_id]

    def _submit(self, request: Any, context: Any) -> Any:
        import grpc

        job = request.job
        if request.request_id in self.requests:
            return self.requests[request.request_id]
        if job.placement.cluster_name != CLUSTER:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: Cluster {job.placement}")
        name = job.reference.job_id
        if name in self.known:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Already exists: Job {name}")
        job.status.state = "RUNNING"
        job.driver_output_resource_uri = f"gs://logs/{name}/driveroutput"
        self.known[name] = self.requests[request.request_id] = job

        def done(code: int, output: str) -> None:
            if name in self.known and job.status.state.name == "RUNNING":
                self._end(name, "ERROR" if code else "DONE", output[-200:] if code else "")

        program = job.pyspark_job
        self.run(name, program.main_python_file_uri, list(program.args), (), done)
        return job

    def _end(self, job: str, state: str, details: str) -> None:
        self.known[job].status.details = details
        self.known[job].status.state = state


@dataclass(kw_only=True)
class Server:
    """The one server of this process; it asks ``cloud``."""

    port: int
    certificate: str
    key: str
    cloud: Dataproc | None = None
    _keep: list[Any] = field(default_factory=list)

    @property
    def domain(self) -> str:
        """The universe domain whose services are here."""
        return f"localhost:{self.port}"

    def connection(self) -> str:
        """Return the connection of Airflow whose service account is of this universe."""
        account = {
            "type": "service_account",
            "client_email": "tests@project-1.iam.gserviceaccount.com",
            "token_uri": "http://127.0.0.1:9/token",
            "private_key": self.key,
            "private_key_id": "key-of-the-tests",
            "project_id": PROJECT,
            "universe_domain": self.domain,
        }
        extra = {"keyfile_dict": account, "project": PROJECT, "universe_domain": self.domain}
        return json.dumps({"conn_type": "google_cloud_platform", "extra": extra})


@functools.cache
def server() -> Server:
    """Start the server, for as long as this process lasts: gRPC reads what it trusts once."""
    import grpc
    from google.cloud import dataproc_v1 as dataproc

    certificate, key = _certificate()
    path = os.path.join(tempfile.mkdtemp(prefix="dbnd-dataproc-"), "certificate.pem")
    Path(path).write_bytes(certificate)
    made = Server(port=0, certificate=path, key=key.decode())
    messages = {
        "SubmitJob": dataproc.SubmitJobRequest,
        "GetJob": dataproc.GetJobRequest,
        "CancelJob": dataproc.CancelJobRequest,
    }

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            service, _, method = details.method.rpartition("/")
            assert service == "/google.cloud.dataproc.v1.JobController"
            assert dict(details.invocation_metadata)["authorization"].startswith("Bearer ")

            def answer(request: Any, context: Any) -> Any:
                assert made.cloud is not None
                return made.cloud.answer(method, request, context)

            return grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=messages[method].deserialize,
                response_serializer=dataproc.Job.serialize,
            )

    running = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    running.add_generic_rpc_handlers((Handler(),))
    trusted = grpc.ssl_server_credentials([(key, certificate)])
    made.port = running.add_secure_port("127.0.0.1:0", trusted)
    running.start()
    made._keep.append(running)
    return made


def _certificate() -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dataproc.localhost")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("dataproc.localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(pem), private
