"""A control plane of another Kubernetes release in a lab's directory, and its upgrade to the lab's own.

Certificates, kubeconfigs and ports are made by the lab's program, which then makes room: the stock etcd, API server,
controller manager and scheduler of the other release run as processes of their own, on the same address. An upgrade is
what it is elsewhere: the same data, the same address, the same credentials, other programs.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

from tests.node.lab import until
from wasmlab.cluster import Cluster
from wasmlab.errors import ClusterError

_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_STOP_S = 90
_READY_S = 180


class Plane:
    """A control plane that runs.

    Parameters
    ----------
    root : Path
        Its directory, to be made.
    program : Path
        Of `tests.skew.programs`.
    version : str
        What it is.
    features : str
        Feature gates of the API server, ``A=false,B=true``.
    """

    def __init__(self, root: Path, program: Path, version: str, features: str = "") -> None:
        self.root = root
        self._program = program
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._own: Cluster | None = None
        with Cluster.embedded(root, node=False):
            pass
        shutil.rmtree(root / "etcd" / "data")
        record = root / "version.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "kubernetes": version}))
        self._port = json.loads((root / "state.json").read_text())["api_port"]
        try:
            self._start_all(features)
        except BaseException:
            self.stop()
            raise

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.root / "kubeconfig"

    @property
    def version(self) -> str:
        """What the API server says it is."""
        with Cluster.from_kubeconfig(self.kubeconfig) as cluster:
            return str(cluster.rest.get("/version")["gitVersion"])

    def upgrade(self) -> None:
        """Replace everything by the lab's own release, on the same data and address."""
        self.stop()
        self._own = Cluster.embedded(self.root, node=False)

    def stop(self) -> None:
        """End it."""
        for name in (*reversed(_PLANE), "etcd"):
            process = self._running.pop(name, None)
            if process is not None:
                process.terminate()
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if self._own is not None:
            self._own.stop()

    def _start_all(self, features: str) -> None:
        pki, services = self.root / "pki", "10.96.0.0/16"
        client, peer = (f"http://127.0.0.1:{port}" for port in _free_ports(2))
        # On loopback without TLS: good enough for what lives for a minute, and never the lab's own way.
        self._start(
            "etcd", "--data-dir", str(self.root / "etcd" / "data"), "--name", "wasmlab",
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"wasmlab={peer}", "--log-level", "error",
        )  # fmt: skip
        # The flags are those of wasmlab/cluster/kube/controlplane.go.
        self._start(
            "kube-apiserver", "--bind-address=127.0.0.1", f"--secure-port={self._port}",
            "--advertise-address=127.0.0.1", f"--etcd-servers={client}", f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key", f"--client-ca-file={pki}/ca.crt",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key",
            f"--service-cluster-ip-range={services}", "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth", "--anonymous-auth=false",
            "--endpoint-reconciler-type=none", *([f"--feature-gates={features}"] if features else []),
        )  # fmt: skip
        until(f"the API server serves: {self.root}/kube-apiserver.log", self._serves, _READY_S)
        self._start(
            "kube-controller-manager", f"--kubeconfig={pki}/controller-manager.kubeconfig", "--leader-elect=false",
            "--secure-port=0", "--use-service-account-credentials=false",
            f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
            "--allocate-node-cidrs=true", "--cluster-cidr=10.244.0.0/16", f"--service-cluster-ip-range={services}",
        )  # fmt: skip
        self._start(
            "kube-scheduler",
            f"--kubeconfig={pki}/scheduler.kubeconfig",
            "--leader-elect=false",
            "--secure-port=0",
        )
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        until("Pods can be made", lambda: self._answers(account), _READY_S)
        # The API server may ask nodes for logs; kubeadm makes this grant by the certificate's group.
        group = "rbac.authorization.k8s.io"
        grant = {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "skew:kubelet-api"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "kube-apiserver-kubelet-client"}],
        }
        with Cluster.from_kubeconfig(self.kubeconfig) as cluster:
            cluster.rest.apply(grant)

    def _serves(self) -> bool:
        process = self._running["kube-apiserver"]
        assert process.poll() is None, (self.root / "logs" / "kube-apiserver.log").read_text()[-3000:]
        return self._answers("/readyz")

    def _answers(self, path: str) -> bool:
        with Cluster.from_kubeconfig(self.kubeconfig) as cluster:
            try:
                cluster.rest.call("GET", path, timeout_s=5)
            except ClusterError:
                return False
        return True

    def _start(self, name: str, *flags: str) -> None:
        with open(self.root / "logs" / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(
                [str(self._program), name, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
