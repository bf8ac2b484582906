"""What a node needs to join a cluster: a bootstrap token, and somebody who approves its certificate."""

from __future__ import annotations

import base64
import secrets
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from wasmlab.cluster import manifests, rbac
from wasmlab.cluster.wait import wait_for
from wasmlab.cluster.workloads import Workloads
from wasmlab.errors import ClusterError
from wasmlab.paths import atomic_write

_TOKEN_LIFE = timedelta(hours=24)
_SERVING_SIGNER = "kubernetes.io/kubelet-serving"
_CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
NODES = "/api/v1/nodes"


class Joining(Workloads):
    """Nodes, certificate requests and bootstrap tokens of a cluster."""

    def node(self, name: str) -> dict[str, Any] | None:
        """Return a Node, or None.

        Parameters
        ----------
        name : str
            Of the Node.
        """
        items = self.rest.get(NODES, fieldSelector=f"metadata.name={name}")["items"]
        return items[0] if items else None

    def csr_state(self, name: str) -> str | None:
        """Return ``"Pending"``, ``"Approved"``, ``"Denied"``, ``"Failed"`` or ``"Issued"``; None if it is absent.

        Parameters
        ----------
        name : str
            Of the request.
        """
        items = self.rest.get(_CSRS, fieldSelector=f"metadata.name={name}")["items"]
        return _csr_state(items[0]) if items else None

    def serving_requests(self, node: str) -> dict[str, str]:
        """Return the requests for a serving certificate that a node has sent, and their states (see `csr_state`).

        The first is ``<host name>-tls``; one with another key or address has the key's fingerprint behind that.

        Parameters
        ----------
        node : str
            Name of the Node.
        """
        items = self.rest.get(_CSRS, fieldSelector=f"spec.signerName={_SERVING_SIGNER}")["items"]
        return {
            one["metadata"]["name"]: _csr_state(one)
            for one in items
            if one["spec"].get("username") == f"system:node:{node}"
        }

    def approve_csr(self, name: str, timeout_s: float = 30.0) -> None:
        """Approve a certificate signing request, waiting for it to appear: ``kubectl certificate approve``.

        Parameters
        ----------
        name : str
            Of the request.
        timeout_s : float
            How long to wait for it to appear, in seconds.

        Raises
        ------
        NotReady
            If it has not appeared by the deadline.
        ClusterError
            If it was denied, or the API server refuses.
        """
        request = wait_for(
            self.rest,
            _CSRS,
            name,
            lambda csr: csr is not None,
            timeout_s,
            what=f"certificate signing request {name} to appear",
        )
        assert request is not None
        if (state := _csr_state(request)) != "Pending":
            if state in ("Denied", "Failed"):
                raise ClusterError(
                    f"certificate signing request {name} is {state.lower()}",
                    remedy=f"`kubectl delete csr {name}`; the node sends a new one",
                )
            return
        approval = {
            "type": "Approved",
            "status": "True",
            "reason": "WasmlabApprove",
            "message": "Approved by wasmlab on behalf of its user",
        }
        request["status"]["conditions"] = [*request["status"].get("conditions", []), approval]
        self.rest.call("PUT", f"{_CSRS}/{name}/approval", body=request, what=f"approve {name}")

    def bootstrap_kubeconfig(self, path: Path | str) -> Path:
        """Make a bootstrap token, valid for a day, and write the kubeconfig with which a node asks to join.

        Returns
        -------
        Path
            `path`, written with mode 0600.
        """
        import yaml

        alphabet = string.ascii_lowercase + string.digits
        token_id, secret = ("".join(secrets.choice(alphabet) for _ in range(n)) for n in (6, 16))
        expires = (datetime.now(UTC) + _TOKEN_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")
        if self.guest is None:  # an embedded control plane has the grants from its start
            self.apply(manifests.bootstrap_token(token_id, secret, expires))
        else:
            self.guest.may_join()
            self.guest.create(manifests.bootstrap_token(token_id, secret, expires, rbac.GROUP))
        config = manifests.kubeconfig(
            self.server, base64.b64encode(self.ca).decode(), {"token": f"{token_id}.{secret}"}
        )
        target = Path(path)
        atomic_write(target, yaml.safe_dump(config, sort_keys=False))
        return target


def _csr_state(request: dict[str, Any]) -> str:
    status = request.get("status", {})
    conditions = {condition["type"] for condition in status.get("conditions", [])}
    for bad in ("Denied", "Failed"):
        if bad in conditions:
            return bad
    if "Approved" in conditions:
        return "Issued" if status.get("certificate") else "Approved"
    return "Pending"
