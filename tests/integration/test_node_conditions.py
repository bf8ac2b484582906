"""What a node says of itself: its capacity, its readiness, its pressures, and that it ends with its pods."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.node.lab import NodeLab, push, retire, terminated, until
from wasmlab.cluster import processes
from wasmlab.errors import ClusterError

pytestmark = pytest.mark.integration

Name = Callable[[str], str]


@pytest.fixture(scope="module")
def lab(cluster: Any) -> Iterator[NodeLab]:
    args = ["--capacity", "cpu=4,memory=8Gi,pods=7", "--node-check-s", "0.3", "--image-gc-s", "0.5"]
    args += ["--volume-sync-s", "0.5"]
    # Any disk is fuller than this, and then all that is not in use goes.
    args += ["--image-gc-high-threshold", "1", "--image-gc-low-threshold", "0", "--minimum-image-age-s", "0"]
    node = cluster.add_node("tight", args=tuple(args))
    yield NodeLab(cluster, node)
    retire(cluster, node)


def condition(lab: NodeLab, kind: str) -> dict[str, str]:
    status = lab.cluster.rest.get(f"/api/v1/nodes/{lab.node.name}")["status"]
    return next((c for c in status["conditions"] if c["type"] == kind), {})


def until_condition(lab: NodeLab, kind: str, status: str, **said: str) -> dict[str, str]:
    def probe() -> dict[str, str] | None:
        found = condition(lab, kind)
        agrees = found.get("status") == status and all(text in found[key] for key, text in said.items())
        return found if agrees else None

    return until(f"{kind} is {status} {said}", probe, 60)


def output(lab: NodeLab, name: str) -> str:
    try:
        return lab.cluster.logs(name)
    except ClusterError:  # it has not started yet
        return ""


def taints(lab: NodeLab) -> list[str]:
    spec = lab.cluster.rest.get(f"/api/v1/nodes/{lab.node.name}")["spec"]
    return [taint["key"] for taint in spec.get("taints") or ()]


def test_a_stated_capacity(lab: NodeLab) -> None:
    status = lab.cluster.rest.get(f"/api/v1/nodes/{lab.node.name}")["status"]
    assert (status["capacity"]["cpu"], status["capacity"]["memory"]) == ("4", "8Gi")
    assert status["allocatable"]["pods"] == "7"
    for kind in ("MemoryPressure", "DiskPressure", "PIDPressure"):
        assert condition(lab, kind)["status"] == "False"


def test_modules_that_nobody_uses_go_and_those_in_use_stay(lab: NodeLab, unique: Name) -> None:
    used, unused = unique("used"), unique("unused")
    lab.apply(used, push(lab.cluster, "sleep", repository=used), args=["600"])
    lab.running(used)
    lab.run(unused, push(lab.cluster, "hello", repository=unused))
    blobs = lab.node.dir / "modules" / "blobs" / "sha256"
    until("one module is left", lambda: len(list(blobs.glob("*.wasm"))) == 1)
    assert lab.get(used)["status"]["phase"] == "Running"
    # What was removed is pulled again when it is asked for.
    again = unique("again")
    assert lab.run(again, f"{lab.cluster.registry}/{unused}:v1")["status"]["phase"] == "Succeeded"
    lab.cluster.delete(lab.get(used))
    lab.cluster.wait_gone(used, timeout_s=60)


def test_a_node_whose_sandbox_does_not_work_is_not_ready(lab: NodeLab, unique: Name) -> None:
    sandbox, aside = lab.node.dir / "sandbox", lab.node.dir / "sandbox.aside"
    sandbox.rename(aside)
    sandbox.write_text("in the way")
    for zygote in processes.sandboxes_under(lab.node.dir):
        os.kill(zygote.pid, signal.SIGKILL)
    try:
        said = until_condition(lab, "Ready", "False")
        assert said["reason"] == "KubeletNotReady"
        assert "the sandbox of engine wasmtime" in said["message"]
    finally:
        sandbox.unlink()
        aside.rename(sandbox)
    assert until_condition(lab, "Ready", "True")["reason"] == "KubeletReady"
    image = push(lab.cluster, "hello")
    assert lab.run(unique("after"), image, timeout_s=60)["status"]["phase"] == "Succeeded"


def test_pressure_puts_pods_out_keeps_others_away_and_shutdown_ends_them(lab: NodeLab, unique: Name) -> None:
    node, image = lab.node, push(lab.cluster, "sleep")
    # A pod that an agent starts and the next one looks after: its volumes go on following.
    mine = unique("adopted")
    source: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": mine}, "data": {}}
    lab.cluster.apply({**source, "data": {"k": "one"}})
    critical_class = {"priorityClassName": "system-node-critical"}
    lab.apply(
        mine,
        push(lab.cluster, "probe"),
        args=["wait:/cm/k=one", "wait:/cm/k=two", "sleep:600"],
        container={"volumeMounts": [{"name": "cm", "mountPath": "/cm"}]},
        spec={"volumes": [{"name": "cm", "configMap": {"name": mine}}], **critical_class},
    )
    until("it has seen the first", lambda: "one" in output(lab, mine))
    # Two that will have to go: the one uses more than it asked for, the other less.
    greedy, modest = unique("greedy"), unique("modest")
    lab.apply(modest, image, args=["600"], container={"resources": {"requests": {"memory": "256Mi"}}})
    lab.apply(greedy, image, args=["600"])
    lab.running(modest)
    lab.running(greedy)
    node.args = (*node.args, "--eviction-hard", "memory.available<1000Gi", "--shutdown-grace-period", "40")
    node.args = (*node.args, "--shutdown-grace-period-critical-pods", "20")
    node.restart(60)
    said = until_condition(lab, "MemoryPressure", "True")
    assert said["reason"] == "KubeletHasInsufficientMemory"
    assert "memory.available is" in said["message"]

    low = "The node was low on resource: memory. Threshold quantity: 1000Gi, available: "
    larger = "has larger consumption of memory. "
    for name in (greedy, modest):
        status = lab.cluster.wait_pod(name, timeout_s=60)["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
        assert status["message"].startswith(low)
        assert status["message"].endswith(larger) == (name == greedy)
        assert terminated(lab.get(name))["exitCode"] in (143, 137)  # a second is short on a busy machine
        disruption = next(c for c in status["conditions"] if c["type"] == "DisruptionTarget")
        assert (disruption["status"], disruption["message"]) == ("True", status["message"])
        assert lab.event(name, "Evicted") == status["message"]
    # One at a time, the one that takes more than it asked for first.
    put_out = [line for line in node.log.read_text().splitlines() if "evicting a pod" in line]
    assert [next(name for name in (greedy, modest) if name in line) for line in put_out] == [greedy, modest]

    lab.cluster.apply({**source, "data": {"k": "two"}})
    until("it has seen the second", lambda: "two" in output(lab, mine))
    # The taint is the controller's work, on what the node says.
    until("the controller has tainted it", lambda: "node.kubernetes.io/memory-pressure" in taints(lab))

    def bound(name: str, **options: Any) -> str:
        pod = lab.pod(name, image, args=["600"], **options)
        pod["spec"]["nodeName"] = node.name  # past the scheduler, which keeps pods from such a node
        lab.cluster.apply(pod)
        return name

    critical = bound(unique("critical"), spec=critical_class)
    status = lab.cluster.wait_pod(bound(unique("besteffort")), timeout_s=60)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert status["message"] == "Pod was rejected: The node had condition: [MemoryPressure]. "
    # Another class is let in, and put out as long as the node is short.
    burstable = bound(unique("burstable"), container={"resources": {"requests": {"cpu": "10m"}}})
    assert lab.cluster.wait_pod(burstable, timeout_s=60)["status"]["message"].startswith(low)
    lab.running(critical)
    lab.running(mine)
    # As the machine's shutdown does it, and with more patience than `stop_agent` has.
    agent = node.process
    assert agent is not None
    agent.signal(signal.SIGTERM)
    until("the agent has ended", lambda: not agent.alive, 100)
    node.stop_agent()
    for name in (mine, critical):
        pod = lab.get(name)
        assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "Terminated")
        assert pod["status"]["message"] == "Pod was terminated in response to imminent node shutdown."
        assert terminated(pod)["exitCode"] == 143
        disruption = next(c for c in pod["status"]["conditions"] if c["type"] == "DisruptionTarget")
        assert (disruption["status"], disruption["reason"]) == ("True", "TerminationByKubelet")
    told = condition(lab, "Ready")
    assert (told["status"], told["message"]) == ("False", "node is shutting down")
    assert processes.sandboxes_under(node.dir) == []
