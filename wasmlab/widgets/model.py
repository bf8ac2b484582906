"""What a board knows of a cluster, and how it words it. Pure: events go in, rows come out.

The words are kubectl's: a pod's status is what ``kubectl get pods`` prints in its column STATUS.

References
----------
kubernetes ``pkg/printers/internalversion/printers.go`` (`printPod`).
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = dict[str, Any]


class PodRow(NamedTuple):
    """One pod: what a line of the board says."""

    uid: str
    namespace: str
    name: str
    status: str
    restarts: int
    node: str
    age: str


class NodeRow(NamedTuple):
    """One node; `kind` says what runs there: ``wasm`` or ``containers``."""

    name: str
    status: str
    kind: str
    pods: int
    version: str


class State:
    """Nodes and pods as the API server last told."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Object]] = {"nodes": {}, "pods": {}}

    def replace(self, kind: str, items: list[Object]) -> None:
        """Take a listing: what it lacks is gone."""
        self._objects[kind] = {one["metadata"]["uid"]: one for one in items}

    def apply(self, kind: str, event: Object) -> None:
        """Take one watch event."""
        one = event["object"]
        if event["type"] == "DELETED":
            self._objects[kind].pop(one["metadata"]["uid"], None)
        elif event["type"] in ("ADDED", "MODIFIED"):
            self._objects[kind][one["metadata"]["uid"]] = one

    def pod(self, uid: str) -> Object | None:
        """Return a pod; None if it is gone."""
        return self._objects["pods"].get(uid)

    def pods(self, now: datetime | None = None) -> list[PodRow]:
        """Return the pods, the youngest first."""
        now = now or datetime.now(UTC)
        found = sorted(
            self._objects["pods"].values(),
            key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]),
            reverse=True,
        )
        return [
            PodRow(
                one["metadata"]["uid"],
                one["metadata"]["namespace"],
                one["metadata"]["name"],
                pod_status(one),
                sum(c.get("restartCount", 0) for c in one.get("status", {}).get("containerStatuses", [])),
                one["spec"].get("nodeName", ""),
                age(one["metadata"]["creationTimestamp"], now),
            )
            for one in found
        ]

    def nodes(self) -> list[NodeRow]:
        """Return the nodes by name."""
        busy = Counter(
            one["spec"].get("nodeName")
            for one in self._objects["pods"].values()
            if one.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        )
        return [
            NodeRow(
                name := one["metadata"]["name"],
                node_status(one),
                "wasm"
                if one["metadata"].get("labels", {}).get("kubernetes.io/arch") == "wasm32-wasi"
                else "containers",
                busy[name],
                one.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", ""),
            )
            for one in sorted(self._objects["nodes"].values(), key=lambda one: str(one["metadata"]["name"]))
        ]

    def counts(self) -> dict[str, int]:
        """Return how many pods are in which phase, in the order of a pod's life; phases without pods are left out."""
        found = Counter(
            one.get("status", {}).get("phase", "Pending") for one in self._objects["pods"].values()
        )
        return {
            phase: found[phase]
            for phase in ("Pending", "Running", "Succeeded", "Failed", "Unknown")
            if found[phase]
        }


def node_status(node: Object) -> str:
    """Return ``Ready``, ``NotReady`` or ``Unknown``, with ``SchedulingDisabled`` for a cordoned node."""
    ready = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions", [])}.get(
        "Ready", "Unknown"
    )
    status = {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown")
    return f"{status},SchedulingDisabled" if node.get("spec", {}).get("unschedulable") else status


def pod_status(pod: Object) -> str:
    """Return what ``kubectl get pods`` prints as STATUS."""
    status = pod.get("status", {})
    reason: str = status.get("reason") or status.get("phase", "Pending")
    for one in status.get("initContainerStatuses", []):
        state = one.get("state", {})
        if (ended := state.get("terminated")) is not None:
            if ended.get("exitCode") == 0:
                continue
            return _deleted(pod, f"Init:{_ended(ended)}")
        waiting = state.get("waiting", {}).get("reason")
        if waiting and waiting != "PodInitializing":
            return _deleted(pod, f"Init:{waiting}")
        if one.get("started"):
            continue  # a sidecar that runs
        done = sum(
            other.get("state", {}).get("terminated", {}).get("exitCode") == 0
            for other in status["initContainerStatuses"]
        )
        return _deleted(pod, f"Init:{done}/{len(status['initContainerStatuses'])}")
    for one in reversed(status.get("containerStatuses", [])):
        state = one.get("state", {})
        if state.get("waiting", {}).get("reason"):
            reason = state["waiting"]["reason"]
        elif "terminated" in state:
            reason = _ended(state["terminated"])
    return _deleted(pod, reason)


def _ended(state: Object) -> str:
    if state.get("reason"):
        return str(state["reason"])
    return f"Signal:{state['signal']}" if state.get("signal") else f"ExitCode:{state.get('exitCode')}"


def _deleted(pod: Object, reason: str) -> str:
    gone = pod["metadata"].get("deletionTimestamp")
    return (
        "Terminating"
        if gone and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        else reason
    )


def age(since: str, now: datetime) -> str:
    """Return how long ago a time of the API was: ``5s``, ``3m``, ``2h``, ``4d``."""
    seconds = max(0, int((now - datetime.fromisoformat(since)).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size or (unit != "m" and seconds >= size):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
