"""Talk to a node's endpoint directly, as the API server and anybody else would."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.node.lab import NodeLab, push, until
from wasmlab.node.membership import csr

Answer = tuple[int, str]


class Endpoint:
    """A node's endpoint.

    Parameters
    ----------
    cluster : Cluster
        Its cluster.
    node : NodeHandle
        The node.
    """

    def __init__(self, cluster: Any, node: Any) -> None:
        self.cluster = cluster
        self.node = node
        status = cluster.node(node.name)["status"]
        self.port: int = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        self.address: str = next(a["address"] for a in status["addresses"] if a["type"] == "InternalIP")
        until("the endpoint listens", self._listens)

    def _listens(self) -> bool:
        # Kubernetes' times have whole seconds: right after a restart an earlier agent's Ready may be taken for new.
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1):
            return True
        return False

    def wait_running(self, pod: str) -> None:
        """Wait until it has the pod running: after a restart it may not listen, or not have taken up its pods yet."""

        def running() -> bool:
            with contextlib.suppress(OSError, ValueError):
                answer = json.loads(self.ask("/runningpods/", certificate=self.api_server)[1])
                return any(one["metadata"]["name"] == pod for one in answer["items"])
            return False

        until(f"the endpoint has {pod} running", running, 60)

    @property
    def api_server(self) -> tuple[Path, Path]:
        """The certificate that the API server shows to nodes."""
        pki = self.cluster.dir / "pki"
        return pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key"

    def node_certificate(self, directory: Path) -> tuple[Path, Path]:
        """The node's own client certificate."""
        user = yaml.safe_load((self.node.dir / "kubeconfig").read_text())["users"][0]["user"]
        files = directory / "node.crt", directory / "node.key"
        for path, key in zip(files, ("client-certificate-data", "client-key-data"), strict=True):
            path.write_bytes(base64.b64decode(user[key]))
        return files

    def certificate(
        self, directory: Path, user: str, *groups: str, server: bool = False
    ) -> tuple[Path, Path]:
        """A certificate of the cluster's authority, as an administrator would have it signed."""
        pki = self.cluster.dir / "pki"
        ca = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes())
        signer: Any = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
        key = csr.new_key()
        private: Any = serialization.load_pem_private_key(key, None)
        names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(ca.subject)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        files = directory / f"{user}.crt", directory / f"{user}.key"
        files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(key)
        return files

    def context(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.cluster.ca.decode())
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if certificate:
            context.load_cert_chain(*certificate)
        return context

    def ask(
        self,
        path: str,
        *,
        certificate: tuple[Path, Path] | None = None,
        token: str = "",
        method: str = "GET",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request; returns the status and the body."""
        connection = http.client.HTTPSConnection(
            self.address, self.port, context=self.context(certificate), timeout=20
        )
        more = dict(headers or {})
        if token:
            more["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, headers=more)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def serial(self) -> int:
        """Serial number of the certificate that the endpoint shows now."""
        with (
            socket.create_connection((self.address, self.port), 10) as plain,
            self.context().wrap_socket(plain, server_hostname=self.address) as connection,
        ):
            return x509.load_der_x509_certificate(connection.getpeercert(True) or b"").serial_number


@pytest.fixture(scope="module")
def endpoint(lab: NodeLab) -> Endpoint:
    """Of the node of the module's own `lab`."""
    return Endpoint(lab.cluster, lab.node)


@pytest.fixture(scope="module")
def console(cluster: Any) -> str:
    return push(cluster, "console")
