"""Which pods this node takes: pure decisions over a running account of what it has promised.

The scheduler decides by what it knows; a pod may be bound by hand, or by two schedulers, or just before the node ran
short of something. So the node looks again, as the kubelet does, and a pod that does not fit is Failed with a reason
that the controllers know, at once and for good.

References
----------
``k8s.io/kubernetes/pkg/kubelet/lifecycle/predicate.go``, ``pkg/kubelet/eviction/eviction_manager.go`` (``Admit``),
``pkg/kubelet/nodeshutdown`` (``Admit``), ``pkg/scheduler/framework/plugins/nodeports``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from wasmlab.node.spec import resources
from wasmlab.node.spec.resources import Amounts
from wasmlab.node.status.records import Verdict

Json = dict[str, Any]

HostPort = tuple[str, str, int]
"""Address, protocol and number."""

SYSTEM_CRITICAL = 2_000_000_000  # scheduling.SystemCriticalPriority
SHUTDOWN_REJECTED = "Pod was rejected as the node is shutting down."
_PORTS_TAKEN = (
    "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
)
_ANY = "0.0.0.0"
_MEMORY_PRESSURE = "MemoryPressure"
_MEMORY_TAINT = "node.kubernetes.io/memory-pressure"


class Account:
    """What the node has promised to which pod.

    Parameters
    ----------
    allocatable : mapping
        Of the Node.
    """

    def __init__(self, allocatable: Mapping[str, str]) -> None:
        # A test's node says nothing of what it has: then everything fits.
        self._allocatable = resources.amounts(allocatable) if allocatable else None
        self._used = Amounts()
        self._pods: dict[str, Amounts] = {}
        self._host_ports: dict[str, frozenset[HostPort]] = {}
        self.pressure: Collection[str] = ()
        self.shutting_down = False

    def admit(self, pod: Json) -> Verdict | None:
        """Take a pod, or say why not."""
        uid = pod["metadata"]["uid"]
        if uid in self._pods:
            return None
        if self.shutting_down:
            return Verdict("Failed", "NodeShutdown", SHUTDOWN_REJECTED)
        refused = _pressed(pod, self.pressure)
        if refused is not None:
            return refused
        try:
            asked = resources.requested(pod)
        except ValueError as error:
            return Verdict("Failed", "UnexpectedAdmissionError", f"Pod was rejected: {error}")
        if self._allocatable is not None:
            short = resources.shortage(asked, self._used, self._allocatable)
            if short is not None:
                return Verdict("Failed", *short)
        if any(
            _collide(one, other)
            for one in host_ports(pod)
            for used in self._host_ports.values()
            for other in used
        ):
            return Verdict("Failed", "NodePorts", _PORTS_TAKEN)
        self._take(pod, asked)
        return None

    def taken(self, pod: Json) -> None:
        """A pod runs here already: it counts, whether it fits or not."""
        uid = pod["metadata"]["uid"]
        if uid in self._pods:
            return
        try:
            self._take(pod, resources.requested(pod))
        except ValueError:
            self._take(pod, Amounts(pods=1))

    def _take(self, pod: Json, asked: Amounts) -> None:
        uid = pod["metadata"]["uid"]
        self._pods[uid] = asked
        if ports := host_ports(pod):
            self._host_ports[uid] = ports
        self._used += asked

    def release(self, uid: str) -> None:
        """A pod is over."""
        self._host_ports.pop(uid, None)
        asked = self._pods.pop(uid, None)
        if asked is not None:
            self._used -= asked

    @property
    def used(self) -> Amounts:
        """What is promised now."""
        return self._used


def host_ports(pod: Json) -> frozenset[HostPort]:
    """The ports of the node that a pod claims: those the scheduler counts, too (``NodePorts``)."""
    spec = pod["spec"]
    sidecars = (one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always")
    return frozenset(
        (one.get("hostIP") or _ANY, one.get("protocol") or "TCP", one["hostPort"])
        for container in (*spec.get("containers", ()), *sidecars)
        for one in container.get("ports") or ()
        if one.get("hostPort")
    )


def _collide(one: HostPort, other: HostPort) -> bool:
    return one[1:] == other[1:] and (one[0] == other[0] or _ANY in (one[0], other[0]))


def critical(pod: Json) -> bool:
    """Whether the cluster depends on it."""
    return int(pod["spec"].get("priority") or 0) >= SYSTEM_CRITICAL


def _pressed(pod: Json, pressure: Collection[str]) -> Verdict | None:
    if not pressure or critical(pod):
        return None
    lasting = resources.qos(pod) != resources.BEST_EFFORT
    if set(pressure) == {_MEMORY_PRESSURE} and (lasting or _tolerates(pod, _MEMORY_TAINT)):
        return None
    named = " ".join(sorted(pressure))
    return Verdict("Failed", "Evicted", f"Pod was rejected: The node had condition: [{named}]. ")


def _tolerates(pod: Json, taint: str) -> bool:
    """Whether a pod tolerates a taint without value and with effect NoSchedule."""
    for one in pod["spec"].get("tolerations") or ():
        if one.get("effect") not in (None, "", "NoSchedule"):
            continue
        exists = one.get("operator") == "Exists"
        if (one.get("key") == taint and (exists or not one.get("value"))) or (exists and not one.get("key")):
            return True
    return False
