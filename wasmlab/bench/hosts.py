"""The WASM nodes of a cluster, whoever runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wasmlab.cluster.manifests import ARCH, ARCH_LABEL

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster

#: Of the node that joins from this machine when a cluster has none.
NAME = "wasm-bench"


def wasm_nodes(cluster: Cluster) -> list[dict[str, Any]]:
    """Return the WASM nodes that are Ready and take Pods."""
    nodes = cluster.rest.get("/api/v1/nodes", labelSelector=f"{ARCH_LABEL}={ARCH}")["items"]
    return [one for one in nodes if _ready(one) and not one["spec"].get("unschedulable")]


def room(cluster: Cluster) -> int:
    """Return how many Pods those nodes take together, were they empty."""
    return sum(int(one["status"].get("allocatable", {}).get("pods", 0)) for one in wasm_nodes(cluster))


def _ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
