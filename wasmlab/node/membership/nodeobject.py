"""The v1.Node and v1.Lease of this node: pure.

The labels, taints, architecture and runtime version are those of a Krustlet node (the article's ``kubectl describe
node``); capacity and everything else in ``nodeInfo`` is read from the machine by `wasmlab.node.host.machine`, where
Krustlet invented it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from wasmlab.node.api.times import rfc3339
from wasmlab.node.host import pressure
from wasmlab.node.host.disk import Disk

Json = dict[str, Any]

ARCH = "wasm32-wasi"
TAINTS: tuple[Json, ...] = (
    {"key": "kubernetes.io/arch", "value": ARCH, "effect": "NoExecute"},
    {"key": "kubernetes.io/arch", "value": ARCH, "effect": "NoSchedule"},
)
# What a 1.37 API server passes WebSockets on for; the rest of the kubelet's features are not this node's.
FEATURES = ("ExtendWebSocketsToKubelet",)
# The kubelet's values: pkg/kubelet/apis/config/v1beta1/defaults.go (nodeLeaseDurationSeconds, renewed at a quarter).
LEASE_DURATION_S = 40
LEASE_RENEW_S = 10.0


@dataclass(frozen=True)
class NodeFacts:
    """What registration says about this node."""

    name: str
    hostname: str
    address: str
    port: int
    kubelet_version: str
    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]
    system: Mapping[str, str]  # machineID, systemUUID, bootID, kernelVersion, osImage
    disk: Disk
    pod_cidr: str | None = None
    extra_labels: Mapping[str, str] = field(default_factory=dict)
    engines: Sequence[str] = ()
    pressure: Mapping[str, str] = field(default_factory=dict)  # condition -> what it is due to
    problem: str = ""  # why the node cannot run pods now; empty if it can


def labels(facts: NodeFacts) -> dict[str, str]:
    """The article's labels, and the user's own where they do not contradict them."""
    return {
        **facts.extra_labels,
        "beta.kubernetes.io/arch": ARCH,
        "beta.kubernetes.io/os": ARCH,
        "kubernetes.io/arch": ARCH,
        "kubernetes.io/os": ARCH,
        "kubernetes.io/hostname": facts.hostname,
        "type": "krustlet",
    }


def conditions(facts: NodeFacts, now: float, previous: Sequence[Json] = ()) -> list[Json]:
    """Ready, OutOfDisk and the pressures with heartbeats; a transition time moves only with its status."""
    disk = facts.disk
    pressures = []
    for kind, (held, not_held) in pressure.WORDS.items():
        reason, message = held if kind in facts.pressure else not_held
        if kind in facts.pressure:
            message = f"{message}: {facts.pressure[kind]}"
        state = "True" if kind in facts.pressure else "False"
        pressures.append({"type": kind, "status": state, "reason": reason, "message": message})
    wanted = [
        {
            "type": "OutOfDisk",
            "status": "True" if disk.full else "False",
            "reason": "KubeletOutOfDisk" if disk.full else "KubeletHasSufficientDisk",
            "message": f"{disk.free_bytes // 2**20} MiB of {disk.total_bytes // 2**20} MiB are free"
            if disk.full
            else "kubelet has sufficient disk space available",
        },
        *pressures,
        {
            "type": "Ready",
            "status": "False" if facts.problem else "True",
            "reason": "KubeletNotReady" if facts.problem else "KubeletReady",
            "message": facts.problem or "kubelet is posting ready status",
        },
    ]
    before = {c["type"]: c for c in previous}
    for condition in wanted:
        old = before.get(condition["type"], {})
        same = old.get("status") == condition["status"] and old.get("lastTransitionTime")
        condition["lastHeartbeatTime"] = rfc3339(now)
        condition["lastTransitionTime"] = old["lastTransitionTime"] if same else rfc3339(now)
    return wanted


def status(facts: NodeFacts, now: float, previous: Sequence[Json] = ()) -> Json:
    """v1.NodeStatus."""
    return {
        "capacity": dict(facts.capacity),
        "allocatable": dict(facts.allocatable),
        "addresses": [
            {"type": "InternalIP", "address": facts.address},
            {"type": "Hostname", "address": facts.hostname},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
        "declaredFeatures": list(FEATURES),
        "nodeInfo": {
            **facts.system,
            "architecture": "wasm-wasi",
            "operatingSystem": "linux",
            "containerRuntimeVersion": "mvp",
            "kubeletVersion": facts.kubelet_version,
            "kubeProxyVersion": "",
        },
        "conditions": conditions(facts, now, previous),
    }


def node(facts: NodeFacts, now: float) -> Json:
    """The v1.Node to create. Taints can be set only now: NodeRestriction forbids a node to change them later."""
    spec: Json = {"taints": [dict(t) for t in TAINTS]}
    if facts.pod_cidr:
        spec["podCIDR"] = facts.pod_cidr
        spec["podCIDRs"] = [facts.pod_cidr]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": facts.name,
            "labels": labels(facts),
            "annotations": {
                "node.alpha.kubernetes.io/ttl": "0",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                "wasmlab.dev/engines": ",".join(facts.engines),
            },
        },
        "spec": spec,
        "status": status(facts, now),
    }


def node_patch(facts: NodeFacts) -> Json:
    """What to correct on a Node that exists already (labels and annotations; its taints are not ours to change)."""
    full = node(facts, 0.0)
    return {
        "metadata": {"labels": full["metadata"]["labels"], "annotations": full["metadata"]["annotations"]}
    }


def missing_taints(existing: Json) -> list[str]:
    """Which of the node's taints an existing Node lacks, for a warning."""
    have = {
        (t.get("key"), t.get("value"), t.get("effect")) for t in existing.get("spec", {}).get("taints") or ()
    }
    return [
        f"{t['key']}={t['value']}:{t['effect']}"
        for t in TAINTS
        if (t["key"], t["value"], t["effect"]) not in have
    ]


def micro_time(unix_s: float) -> str:
    """A metav1.MicroTime. All six decimals always: the API server rejects a time without them."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def lease(name: str, node_uid: str, now: float) -> Json:
    """The v1.Lease to create; it goes away with its Node."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}],
        },
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "acquireTime": micro_time(now),
            "renewTime": micro_time(now),
        },
    }


def lease_renewal(name: str, now: float) -> Json:
    """The merge patch that renews it."""
    return {
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": micro_time(now),
        }
    }
