"""As an administrator: apply what the lab needs in a cluster, and write a kubeconfig that may do that and no more."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from wasmlab.cluster import manifests, rbac
from wasmlab.cluster.access import Access
from wasmlab.errors import ClusterError
from wasmlab.paths import atomic_write


def grant(kubeconfig: Path, out: Path, *, context: str | None, namespace: str, valid_s: float) -> str:
    """Apply `rbac.manifest` and write the kubeconfig of its ServiceAccount to `out`, mode 0600.

    Parameters
    ----------
    kubeconfig : Path
        An administrator's.
    out : Path
        The file to write.
    context : str or None
        A context of `kubeconfig`.
    namespace : str
        The lab's.
    valid_s : float
        How long the token is to be valid; the cluster may make it shorter.

    Returns
    -------
    str
        When the token expires, RFC 3339.

    Raises
    ------
    ClusterError
        If these credentials may not grant that; what was applied before stays.

    References
    ----------
    Kubernetes API, authentication.k8s.io/v1 TokenRequest.
    """
    import yaml

    access = Access(kubeconfig.expanduser().absolute(), context)
    for one in rbac.manifest(namespace):
        try:
            access.rest.apply(one)
        except ClusterError as error:
            if error.context.get("status") == 403:
                error.remedy = (
                    "use an administrator's kubeconfig, or send one what `wasmlab cluster rbac` prints"
                )
            raise
    answer = access.rest.call(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{rbac.NAME}/token",
        body={
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": int(valid_s)},
        },
        what="make a token for the lab",
    )
    status = json.loads(answer)["status"]
    authority = base64.b64encode(access.ca).decode()
    config = manifests.kubeconfig(access.server, authority, {"token": status["token"]}, namespace)
    atomic_write(out, yaml.safe_dump(config, sort_keys=False))
    return str(status["expirationTimestamp"])
