"""The Node as the article's `kubectl describe node` shows it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from wasmlab.node.host import machine
from wasmlab.node.host.disk import Disk
from wasmlab.node.membership import nodeobject
from wasmlab.node.membership.nodeobject import NodeFacts

NOW = 1_800_000_000.25
ROOMY = Disk(100 * 2**30, 50 * 2**30, 1000, 900)


def facts(disk: Disk = ROOMY) -> NodeFacts:
    return NodeFacts(
        name="n1",
        hostname="h1",
        address="192.0.2.1",
        port=10250,
        kubelet_version="v0.1.0+wasmlab",
        capacity={"cpu": "2", "pods": "110"},
        allocatable={"cpu": "2", "pods": "110"},
        system={"kernelVersion": "6.1"},
        disk=disk,
        pod_cidr="10.244.0.0/24",
        extra_labels={"zone": "a", "type": "mine"},
    )


def test_row_3_of_the_brief() -> None:
    node = nodeobject.node(facts(), NOW)
    labels = node["metadata"]["labels"]
    for key in ("beta.kubernetes.io/arch", "beta.kubernetes.io/os", "kubernetes.io/arch", "kubernetes.io/os"):
        assert labels[key] == "wasm32-wasi"
    assert labels["kubernetes.io/hostname"] == "h1"
    assert labels["type"] == "krustlet"  # the user's own label of that name does not win
    assert labels["zone"] == "a"
    taints = {(t["key"], t["value"], t["effect"]) for t in node["spec"]["taints"]}
    assert taints == {
        ("kubernetes.io/arch", "wasm32-wasi", "NoExecute"),
        ("kubernetes.io/arch", "wasm32-wasi", "NoSchedule"),
    }
    info = node["status"]["nodeInfo"]
    assert info["architecture"] == "wasm-wasi"
    assert info["operatingSystem"] == "linux"
    assert info["containerRuntimeVersion"] == "mvp"
    assert info["kubeletVersion"] == "v0.1.0+wasmlab"
    assert node["spec"]["podCIDR"] == "10.244.0.0/24"
    assert {a["type"]: a["address"] for a in node["status"]["addresses"]} == {
        "InternalIP": "192.0.2.1",
        "Hostname": "h1",
    }
    conditions = {c["type"]: (c["status"], c["reason"]) for c in node["status"]["conditions"]}
    assert conditions == {
        "Ready": ("True", "KubeletReady"),
        "OutOfDisk": ("False", "KubeletHasSufficientDisk"),
        "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID"),
    }
    assert node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250


def test_a_full_disk_is_said_and_its_transition_dated() -> None:
    before = nodeobject.conditions(facts(), NOW)
    full = facts(Disk(100 * 2**30, 1 * 2**30))
    after = {c["type"]: c for c in nodeobject.conditions(full, NOW + 10, before)}
    assert after["OutOfDisk"]["status"] == "True"
    assert "1024 MiB" in after["OutOfDisk"]["message"]
    assert after["OutOfDisk"]["lastTransitionTime"] == "2027-01-15T08:00:10Z"
    assert after["Ready"]["lastTransitionTime"] == "2027-01-15T08:00:00Z"
    assert after["Ready"]["lastHeartbeatTime"] == "2027-01-15T08:00:10Z"


def test_pressure_and_a_problem_are_said_with_their_reason() -> None:
    bad = dataclasses.replace(
        facts(), pressure={"MemoryPressure": "memory.available is 1, below 2"}, problem="no zygote"
    )
    told = {c["type"]: c for c in nodeobject.conditions(bad, NOW)}
    assert (told["Ready"]["status"], told["Ready"]["reason"]) == ("False", "KubeletNotReady")
    assert told["Ready"]["message"] == "no zygote"
    assert told["MemoryPressure"]["status"] == "True"
    assert told["MemoryPressure"]["reason"] == "KubeletHasInsufficientMemory"
    assert "below 2" in told["MemoryPressure"]["message"]
    assert told["DiskPressure"]["status"] == "False"


def test_a_stated_capacity_counts_instead_of_the_machines(tmp_path: Path) -> None:
    stated = {"cpu": "4", "memory": "8Gi", "pods": "500"}
    capacity, allocatable = machine.resources(tmp_path, 110, stated)
    assert {name: capacity[name] for name in stated} == stated
    assert (allocatable["cpu"], allocatable["pods"]) == ("4", "500")
    assert allocatable["memory"] == f"{8 * 2**20 - 100 * 2**10}Ki"
    assert capacity["ephemeral-storage"].endswith("Ki")


def test_what_is_measured(tmp_path: Path) -> None:
    for name, level in machine.signals(tmp_path).items():
        assert 0 < level.available <= level.capacity, name


def test_disk_lines() -> None:
    assert not ROOMY.full
    assert Disk(100, 9).full
    assert Disk(100, 50, 1000, 10).full  # no inodes left
    assert not Disk(10 * 2**40, 20 * 2**30).full  # a huge disk does not need a tenth free


def test_lease_times_keep_six_decimals() -> None:
    # The API server rejects a MicroTime without them, and .000000 is the case that libraries drop.
    assert nodeobject.lease_renewal("n1", 1_800_000_000)["spec"]["renewTime"] == "2027-01-15T08:00:00.000000Z"
    lease = nodeobject.lease("n1", "uid-1", NOW)
    assert lease["spec"]["renewTime"] == "2027-01-15T08:00:00.250000Z"
    assert lease["spec"]["leaseDurationSeconds"] == 40
    assert lease["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


def test_missing_taints_are_named() -> None:
    assert nodeobject.missing_taints({"spec": {"taints": nodeobject.TAINTS[:1]}}) == [
        "kubernetes.io/arch=wasm32-wasi:NoSchedule"
    ]
    assert nodeobject.missing_taints(nodeobject.node(facts(), NOW)) == []


def test_capacity_is_read_from_the_machine(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import os

    capacity, allocatable = machine.resources(tmp_path, 110)
    assert set(capacity) == {"cpu", "memory", "ephemeral-storage", "hugepages-1Gi", "hugepages-2Mi", "pods"}
    assert int(capacity["cpu"]) == len(os.sched_getaffinity(0))
    assert (
        0
        < int(capacity["memory"].removesuffix("Ki"))
        <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    )
    assert int(allocatable["memory"].removesuffix("Ki")) < int(capacity["memory"].removesuffix("Ki"))
    assert capacity["pods"] == "110"
    assert machine.system()["kernelVersion"]
