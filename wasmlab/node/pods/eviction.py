"""Which pod goes first when the node is short of something, and what it is told: pure.

The kubelet's order. Of memory and disk: who uses more than it requested goes before who does not, then the lower
priority, then the larger use over the request; a BestEffort pod requests nothing, so that quality of service follows
from it. Of processes, which nobody requests: the lower priority, then the larger number. Critical pods never go.

Two things differ. A pod of which nothing runs uses nothing, as its end would give nothing back (the kubelet takes it
for one that hides what it uses, and lets it go first). And where the kubelet leaves the order open, the younger goes
first: it has done less.

References
----------
``k8s.io/kubernetes/pkg/kubelet/eviction/helpers.go`` (``rankMemoryPressure``, ``rankDiskPressureFunc``,
``rankPIDPressure``, ``evictionMessage``), ``eviction_manager.go`` (``synchronize``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wasmlab.node.api import quantity
from wasmlab.node.host.pressure import Shortage
from wasmlab.node.pods.admission import critical
from wasmlab.node.spec import resources

Json = dict[str, Any]

MEMORY, DISK, INODES, PIDS = "memory", "ephemeral-storage", "inodes", "pids"
_RESOURCES = {
    "memory.available": MEMORY,
    "nodefs.available": DISK,
    "imagefs.available": DISK,
    "nodefs.inodesFree": INODES,
    "imagefs.inodesFree": INODES,
    "pid.available": PIDS,
}


@dataclass(frozen=True)
class Use:
    """What a pod uses of the node.

    Attributes
    ----------
    containers : mapping
        Of each container that runs: resource -> bytes.
    """

    memory_bytes: int = 0
    disk_bytes: int = 0
    inodes: int = 0
    processes: int = 0
    containers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, resource: str) -> int:
        """How much of a resource."""
        return {
            MEMORY: self.memory_bytes, DISK: self.disk_bytes, INODES: self.inodes, PIDS: self.processes
        }[resource]  # fmt: skip


def most_urgent(shortages: Iterable[Shortage]) -> tuple[str, Shortage] | None:
    """Which resource to win back first: memory before all others."""
    found = [(_RESOURCES[one.signal], one) for one in shortages]
    return min(found, key=lambda one: one[0] != MEMORY, default=None)


def order(pods: Sequence[Json], uses: Mapping[str, Use], resource: str) -> list[Json]:
    """Sort pods, the first to go first.

    Parameters
    ----------
    pods : sequence of dict
        Those that are not over.
    uses : mapping
        UID -> what the pod uses; one that is missing uses nothing.
    resource : str
        What the node is short of.
    """

    def place(pod: Json) -> tuple[Any, ...]:
        used = uses.get(pod["metadata"]["uid"], Use()).of(resource)
        priority = int(pod["spec"].get("priority") or 0)
        if resource == PIDS:
            return priority, -used
        over = used - _requested(pod, resource)
        return over <= 0, priority, -over

    young_first = sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp") or "", reverse=True)
    return sorted((pod for pod in young_first if not critical(pod)), key=place)


def _requested(pod: Json, resource: str) -> int:
    try:
        asked = resources.requested(pod)
    except ValueError:
        return 0  # such a pod was not admitted
    return {MEMORY: asked.memory, DISK: asked.ephemeral_storage}.get(resource, 0)


def message(pod: Json, use: Use, resource: str, shortage: Shortage) -> str:
    """What the status of an evicted pod says."""
    said = f"The node was low on resource: {resource}. "
    said += f"Threshold quantity: {shortage.threshold}, available: {quantity.text(shortage.available)}. "
    if resource not in (MEMORY, DISK):
        return said
    spec = pod["spec"]
    for container in (*spec["containers"], *(spec.get("initContainers") or ())):
        used = use.containers.get(container["name"], {}).get(resource)
        asked = ((container.get("resources") or {}).get("requests") or {}).get(resource, "0")
        if used is not None and used > quantity.parse(asked):
            said += (
                f"Container {container['name']} was using {quantity.text(used)}, request is {asked}, has larger"
                f" consumption of {resource}. "
            )
    return said
