"""How a kubelet's Node comes into the cluster, and how it goes."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.cluster import processes
from wasmlab.containerd import cleanup
from wasmlab.containerd.layout import Layout
from wasmlab.errors import BootstrapError, ClusterError
from wasmlab.process import Child

if TYPE_CHECKING:
    from wasmlab.cluster.cluster import Cluster

_CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_NODES = "/api/v1/nodes"
_POLL_S = 0.05


def wait_ready(cluster: Cluster, name: str, kubelet: Child, started_s: float, timeout_s: float) -> None:
    """Approve the kubelet's serving certificate and wait until its Node is Ready and answers for its pods.

    Parameters
    ----------
    kubelet : Child
        The process; if it ends, waiting ends too.
    started_s : float
        When it was started, seconds since the epoch: a Ready from before does not count.
    timeout_s : float
        The deadline, in seconds from now.

    Raises
    ------
    BootstrapError
        If the kubelet ends, or the deadline passes; with the last lines of its log.
    """
    deadline = time.monotonic() + timeout_s
    while not (_ready(cluster, name, started_s) and _answers(cluster, name)):
        if not kubelet.alive:
            raise BootstrapError(
                f"the kubelet of node {name} ended before the node was Ready (exit code "
                f"{kubelet.returncode}); last lines of its log:\n{kubelet.tail()}",
                remedy=f"see its whole log in {kubelet.log}",
                node=name,
            )
        if time.monotonic() >= deadline:
            raise BootstrapError(
                f"node {name} was not Ready after {timeout_s:g} s; last lines of the kubelet's log:\n"
                f"{kubelet.tail()}",
                remedy=f"see the logs in {kubelet.log.parent}",
                node=name,
            )
        _approve(cluster, name)
        time.sleep(_POLL_S)


def _approve(cluster: Cluster, name: str) -> None:
    selector = "spec.signerName=kubernetes.io/kubelet-serving"
    for request in cluster.rest.get(_CSRS, fieldSelector=selector)["items"]:
        ours = request["spec"].get("username") == f"system:node:{name}"
        if ours and not request["status"].get("conditions"):
            cluster.approve_csr(request["metadata"]["name"], timeout_s=10)


def _ready(cluster: Cluster, name: str, started_s: float) -> bool:
    node = cluster.node(name) or {}
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] == "True":
            return datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp() >= started_s
    return False


def _answers(cluster: Cluster, name: str) -> bool:
    """Whether the API server reaches the kubelet, and the kubelet knows its pods.

    It serves only once its certificate has been issued, and after a restart it answers "not found" for pods that it has
    not heard of yet.
    """
    try:
        known = cluster.rest.call("GET", f"{_NODES}/{name}/proxy/pods", timeout_s=5)
    except ClusterError:
        return False
    uids = {pod["metadata"]["uid"] for pod in json.loads(known).get("items") or []}
    return {pod["metadata"]["uid"] for pod in _pods(cluster, name)} <= uids


def forget(cluster: Cluster, name: str) -> None:
    """Remove a Node that has ended, and its pods, from the cluster: nobody is left to report their end."""
    for pod in _pods(cluster, name):
        cluster.delete({**pod, "apiVersion": "v1", "kind": "Pod"}, grace_s=0)
    cluster.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


def _pods(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    listing = cluster.rest.get("/api/v1/pods", fieldSelector=f"spec.nodeName={name}")
    return list(listing["items"])


def stop_all(lab: Path, *, only: str | None = None) -> list[str]:
    """End the container nodes below a lab's directory, whoever started them, and remove all that they made.

    Parameters
    ----------
    lab : Path
        Directory of the lab. Its control plane need not run; if it does, the Nodes are deleted from it.
    only : str, optional
        The name of one node.

    Returns
    -------
    list of str
        Names of the nodes that ran, or had left something.

    Raises
    ------
    ClusterError
        If something could not be removed.
    """
    from wasmlab.cluster.cluster import Cluster
    from wasmlab.cluster.statedir import StateDir

    ended = []
    cluster = Cluster.attach(lab) if StateDir(lab).control_plane() is not None else None
    for directory in sorted((lab / "containerd").glob("*/")):
        layout = Layout.of(directory)
        if not cleanup.traces(layout):
            continue
        record = processes.read_record(layout.record)
        name = str(record.get("name") or directory.name)
        if only is not None and name != only:
            continue
        cleanup.clean(layout)
        if cluster is not None:
            with contextlib.suppress(ClusterError):
                forget(cluster, name)
        layout.record.unlink(missing_ok=True)
        ended.append(name)
    return ended
