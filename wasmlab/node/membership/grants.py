"""What a cluster has to grant before a node can join, as objects of its API: pure.

Three ClusterRoleBindings to roles that every conformant cluster has, and a bootstrap token. The bindings name a group
that only this lab's tokens carry, so that they give nothing to the tokens of anybody else. What the node may do
afterwards is what every kubelet may (the Node authorizer and ``system:node``), and needs no grant.

References
----------
Kubernetes documentation, "TLS bootstrapping" and "Authenticating with bootstrap tokens".
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

GROUP = "system:bootstrappers:wasmlab"
_CERTIFICATES = "system:certificates.k8s.io:certificatesigningrequests"
_ALPHABET = string.ascii_lowercase + string.digits


def bindings(*, automatic: bool = True) -> list[Json]:
    """The ClusterRoleBindings.

    Parameters
    ----------
    automatic : bool
        Let the cluster approve a node's first client certificate by itself, as kubeadm does. Else a person has to.
        Renewals by the node itself are approved either way; serving certificates never are: no controller of
        Kubernetes approves those.
    """
    wanted = [("wasmlab:join", "system:node-bootstrapper", GROUP)]
    if automatic:
        wanted.append(("wasmlab:join-approve-first", f"{_CERTIFICATES}:nodeclient", GROUP))
    wanted.append(("wasmlab:join-approve-renewed", f"{_CERTIFICATES}:selfnodeclient", "system:nodes"))
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
        }
        for name, role, group in wanted
    ]


def manifest(objects: Sequence[Json]) -> str:
    """YAML that ``kubectl apply -f -`` takes."""
    import yaml

    return yaml.safe_dump_all(objects, sort_keys=False)


def token() -> tuple[str, str]:
    """A new bootstrap token's id and secret."""
    identity, secret = ("".join(secrets.choice(_ALPHABET) for _ in range(length)) for length in (6, 16))
    return identity, secret


def token_secret(identity: str, secret: str, expires: datetime, node: str) -> Json:
    """The Secret that makes a token known to the cluster until `expires`."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": f"bootstrap-token-{identity}", "namespace": "kube-system"},
        "stringData": {
            "description": f"made by wasmlab for the node {node}",
            "token-id": identity,
            "token-secret": secret,
            "expiration": expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "false",
            "auth-extra-groups": GROUP,
        },
    }
