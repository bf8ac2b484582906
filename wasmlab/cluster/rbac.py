"""What a cluster that is not ours has to grant to the lab, as objects of its API. Pure.

One table says it: `manifest` turns it into the objects that an administrator applies, `reviews` into the questions that
the preflight asks the cluster. The lab works in one namespace that exists already, and in no other. What
belongs to no namespace (Nodes, certificate requests) it needs to let a node of its own join, and to remove it.

References
----------
Kubernetes documentation, "Using RBAC Authorization" and "TLS bootstrapping".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: On everything that the lab creates in a cluster that is not ours, except Nodes: an agent may not set such labels.
MANAGED = {"app.kubernetes.io/managed-by": "wasmlab"}
#: On everything, Nodes included: which run of the lab made it.
RUN_LABEL = "wasmlab.dev/run"
#: The group that the lab's bootstrap tokens carry, so that the grants below give nothing to anybody else's.
GROUP = "system:bootstrappers:wasmlab"
#: Name of the ServiceAccount, of its roles and of its namespace.
NAME = "wasmlab"
_RBAC = "rbac.authorization.k8s.io"
_CERTIFICATES = "certificates.k8s.io"
_TOKENS_NAMESPACE = "kube-system"
_SIGNER = f"system:{_CERTIFICATES}:certificatesigningrequests"
# Name, role that every conformant cluster has, group: what `wasmlab node join --print-rbac` prints too.
_JOINING = (
    ("wasmlab:join", "system:node-bootstrapper", GROUP),
    ("wasmlab:join-approve-first", f"{_SIGNER}:nodeclient", GROUP),
    ("wasmlab:join-approve-renewed", f"{_SIGNER}:selfnodeclient", "system:nodes"),
)
_ALL = ("create", "get", "list", "watch", "patch", "delete")


@dataclass(frozen=True)
class Right:
    """One thing that the lab must be allowed to do.

    Attributes
    ----------
    why : str
        What it needs it for.
    resources : tuple of str
        With a subresource behind a slash.
    verbs : tuple of str
        Of the API.
    group : str
        API group; empty is the core one.
    names : tuple of str
        Only objects of these names; empty is any.
    """

    why: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    group: str = ""
    names: tuple[str, ...] = ()


def bindings() -> list[dict[str, Any]]:
    """Return the grants with which a node joins, as ``wasmlab node join`` makes them."""
    return [
        _binding("ClusterRoleBinding", name, role, {"apiGroup": _RBAC, "kind": "Group", "name": group})
        for name, role, group in _JOINING
    ]


IN_NAMESPACE = (
    Right("run Pods in its namespace", ("pods",), _ALL),
    Right("read what they print", ("pods/log",), ("get",)),
    Right(
        "run commands in them, and reach what they serve",
        ("pods/exec", "pods/portforward"),
        ("get", "create"),
    ),
    Right("read what happened to them", ("events",), ("get", "list")),
    Right("wait until Pods may be created", ("serviceaccounts",), ("get",)),
    Right("run the article's Deployment", ("deployments",), _ALL, "apps"),
)
IN_CLUSTER = (
    Right("see the nodes, and remove its own", ("nodes",), ("get", "list", "watch", "delete")),
    Right("see which runtimes there are", ("runtimeclasses",), ("get", "list"), "node.k8s.io"),
    Right(
        "see what its node asks for, and remove that",
        ("certificatesigningrequests",),
        ("get", "list", "watch", "delete"),
        _CERTIFICATES,
    ),
    Right(
        "approve its node's certificate", ("certificatesigningrequests/approval",), ("update",), _CERTIFICATES
    ),
    Right(
        "sign for that approval",
        ("signers",),
        ("approve",),
        _CERTIFICATES,
        ("kubernetes.io/kubelet-serving",),
    ),
    Right(
        "see that nodes may join",
        ("clusterrolebindings",),
        ("get",),
        _RBAC,
        tuple(name for name, _, _ in _JOINING),
    ),
)
#: In kube-system, where bootstrap tokens are.
FOR_TOKENS = (Right("make its node's bootstrap token, and remove it", ("secrets",), ("create", "delete")),)


def manifest(namespace: str = NAME) -> list[dict[str, Any]]:
    """Return what an administrator applies: namespace, ServiceAccount, roles, and the grants with which nodes join."""
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}},
        _role("Role", NAME, IN_NAMESPACE, namespace),
        _binding("RoleBinding", NAME, NAME, account, namespace, role_kind="Role"),
        _role("Role", NAME, FOR_TOKENS, _TOKENS_NAMESPACE),
        _binding("RoleBinding", NAME, NAME, account, _TOKENS_NAMESPACE, role_kind="Role"),
        _role("ClusterRole", NAME, IN_CLUSTER),
        _binding("ClusterRoleBinding", NAME, NAME, account),
        *bindings(),
    ]
    for one in objects:
        one["metadata"]["labels"] = dict(MANAGED)
    return objects


def reviews(namespace: str) -> Iterator[tuple[Right, str, str, dict[str, Any]]]:
    """Yield every right with a namespace ("" is all), one verb, and the SelfSubjectAccessReview that asks for it."""
    for rights, where in (
        (IN_NAMESPACE, namespace),
        (IN_CLUSTER, ""),
        (FOR_TOKENS, _TOKENS_NAMESPACE),
    ):
        for right in rights:
            for resource in right.resources:
                kind, _, part = resource.partition("/")
                for verb in right.verbs:
                    asked: dict[str, str] = {"verb": verb, "group": right.group, "resource": kind}
                    asked |= {"subresource": part} if part else {}
                    asked |= {"namespace": where} if where else {}
                    asked |= {"name": right.names[0]} if right.names else {}
                    body = {
                        "apiVersion": "authorization.k8s.io/v1",
                        "kind": "SelfSubjectAccessReview",
                        "spec": {"resourceAttributes": asked},
                    }
                    yield right, where, verb, body


def _role(kind: str, name: str, rights: tuple[Right, ...], namespace: str = "") -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
        "rules": [
            {"apiGroups": [one.group], "resources": list(one.resources), "verbs": list(one.verbs)}
            | ({"resourceNames": list(one.names)} if one.names else {})
            for one in rights
        ],
    }


def _binding(
    kind: str,
    name: str,
    role: str,
    subject: Mapping[str, str],
    namespace: str = "",
    role_kind: str = "ClusterRole",
) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": role},
        "subjects": [dict(subject)],
    }
