"""What metrics-server 0.9 makes of a node's ``/metrics/resource``, in a page: the Metrics API that kubectl top asks.

References
----------
``sigs.k8s.io/metrics-server/pkg/scraper/client/resource/decode.go`` (what is read, and what is dropped),
``pkg/storage/node.go``, ``pod.go`` (rates between two scrapes); ``k8s.io/metrics/pkg/apis/metrics/v1beta1``.
"""

from __future__ import annotations

import http.server
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
_ROOT = f"/apis/{GROUP}/{VERSION}"
_LINE = re.compile(r"^(\w+)(\{.*\})? (\S+)(?: (-?\d+))?$")


@dataclass
class Point:
    """What is known of the node, or of a container, at a moment."""

    at_ms: int = 0
    cpu_s: float = 0.0
    memory_bytes: float = 0.0
    started_s: float = 0.0

    @property
    def complete(self) -> bool:
        """What is not is dropped: a pod with one such container altogether."""
        return bool(self.at_ms and self.cpu_s and self.memory_bytes)


@dataclass
class Scrape:
    """One look at a node."""

    node: Point = field(default_factory=Point)
    pods: dict[tuple[str, str], dict[str, Point]] = field(default_factory=dict)


def decode(text: str, now_ms: int) -> Scrape:
    """Read the text of ``/metrics/resource``."""
    found = Scrape()
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = _LINE.match(line)
        assert match, f"not in the text format: {line}"
        name, labels, value, stamp = match[1], match[2] or "", float(match[3]), int(match[4] or now_ms)
        if name.startswith("node_"):
            point = found.node
        elif name.startswith("container_"):
            given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            pod = found.pods.setdefault((given["namespace"], given["pod"]), {})
            point = pod.setdefault(given["container"], Point())
        else:
            continue
        if name.endswith("_cpu_usage_seconds_total"):
            point.at_ms, point.cpu_s = stamp, value
        elif name.endswith("_memory_working_set_bytes"):
            point.at_ms, point.memory_bytes = stamp, value
        elif name == "container_start_time_seconds":
            point.started_s = value
    return found


def usage(before: Point | None, after: Point) -> dict[str, str] | None:
    """A v1.ResourceList between two scrapes; None as long as there is no rate."""
    if before is None or before.at_ms >= after.at_ms or before.cpu_s > after.cpu_s:
        # A container that is young enough has its start for a first scrape.
        before = Point(int(after.started_s * 1000)) if after.started_s else None
        if before is None or before.at_ms >= after.at_ms:
            return None
    rate = (after.cpu_s - before.cpu_s) / ((after.at_ms - before.at_ms) / 1000)
    return {"cpu": f"{round(rate * 1e9)}n", "memory": f"{int(after.memory_bytes) // 1024}Ki"}


class MetricsApi:
    """The Metrics API of one node.

    Parameters
    ----------
    node : str
        Its name.
    scrape : callable
        Returns its ``/metrics/resource``.
    """

    def __init__(self, node: str, scrape: Callable[[], str]) -> None:
        self._node, self._scrape = node, scrape
        self._lock = threading.Lock()
        self._before = self._now = decode(scrape(), int(time.time() * 1000))

    def answer(self, path: str) -> dict[str, Any] | None:
        """What a GET of `path` gives; None if there is nothing."""
        if path == _ROOT:
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}",
                    "resources": [
                        {"name": "nodes", "kind": "NodeMetrics", "namespaced": False, "verbs": ["get", "list"]},
                        {"name": "pods", "kind": "PodMetrics", "namespaced": True, "verbs": ["get", "list"]},
                    ]}  # fmt: skip
        with self._lock:
            self._before, self._now = self._now, decode(self._scrape(), int(time.time() * 1000))
            items = self._nodes() if path == f"{_ROOT}/nodes" else self._pods()
        if path in (f"{_ROOT}/nodes", f"{_ROOT}/namespaces/default/pods"):
            kind = "NodeMetricsList" if path.endswith("nodes") else "PodMetricsList"
            return {"kind": kind, "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}
        return None

    def _nodes(self) -> list[dict[str, Any]]:
        used = usage(self._before.node, self._now.node) if self._now.node.complete else None
        return [{"metadata": {"name": self._node}, **_when(self._now.node), "usage": used}] if used else []

    def _pods(self) -> list[dict[str, Any]]:
        items = []
        for (namespace, name), containers in self._now.pods.items():
            if namespace != "default" or not all(point.complete for point in containers.values()):
                continue
            before = self._before.pods.get((namespace, name), {})
            used = {one: usage(before.get(one), point) for one, point in containers.items()}
            if all(used.values()):
                items.append(
                    {
                        "metadata": {"name": name, "namespace": namespace},
                        **_when(next(iter(containers.values()))),
                        "containers": [{"name": one, "usage": value} for one, value in used.items()],
                    }
                )
        return items


def _when(point: Point) -> dict[str, str]:
    moment = datetime.fromtimestamp(point.at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"timestamp": moment, "window": "1s"}


@contextmanager
def aggregated(cluster: Any, api: MetricsApi, directory: Path) -> Iterator[None]:
    """Serve it to a cluster's API server, as an aggregated API."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = api.answer(self.path.partition("?")[0])
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(
                json.dumps(body if body is not None else {"kind": "Status", "code": 404}).encode()
            )

        def log_message(self, *_: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(directory))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "metrics-server", "namespace": "kube-system"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    registered = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{VERSION}.{GROUP}"},
        "spec": {
            "service": {
                "name": "metrics-server",
                "namespace": "kube-system",
                "port": server.server_address[1],
            },
            "group": GROUP,
            "version": VERSION,
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }
    try:
        cluster.apply([service, registered])
        yield
    finally:
        # Else the controllers of the cluster would go on asking for a group that nobody serves.
        cluster.rest.call("DELETE", f"/apis/apiregistration.k8s.io/v1/apiservices/{VERSION}.{GROUP}")
        cluster.rest.call("DELETE", "/api/v1/namespaces/kube-system/services/metrics-server")
        server.shutdown()
        server.server_close()


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    files = directory / "metrics.crt", directory / "metrics.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return files
