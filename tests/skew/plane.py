"""A control plane of stock components of one Kubernetes release, which can be replaced by those of another.

Certificates and flags are those of the lab's own control plane (wasmlab/cluster/kube); etcd, the API server, the
controller manager and the scheduler are processes of their own, so that an upgrade is what it is elsewhere: the same
data, the same address, the same credentials, another program.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import socket
import subprocess
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.node.lab import until
from wasmlab.cluster import Cluster
from wasmlab.cluster.manifests import kubeconfig

_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_STOP_S = 90


class Plane:
    """etcd and a control plane in a directory.

    Parameters
    ----------
    root : Path
        Its directory.
    program : Path
        Of `tests.skew.programs`.
    """

    def __init__(self, root: Path, program: Path) -> None:
        self.root = root
        self.program = program
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._port, self._etcd, peers = _free_ports(3)
        _make_pki(root / "pki", f"https://127.0.0.1:{self._port}")
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{peers}"
        # On loopback without TLS: good enough for what lives for a minute, and never the lab's own way.
        self._start(
            "etcd", "--data-dir", str(root / "etcd"), "--name", "skew",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"skew={peer}", "--log-level", "error",
        )  # fmt: skip
        self.start()

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.root / "pki" / "admin.kubeconfig"

    @property
    def version(self) -> str:
        """What the API server says it is."""
        with Cluster.from_kubeconfig(self.kubeconfig) as cluster:
            return str(cluster.rest.get("/version")["gitVersion"])

    def start(self) -> None:
        """Start the components of the control plane and wait until Pods can be made."""
        pki = self.root / "pki"
        self._start(
            "kube-apiserver", "--bind-address=127.0.0.1", f"--secure-port={self._port}",
            "--advertise-address=127.0.0.1",
            f"--etcd-servers=http://127.0.0.1:{self._etcd}", f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key", f"--client-ca-file={pki}/ca.crt",
            f"--kubelet-certificate-authority={pki}/ca.crt", f"--kubelet-client-certificate={pki}/admin.crt",
            f"--kubelet-client-key={pki}/admin.key", "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key", "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth", "--anonymous-auth=false", "--endpoint-reconciler-type=none",
            "--shutdown-delay-duration=0s",
        )  # fmt: skip
        # Roles are made after it serves; before, even the controllers may not do much.
        until(f"the API server serves: {self.root}/kube-apiserver.log", self._serves, 180)
        self._start(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0",
            "--use-service-account-credentials=false", f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt", f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key", "--allocate-node-cidrs=true", "--cluster-cidr=10.244.0.0/16",
            "--service-cluster-ip-range=10.96.0.0/16",
        )  # fmt: skip
        self._start(
            "kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0"
        )
        until(
            "there is a default service account",
            lambda: self._get("/api/v1/namespaces/default/serviceaccounts/default"),
            120,
        )

    def stop(self, *, etcd: bool = True) -> None:
        """End the control plane, and etcd too or not."""
        for name in (*reversed(_PLANE), *(("etcd",) if etcd else ())):
            process = self._running.pop(name, None)
            if process is not None:
                process.terminate()
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def upgrade(self, program: Path) -> None:
        """Replace the control plane by another release's, on the same data and address."""
        self.stop(etcd=False)
        self.program = program
        self.start()

    def _serves(self) -> bool:
        process = self._running["kube-apiserver"]
        assert process.poll() is None, (self.root / "kube-apiserver.log").read_text()[-3000:]
        return self._get("/readyz")

    def _get(self, path: str) -> bool:
        from wasmlab.errors import ClusterError

        with Cluster.from_kubeconfig(self.kubeconfig) as cluster:
            try:
                cluster.rest.call("GET", path, timeout_s=5)
            except ClusterError:
                return False
        return True

    def _start(self, name: str, *flags: str) -> None:
        with open(self.root / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(
                [str(self.program), name, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _make_pki(directory: Path, server: str) -> None:
    directory.mkdir(parents=True, mode=0o700)
    now = datetime.datetime.now(datetime.UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "skew-ca")])

    def issue(name: str, subject: list[x509.NameAttribute[str]], key: Any, *, ca: bool = False) -> None:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            names: list[x509.GeneralName] = [
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            ]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(authority_key, hashes.SHA256())
        (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(directory / f"{name}.key", key)

    issue("ca", list(authority), authority_key, ca=True)
    issue(
        "apiserver",
        [x509.NameAttribute(NameOID.COMMON_NAME, "apiserver")],
        ec.generate_private_key(ec.SECP256R1()),
    )
    masters = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters")
    issue(
        "admin",
        [masters, x509.NameAttribute(NameOID.COMMON_NAME, "admin")],
        ec.generate_private_key(ec.SECP256R1()),
    )
    accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write_key(directory / "sa.key", accounts)
    public = accounts.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (directory / "sa.pub").write_bytes(public)

    def encoded(name: str) -> str:
        return base64.b64encode((directory / name).read_bytes()).decode()

    user = {"client-certificate-data": encoded("admin.crt"), "client-key-data": encoded("admin.key")}
    (directory / "admin.kubeconfig").write_text(yaml.safe_dump(kubeconfig(server, encoded("ca.crt"), user)))


def _write_key(path: Path, key: Any) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
