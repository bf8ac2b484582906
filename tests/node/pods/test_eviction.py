"""Which pod is put out first, by the kubelet's rules, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from wasmlab.node.host.pressure import Shortage
from wasmlab.node.pods import eviction
from wasmlab.node.pods.eviction import DISK, INODES, MEMORY, PIDS, Use

MI = 1 << 20


def pod(
    name: str, *, priority: int | None = None, created: str = "2026-01-01T00:00:00Z", **requests: str
) -> dict[str, Any]:
    asked = {key.replace("_", "-"): value for key, value in requests.items()}
    container = {"name": "c", "resources": {"requests": asked} if asked else {}}
    spec: dict[str, Any] = {"containers": [container]}
    if priority is not None:
        spec["priority"] = priority
    return {"metadata": {"uid": name, "name": name, "creationTimestamp": created}, "spec": spec}


def names(pods: list[dict[str, Any]], uses: dict[str, Use], resource: str) -> str:
    return " ".join(one["metadata"]["name"] for one in eviction.order(pods, uses, resource))


def memory(**mebibytes: int) -> dict[str, Use]:
    return {name: Use(memory_bytes=value * MI) for name, value in mebibytes.items()}


def test_memory_over_the_request_comes_before_priority_and_priority_before_the_amount() -> None:
    pods = [
        pod("within", memory="100Mi"),
        pod("above", memory="10Mi"),
        pod("far", memory="10Mi"),
        pod("important", priority=100, memory="10Mi"),
        pod("besteffort"),
        pod("within-unimportant", priority=-5, memory="100Mi"),
    ]
    uses = memory(within=90, above=20, far=70, important=500, besteffort=30)
    uses["within-unimportant"] = Use(memory_bytes=MI)
    assert names(pods, uses, MEMORY) == "far besteffort above important within-unimportant within"


def test_a_pod_exactly_at_its_request_is_within_it() -> None:
    pods = [pod("at", priority=-1, memory="10Mi"), pod("over", priority=50, memory="10Mi")]
    uses = memory(at=10) | {"over": Use(memory_bytes=10 * MI + 1)}
    assert names(pods, uses, MEMORY) == "over at"


def test_the_disk_and_its_inodes_are_ranked_apart() -> None:
    pods = [pod("small", ephemeral_storage="1Mi"), pod("large", ephemeral_storage="1Gi"), pod("many")]
    uses = {
        "small": Use(disk_bytes=5 * MI, inodes=2),
        "large": Use(disk_bytes=90 * MI, inodes=3),
        "many": Use(disk_bytes=MI, inodes=900),
    }
    assert names(pods, uses, DISK) == "small many large"
    assert names(pods, uses, INODES) == "many large small"


def test_nobody_requests_processes() -> None:
    pods = [pod("many", memory="1Gi"), pod("few"), pod("unimportant", priority=-1)]
    uses = {"many": Use(processes=9), "few": Use(processes=2), "unimportant": Use(processes=1)}
    assert names(pods, uses, PIDS) == "unimportant many few"


def test_what_does_not_run_uses_nothing_and_of_equals_the_younger_goes() -> None:
    pods = [
        pod("old", created="2026-01-01T00:00:00Z"),
        pod("young", created="2026-02-01T00:00:00Z"),
        pod("pulling", priority=-7),
    ]
    assert names(pods, memory(old=1, young=1), MEMORY) == "young old pulling"


@pytest.mark.parametrize("resource", [MEMORY, DISK, INODES, PIDS])
def test_the_critical_stay(resource: str) -> None:
    critical = pod("critical", priority=2_000_000_000)
    assert names([critical, pod("other")], {}, resource) == "other"


def test_memory_is_won_back_before_anything_else() -> None:
    disk, memory_ = Shortage("nodefs.available", 1, "10Gi"), Shortage("memory.available", 1, "100Mi")
    assert eviction.most_urgent([disk, memory_]) == (MEMORY, memory_)
    assert eviction.most_urgent([disk]) == (DISK, disk)
    assert eviction.most_urgent([Shortage("pid.available", 1, "2")]) == (
        PIDS,
        Shortage("pid.available", 1, "2"),
    )
    assert eviction.most_urgent([]) is None


def test_the_message_is_the_kubelets() -> None:
    shortage = Shortage("memory.available", 52 * MI, "100Mi")
    use = Use(memory_bytes=20 * MI, containers={"c": {MEMORY: 20 * MI, DISK: 5000}})
    low = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. "
    one = pod("p", memory="10Mi")
    assert eviction.message(one, use, MEMORY, shortage) == (
        f"{low}Container c was using 20Mi, request is 10Mi, has larger consumption of memory. "
    )
    assert eviction.message(pod("p", memory="20Mi"), use, MEMORY, shortage) == low
    assert "request is 0, has" in eviction.message(pod("p"), use, MEMORY, shortage)
    assert eviction.message(one, Use(), MEMORY, shortage) == low
    disk = Shortage("nodefs.available", 1000, "10Gi")
    assert eviction.message(one, use, DISK, disk) == (
        "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 1000. "
        "Container c was using 5000, request is 0, has larger consumption of ephemeral-storage. "
    )
