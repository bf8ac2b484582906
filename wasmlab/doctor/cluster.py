"""The preflight of a cluster that is not ours: what the lab would find there, what is missing, and the exact remedy.

It asks and changes nothing: rights by SelfSubjectAccessReview, the registry by an upload that it begins and gives up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.doctor.checks import Finding
from wasmlab.errors import ClusterError, WasmlabError

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster

_TIMEOUT_S = 10.0
#: The oldest minor version of Kubernetes that the lab has been tried with (tests/skew).
_OLDEST = 36
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$")


def check_cluster(kubeconfig: Path, *, context: str | None = None, registry: str = "") -> list[Finding]:
    """Look at a cluster and return the findings; if it cannot be reached, only why.

    Parameters
    ----------
    kubeconfig : Path
        With the credentials that the lab is to use.
    context : str, optional
        A context of it.
    registry : str
        ``host:port`` from which the cluster's nodes are to pull.
    """
    from wasmlab.cluster import Cluster

    try:
        with Cluster.from_kubeconfig(kubeconfig, context, registry) as cluster:
            findings = list(_reach(cluster))
            if any(one.state == "missing" for one in findings):
                return findings
            for look in (_rights, _runtime_classes, _shim_nodes, _wasm_nodes, _leftovers):
                findings.extend(_guarded(look, cluster))
            findings.extend(_registry(registry))
            return findings
    except WasmlabError as error:
        return [Finding("Kubeconfig", "missing", error.message, error.remedy or "check the file")]


def _guarded(look: Callable[[Cluster], Iterator[Finding]], cluster: Cluster) -> Iterator[Finding]:
    try:
        yield from look(cluster)
    except ClusterError as error:
        name = look.__name__.strip("_").replace("_", " ").capitalize()
        yield Finding(name, "limited", f"cannot be seen: {error.message}", error.remedy or "")


def _reach(cluster: Cluster) -> Iterator[Finding]:
    try:
        said = cluster.rest.call("GET", "/version", what="reach the cluster", timeout_s=_TIMEOUT_S)
        # /version answers anybody; this one only who is known.
        cluster.rest.call("GET", "/apis/authorization.k8s.io/v1", what="use these credentials")
    except ClusterError as error:
        status = error.context.get("status")
        if status in (401, 403):
            yield Finding(
                "Credentials",
                "missing",
                error.message,
                "has the token expired? `wasmlab cluster grant --out FILE` makes a new one, as an administrator",
            )
        else:
            yield Finding(
                "API server",
                "missing",
                error.message,
                f"does it run, and does a firewall or VPN let you to {cluster.server}? Else another --context",
            )
        return
    version = json.loads(said)
    yield Finding("API server", "ok", f"{cluster.server} answers")
    minor = int(re.sub(r"\D", "", version.get("minor", "")) or 0)
    text = str(version.get("gitVersion", "of an unknown version"))
    if minor < _OLDEST:
        yield Finding(
            "Kubernetes",
            "limited",
            f"{text}; the lab has been tried with 1.{_OLDEST} and newer",
            "nothing is known to be missing; if something is, upgrade it",
        )
    else:
        yield Finding("Kubernetes", "ok", text)


def _rights(cluster: Cluster) -> Iterator[Finding]:
    from wasmlab.cluster import rbac

    namespace = cluster.guest.current if cluster.guest else ""
    denied: dict[str, list[str]] = {}
    asked = 0
    for right, where, verb, body in rbac.reviews(namespace):
        asked += 1
        answer = cluster.rest.call(
            "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body, what="ask for rights"
        )
        if not json.loads(answer)["status"].get("allowed"):
            place = f" in {where}" if where else ""
            denied.setdefault(f"{right.why}: {' '.join(right.resources)}{place}", []).append(verb)
    if not namespace:
        yield from _own_namespace(cluster)
    else:
        yield Finding("Namespace", "ok", f"{namespace}, as the kubeconfig says")
    if not denied:
        yield Finding("Rights", "ok", f"all {asked} that the lab needs")
        return
    told = "; ".join(f"{what} ({', '.join(verbs)})" for what, verbs in denied.items())
    yield Finding(
        "Rights",
        "missing",
        f"these credentials may not {told}",
        "as an administrator: wasmlab cluster grant --kubeconfig ADMIN --out FILE; then use FILE",
    )


def _own_namespace(cluster: Cluster) -> Iterator[Finding]:
    for verb in ("create", "delete"):
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "resource": "namespaces"}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        if not json.loads(cluster.rest.call("POST", path, body=body))["status"].get("allowed"):
            yield Finding(
                "Namespace",
                "missing",
                f"the kubeconfig's context names none, and these credentials may not {verb} one",
                "kubectl config set-context --current --namespace NAME, of one in which you may work",
            )
            return
    yield Finding("Namespace", "ok", "the kubeconfig names none: each run makes one and removes it")


def _runtime_classes(cluster: Cluster) -> Iterator[Finding]:
    from wasmlab.containerd.runtimeclass import HANDLERS

    there = {
        one["metadata"]["name"] for one in cluster.rest.get("/apis/node.k8s.io/v1/runtimeclasses")["items"]
    }
    missing = [name for name in HANDLERS if name not in there]
    yield Finding(
        "RuntimeClass",
        "limited" if missing else "ok",
        f"{', '.join(missing)} missing: no path 2 there" if missing else ", ".join(HANDLERS),
        "as an administrator: wasmlab containerd installer --push REGISTRY/installer | kubectl apply -f -"
        if missing
        else "",
    )


def _shim_nodes(cluster: Cluster) -> Iterator[Finding]:
    from wasmlab.containerd.runtimeclass import NODE_LABEL

    names = _ready(cluster, f"{NODE_LABEL}=true")
    yield Finding(
        "Nodes with the shim",
        "ok" if names else "limited",
        _listed(names) or "none is Ready: no path 2 there",
        "" if names else "as above; the installer puts the shim on every node that runs its DaemonSet",
    )


def _wasm_nodes(cluster: Cluster) -> Iterator[Finding]:
    from wasmlab.cluster.manifests import ARCH, ARCH_LABEL

    names = _ready(cluster, f"{ARCH_LABEL}={ARCH}")
    yield Finding(
        "WASM nodes",
        "ok" if names else "limited",
        _listed(names) or "none is Ready: the notebooks join one from this machine, and take it away again",
        ""
        if names
        else f"on a machine that is to be one: wasmlab node join --kubeconfig {cluster.kubeconfig}",
    )


def _leftovers(cluster: Cluster) -> Iterator[Finding]:
    from wasmlab.cluster import guest

    found = guest.leftovers(cluster.rest, cluster.guest.current if cluster.guest else "")
    if found:
        yield Finding(
            "Left behind",
            "limited",
            _listed([guest.title(one) for one in found]) + " of a run that goes on, or that was killed",
            f"wasmlab cluster clean --kubeconfig {cluster.kubeconfig}",
        )


def _registry(registry: str) -> Iterator[Finding]:
    if not registry:
        yield Finding(
            "Registry",
            "limited",
            "none given: the lab starts one on this machine, from which only a node on this machine can pull",
            "give one that the cluster's nodes can pull from: --registry HOST:PORT",
        )
        return
    from wasmlab.oci import Client

    try:
        Client().check_push(f"{registry}/wasmlab/preflight:v1")
    except WasmlabError as error:
        yield Finding(
            "Registry", "missing", error.message, error.remedy or "does it run, may you push to it?"
        )
        return
    if _LOOPBACK.match(registry):
        yield Finding(
            "Registry",
            "limited",
            f"{registry} takes modules; by that name only this machine finds it",
            "give a name that the cluster's nodes know too",
        )
    else:
        yield Finding(
            "Registry", "ok", f"{registry} takes modules; whether nodes may pull, their first Pod tells"
        )


def _ready(cluster: Cluster, selector: str) -> list[str]:
    nodes: list[dict[str, Any]] = cluster.rest.get("/api/v1/nodes", labelSelector=selector)["items"]
    return [
        one["metadata"]["name"]
        for one in nodes
        if any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"].get("conditions", []))
    ]


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
