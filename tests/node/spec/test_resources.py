"""Requests, limits, classes, and which pods a node takes."""

from __future__ import annotations

from typing import Any

import pytest

from wasmlab.node.pods.admission import Account
from wasmlab.node.spec import resources
from wasmlab.node.spec.podspec import Refused
from wasmlab.node.spec.resources import Amounts

MI = 1 << 20


def container(name: str = "c", requests: Any = None, limits: Any = None, **more: Any) -> dict[str, Any]:
    found = {"requests": requests, "limits": limits}
    return {"name": name, "resources": {k: v for k, v in found.items() if v}, **more}


def pod(*containers: dict[str, Any], uid: str = "u", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid}, "spec": {"containers": list(containers) or [container()], **spec}}


@pytest.mark.parametrize(
    ("containers", "quality"),
    [
        ([container()], "BestEffort"),
        ([container(requests={"cpu": "1"})], "Burstable"),
        ([container(limits={"cpu": "1"})], "Burstable"),
        ([container(limits={"cpu": "1", "memory": "1Gi"})], "Guaranteed"),
        (
            [container(requests={"cpu": "1000m", "memory": "1Gi"}, limits={"cpu": "1", "memory": "1024Mi"})],
            "Guaranteed",
        ),
        (
            [container(requests={"cpu": "1", "memory": "1Mi"}, limits={"cpu": "1", "memory": "1Gi"})],
            "Burstable",
        ),
        ([container(limits={"cpu": "1", "memory": "1Gi"}), container("d")], "Burstable"),
        ([container(requests={"ephemeral-storage": "1Gi"})], "BestEffort"),
    ],
)
def test_quality_of_service(containers: list[dict[str, Any]], quality: str) -> None:
    assert resources.qos(pod(*containers)) == quality


def test_the_api_servers_word_counts() -> None:
    assert resources.qos({**pod(), "status": {"qosClass": "Guaranteed"}}) == "Guaranteed"


def test_scores_for_the_kernel() -> None:
    burstable = container(requests={"memory": "256Mi"})
    assert resources.oom_score_adj(pod(), container(), 1024 * MI) == 1000
    assert resources.oom_score_adj(pod(burstable), burstable, 1024 * MI) == 750
    huge = container(requests={"memory": "8Gi"})
    assert resources.oom_score_adj(pod(huge), huge, 1024 * MI) == 3
    sure = container(limits={"cpu": "1", "memory": "1Gi"})
    assert resources.oom_score_adj(pod(sure), sure, 1024 * MI) == 3


def test_what_a_pod_asks_for() -> None:
    made = pod(
        container(requests={"cpu": "250m", "memory": "64Mi"}),
        container("d", requests={"cpu": "250m"}),
        initContainers=[
            container("side", requests={"cpu": "100m"}, restartPolicy="Always"),
            container("first", requests={"cpu": "1", "memory": "16Mi"}),
        ],
    )
    assert resources.requested(made) == Amounts(cpu=1100, memory=64 * MI, pods=1)
    made["spec"]["overhead"] = {"memory": "1Mi"}
    assert resources.requested(made).memory == 65 * MI
    made["spec"]["resources"] = {"requests": {"cpu": "3"}}
    assert resources.requested(made).cpu == 3000


def test_limits_of_a_control_group() -> None:
    assert resources.limits(container()) == resources.Limits({}, None)
    some = resources.limits(container(requests={"cpu": "250m"}, limits={"cpu": "500m", "memory": "64Mi"}))
    assert some.cgroup == {
        "cpu": {"shares": 256, "quota": 50_000, "period": 100_000},
        "memory": {"limit": 64 * MI, "swap": 64 * MI},
    }
    assert some.guest_bytes == 56 * MI
    assert resources.limits(container(limits={"memory": "10Mi"})).guest_bytes == 5 * MI
    assert resources.limits(container(limits={"cpu": "1m"})).cgroup["cpu"]["quota"] == 1000
    assert resources.limits(container(requests={"cpu": "1m"})).cgroup["cpu"] == {"shares": 2}
    with pytest.raises(Refused, match="quantity"):
        resources.limits(container(limits={"memory": "lots"}))


ALLOCATABLE = {"cpu": "2", "memory": "1Gi", "pods": "3", "ephemeral-storage": "1Gi"}


def test_what_does_not_fit_is_named_as_the_kubelet_does() -> None:
    account = Account(ALLOCATABLE)
    assert account.admit(pod(container(requests={"cpu": "500m"}), uid="a")) is None
    refused = account.admit(pod(container(requests={"cpu": "2"}), uid="b"))
    assert refused is not None
    assert (refused.phase, refused.reason) == ("Failed", "OutOfcpu")
    assert refused.message == (
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 500, capacity: 2000"
    )
    memory = account.admit(pod(container(requests={"memory": "2Gi"}), uid="c"))
    assert memory is not None
    assert memory.reason == "OutOfmemory"


def test_what_is_over_makes_room() -> None:
    account = Account(ALLOCATABLE)
    for uid in "abc":
        assert account.admit(pod(uid=uid)) is None
    assert account.admit(pod(uid="a")) is None  # it is here already
    full = account.admit(pod(uid="d"))
    assert full is not None
    assert full.reason == "OutOfpods"
    account.release("b")
    account.release("b")
    assert account.admit(pod(uid="d")) is None
    assert account.used.pods == 3


def test_what_runs_already_is_not_put_out() -> None:
    account = Account(ALLOCATABLE)
    account.taken(pod(container(requests={"cpu": "64"}), uid="old"))
    assert account.used.cpu == 64_000
    refused = account.admit(pod(container(requests={"cpu": "1m"}), uid="new"))
    assert refused is not None


def test_a_node_under_pressure_takes_what_may_stay() -> None:
    account = Account({})
    burstable = container(requests={"cpu": "1m"})
    account.pressure = {"MemoryPressure"}
    refused = account.admit(pod(uid="a"))
    assert refused is not None
    assert (refused.reason, refused.message) == (
        "Evicted",
        "Pod was rejected: The node had condition: [MemoryPressure]. ",
    )
    assert account.admit(pod(burstable, uid="b")) is None
    tolerant = [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]
    assert account.admit(pod(uid="c", tolerations=tolerant)) is None
    account.pressure = {"DiskPressure"}
    assert account.admit(pod(burstable, uid="d")) is not None
    assert account.admit(pod(uid="e", priority=2_000_000_000)) is None
    account.pressure = ()
    account.shutting_down = True
    late = account.admit(pod(uid="f"))
    assert late is not None
    assert late.reason == "NodeShutdown"
