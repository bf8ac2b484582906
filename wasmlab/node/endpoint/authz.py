"""What a request to the node's endpoint asks for, in the terms of RBAC: pure.

The kubelet's mapping of verb and path to a subresource of ``nodes``, the fine-grained ones included: whoever may
``get`` ``nodes/pods`` may list the pods without the all-powerful ``nodes/proxy``.

One deviation, towards the stricter: what enters a pod (``/exec``, ``/attach``, ``/run``, ``/portForward``) is
``create`` whatever the HTTP method. The kubelet goes by the method, and a WebSocket is opened by GET, so there the
right to read ``nodes/proxy`` is the right to execute; the API server has asked for ``create`` since 1.35.

References
----------
``k8s.io/kubernetes/pkg/kubelet/server/auth.go`` of 1.37; KEP-2862 (fine-grained kubelet authorization).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ENTERS = ("/exec", "/attach", "/run", "/portForward")
# Tried first; `proxy` allows the same.
_FINE = {
    "/allocatedPods": "pods",
    "/pods": "pods",
    "/healthz": "healthz",
    "/configz": "configz",
    "/runningpods": "pods",
}
# These have no `proxy` beside them.
_OWN = {
    "/stats": "stats",
    "/metrics": "metrics",
    "/logs": "log",
    "/checkpoint": "checkpoint",
    "/statusz": "statusz",
    "/flagz": "configz",
}


@dataclass(frozen=True)
class User:
    """Who asks, as authentication found out.

    Parameters
    ----------
    name, uid : str
        As Kubernetes knows them.
    groups : tuple of str
        ``system:authenticated`` included.
    extra : mapping
        What the authenticator added.
    """

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Request:
    """What is asked for: `verb` on any one of `subresources` of the node."""

    verb: str
    subresources: tuple[str, ...]


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def request(method: str, path: str) -> Request:
    """Map a request to what RBAC is asked.

    Parameters
    ----------
    path : str
        As it was sent, not decoded: exactly what the router goes by, so that the two cannot disagree.
    """
    verb = _VERBS.get(method, "")
    if any(_below(path, one) for one in _ENTERS):
        verb = "create"
    wanted = [name for prefix, name in _FINE.items() if _below(path, prefix)][:1]
    own = next((name for prefix, name in _OWN.items() if _below(path, prefix)), "proxy")
    return Request(verb, (*wanted, own))


def review(user: User, verb: str, subresource: str, node: str) -> Json:
    """The v1.SubjectAccessReview that asks the API server."""
    spec: Json = {
        "user": user.name,
        "groups": list(user.groups),
        "resourceAttributes": {
            "verb": verb,
            "group": "",
            "version": "v1",
            "resource": "nodes",
            "subresource": subresource,
            "name": node,
        },
    }
    if user.uid:
        spec["uid"] = user.uid
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def forbidden(user: User, asked: Request) -> str:
    """The kubelet's message for a 403."""
    subresources = " ".join(asked.subresources)
    return (
        f"Forbidden (user={user.name}, verb={asked.verb}, resource=nodes, subresource(s)=[{subresources}])\n"
    )


def failed(user: User, verb: str, subresource: str) -> str:
    """The kubelet's message for a 500: the API server could not be asked."""
    return f"Authorization error (user={user.name}, verb={verb}, resource=nodes, subresource={subresource})\n"
