"""Which pods this node takes: pure decisions over a running account of what it has promised.

The scheduler decides by what it knows; a pod may be bound by hand, or by two schedulers, or just before the node ran
short of something. So the node looks again, as the kubelet does, and a pod that does not fit is Failed with a reason
that the controllers know, at once and for good.

References
----------
``k8s.io/kubernetes/pkg/kubelet/lifecycle/predicate.go``, ``pkg/kubelet/eviction/eviction_manager.go`` (``Admit``),
``pkg/kubelet/nodeshutdown`` (``Admit``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from wasmlab.node.spec import resources
from wasmlab.node.spec.resources import Amounts
from wasmlab.node.status.records import Verdict

Json = dict[str, Any]

SYSTEM_CRITICAL = 2_000_000_000  # scheduling.SystemCriticalPriority
SHUTDOWN_REJECTED = "Pod was rejected as the node is shutting down."
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
        self._take(uid, asked)
        return None

    def taken(self, pod: Json) -> None:
        """A pod runs here already: it counts, whether it fits or not."""
        uid = pod["metadata"]["uid"]
        if uid in self._pods:
            return
        try:
            self._take(uid, resources.requested(pod))
        except ValueError:
            self._take(uid, Amounts(pods=1))

    def _take(self, uid: str, asked: Amounts) -> None:
        self._pods[uid] = asked
        self._used += asked

    def release(self, uid: str) -> None:
        """A pod is over."""
        asked = self._pods.pop(uid, None)
        if asked is not None:
            self._used -= asked

    @property
    def used(self) -> Amounts:
        """What is promised now."""
        return self._used


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
