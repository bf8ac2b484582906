"""What pods ask of the node's processors and memory: requests, limits, quality of service, and what fits. Pure.

References
----------
``k8s.io/kubernetes/pkg/apis/core/v1/helper/qos/qos.go`` (classes), ``pkg/kubelet/qos/policy.go`` (scores for the
kernel's out of memory killer), ``pkg/kubelet/cm/helpers_linux.go`` (shares and quotas),
``pkg/kubelet/lifecycle/predicate.go`` (``InsufficientResourceError``: messages of rejections),
``pkg/api/v1/resource/helpers.go`` (a pod's sum).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wasmlab.node.api import quantity
from wasmlab.node.spec.podspec import Refused

Json = dict[str, Any]

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
PERIOD_US = 100_000
_MIN_QUOTA_US, _MIN_SHARES, _MAX_SHARES = 1000, 2, 262_144
# What a worker needs besides the guest's memory (its part of the interpreter and of the engine, as it writes to it):
# inside the container's limit, so taken off the guest's.
WORKER_BYTES = 8 << 20
# Where no control group holds the container, RLIMIT_DATA does: above the guest's own limit by what an engine may need.
SLACK_BYTES = 64 << 20
# (name, reason of a rejection); the unit is that of `Amounts`.
_NAMES = ("cpu", "memory", "ephemeral-storage", "pods")


@dataclass(frozen=True)
class Amounts:
    """So much of the node."""

    cpu: int = 0  # thousandths of a core
    memory: int = 0  # bytes
    ephemeral_storage: int = 0  # bytes
    pods: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.cpu + other.cpu,
            self.memory + other.memory,
            self.ephemeral_storage + other.ephemeral_storage,
            self.pods + other.pods,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        return self + Amounts(-other.cpu, -other.memory, -other.ephemeral_storage, -other.pods)

    def at_least(self, other: Amounts) -> Amounts:
        """The greater of each."""
        return Amounts(
            max(self.cpu, other.cpu),
            max(self.memory, other.memory),
            max(self.ephemeral_storage, other.ephemeral_storage),
            max(self.pods, other.pods),
        )


def amounts(values: Mapping[str, Any]) -> Amounts:
    """Read a v1.ResourceList; what is not of the four is left out.

    Raises
    ------
    ValueError
        Something is not a quantity.
    """
    return Amounts(
        quantity.milli(values.get("cpu", 0)),
        quantity.parse(values.get("memory", 0)),
        quantity.parse(values.get("ephemeral-storage", 0)),
        quantity.parse(values.get("pods", 0)),
    )


def _of(container: Json, kind: str) -> Json:
    found: Json = (container.get("resources") or {}).get(kind) or {}
    return found


def _requests(container: Json) -> Amounts:
    found = _of(container, "requests")
    return amounts(found) if found else Amounts()


def requested(pod: Json) -> Amounts:
    """What a pod asks for: its containers together, or the largest moment of its initialization if that is more.

    Raises
    ------
    ValueError
        Something is not a quantity.
    """
    spec = pod["spec"]
    total = Amounts()
    for container in spec["containers"]:
        total += _requests(container)
    sidecars, moment = Amounts(), Amounts()
    for container in spec.get("initContainers") or ():
        one = _requests(container)
        if container.get("restartPolicy") == "Always":  # it stays beside all that follow
            sidecars += one
            one = sidecars
        else:
            one += sidecars
        moment = moment.at_least(one)
    total = (total + sidecars).at_least(moment)
    of_pod = (spec.get("resources") or {}).get("requests")
    if of_pod:
        stated = amounts(of_pod)
        total = Amounts(
            stated.cpu if "cpu" in of_pod else total.cpu,
            stated.memory if "memory" in of_pod else total.memory,
            total.ephemeral_storage,
        )
    if spec.get("overhead"):
        total += amounts(spec["overhead"])
    return total + Amounts(pods=1)


def shortage(pod: Amounts, used: Amounts, allocatable: Amounts) -> tuple[str, str] | None:
    """Why a pod does not fit beside what is there: (reason, message) of its rejection; None if it fits."""
    for name in _NAMES:
        field = name.replace("-", "_")
        want, have, most = (getattr(one, field) for one in (pod, used, allocatable))
        if want and have + want > most:
            return (
                f"OutOf{name}",
                f"Pod was rejected: Node didn't have enough resource: {name}, requested: {want}, used: {have},"
                f" capacity: {most}",
            )
    return None


def qos(pod: Json) -> str:
    """The pod's quality of service class, as the API server computes it."""
    spec = pod["spec"]
    told: str = (pod.get("status") or {}).get("qosClass") or ""
    if told:
        return told
    containers = [*spec["containers"], *(spec.get("initContainers") or ())]
    some = any(
        _of(c, kind).get(name) for c in containers for kind in ("requests", "limits") for name in _NAMES[:2]
    )
    if not some:
        return BEST_EFFORT
    for container in containers:
        limits = _of(container, "limits")
        if any(not limits.get(name) for name in _NAMES[:2]):
            return BURSTABLE
        requests = {**limits, **_of(container, "requests")}
        if any(quantity.exact(requests[name]) != quantity.exact(limits[name]) for name in _NAMES[:2]):
            return BURSTABLE
    return GUARANTEED


def oom_score_adj(pod: Json, container: Json, capacity_bytes: int) -> int:
    """How willingly the kernel should kill the container when the node runs out of memory.

    The kubelet's values, but never below 3: the kubelet protects a Guaranteed container more than the node's own
    processes (-997); here the node, which holds all modules, goes after each of them.
    """
    quality = qos(pod)
    if quality == BEST_EFFORT:
        return 1000
    if quality == GUARANTEED:
        return 3
    request = quantity.parse(_of(container, "requests").get("memory", 0))
    return min(999, max(3, 1000 - 1000 * request // max(1, capacity_bytes)))


@dataclass(frozen=True)
class Limits:
    """What is set up for one container.

    Attributes
    ----------
    cgroup : dict
        In the form of an OCI spec's ``linux.resources``; empty if the container asks for nothing.
    memory_bytes : int or None
        Its memory limit.
    """

    cgroup: Json
    memory_bytes: int | None

    @property
    def guest_bytes(self) -> int | None:
        """Most linear memory: the limit less what the worker needs, at least half of it.

        A guest that grows to this sees its allocation fail, and may go on with what it has; what the engine holds for
        it on top is the control group's to stop.
        """
        limit = self.memory_bytes
        return None if limit is None else max(limit // 2, limit - WORKER_BYTES)


def limits(container: Json) -> Limits:
    """Read a container's requests and limits.

    Raises
    ------
    Refused
        Something is not a quantity.
    """
    asked, most = _of(container, "requests"), _of(container, "limits")
    if not asked and not most:
        return Limits({}, None)
    try:
        shares = quantity.milli(asked.get("cpu") or most.get("cpu") or 0)
        quota = quantity.milli(most.get("cpu", 0))
        memory = quantity.parse(most.get("memory", 0))
        quantity.parse(asked.get("memory", 0))
    except ValueError as error:
        raise Refused(f"resources: {error}") from None
    cpu: Json = {}
    if shares or quota:
        cpu["shares"] = min(_MAX_SHARES, max(_MIN_SHARES, shares * 1024 // 1000))
    if quota:
        cpu |= {"quota": max(_MIN_QUOTA_US, quota * PERIOD_US // 1000), "period": PERIOD_US}
    group: Json = {"cpu": cpu} if cpu else {}
    if memory:
        # No swap: a limit is a limit.
        group["memory"] = {"limit": memory, "swap": memory}
    return Limits(group, memory or None)
