"""What a board knows of a cluster, and how it words it. Pure: events go in, rows come out.

The words are kubectl's: a pod's status is what ``kubectl get pods`` prints in its column STATUS.

References
----------
kubernetes ``pkg/printers/internalversion/printers.go`` (`printPod`).
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, NamedTuple

from wasmlab.cluster.manifests import ARCH, ARCH_LABEL

Object = dict[str, Any]


class PodRow(NamedTuple):
    """One pod: what a line of the board says."""

    uid: str
    namespace: str
    name: str
    status: str
    restarts: int
    node: str
    created: str


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
        self._objects[kind] = {one["metadata"]["uid"]: _lean(one) for one in items}

    def apply(self, kind: str, event: Object) -> None:
        """Take one watch event."""
        one = event["object"]
        if event["type"] == "DELETED":
            self._objects[kind].pop(one["metadata"]["uid"], None)
        elif event["type"] in ("ADDED", "MODIFIED"):
            self._objects[kind][one["metadata"]["uid"]] = _lean(one)

    def pod(self, uid: str) -> Object | None:
        """Return a pod; None if it is gone."""
        return self._objects["pods"].get(uid)

    def pods(
        self, containing: str = "", most: int | None = None, also: str | None = None
    ) -> tuple[list[PodRow], int]:
        """Return the pods, the youngest first, at most so many of those whose line has a text; and how many have it.

        The one whose uid is `also` is among them even if it is older.
        """
        found = self._by_age()[::-1]
        if containing:
            found = [one for one in found if containing.casefold() in _searched(one)]
        shown = found[:most]
        shown += [one for one in found[len(shown) :] if one["metadata"]["uid"] == also]
        rows = [
            PodRow(
                one["metadata"]["uid"],
                one["metadata"]["namespace"],
                one["metadata"]["name"],
                pod_status(one),
                sum(c.get("restartCount", 0) for c in one.get("status", {}).get("containerStatuses", [])),
                one["spec"].get("nodeName", ""),
                clock(one["metadata"]["creationTimestamp"]),
            )
            for one in shown
        ]
        return rows, len(found)

    def phases(self) -> list[str]:
        """Return the phase of every pod, the oldest first."""
        return [one.get("status", {}).get("phase", "Pending") for one in self._by_age()]

    def an_image(self) -> str:
        """Return the image of the youngest pod that has a WASM node's toleration; empty if there is none."""
        for one in reversed(self._by_age()):
            if any(toleration.get("key") == ARCH_LABEL for toleration in one["spec"].get("tolerations", [])):
                return str(one["spec"]["containers"][0]["image"])
        return ""

    def _by_age(self) -> list[Object]:
        return sorted(
            self._objects["pods"].values(),
            key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]),
        )

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
                "wasm" if one["metadata"].get("labels", {}).get(ARCH_LABEL) == ARCH else "containers",
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


def clock(when: str) -> str:
    """Return a time of the API as this machine's clock shows it: unlike an age it stays true."""
    return datetime.fromisoformat(when).astimezone().strftime("%H:%M:%S")


def _searched(pod: Object) -> str:
    meta = pod["metadata"]
    node = pod["spec"].get("nodeName", "")
    return f"{meta['namespace']}/{meta['name']} {pod_status(pod)} {node}".casefold()


def _lean(one: Object) -> Object:
    # Half of an object, which nobody reads; thousands of pods are kept.
    one["metadata"].pop("managedFields", None)
    return one
