"""``/stats/summary`` and ``/metrics/resource``: what is measured, in the kubelet's terms: pure.

References
----------
``k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go``;
``k8s.io/kubernetes/pkg/kubelet/metrics/collectors/resource_metrics.go`` (names, labels, help).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wasmlab.node.api.times import rfc3339
from wasmlab.node.host.disk import Disk, DiskUse
from wasmlab.node.pods.eviction import DISK, MEMORY, Use
from wasmlab.node.promtext import Family, Sample

Json = dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """CPU and memory of something, at a moment.

    Parameters
    ----------
    time : float
        Unix seconds.
    cpu_ns : int
        CPU time since `started_at`.
    nano_cores : int
        CPU time per second, of late, in billionths of a core.
    usage_bytes, working_set_bytes, rss_bytes : int
        Memory.
    limit_bytes : int, optional
        Memory limit.
    """

    time: float
    started_at: float
    cpu_ns: int
    nano_cores: int
    usage_bytes: int
    working_set_bytes: int
    rss_bytes: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    processes: int = 0
    limit_bytes: int | None = None

    def cpu(self) -> Json:
        """v1alpha1.CPUStats."""
        return {
            "time": rfc3339(self.time),
            "usageNanoCores": self.nano_cores,
            "usageCoreNanoSeconds": self.cpu_ns,
        }

    def memory(self) -> Json:
        """v1alpha1.MemoryStats."""
        stats = {
            "time": rfc3339(self.time),
            "usageBytes": self.usage_bytes,
            "workingSetBytes": self.working_set_bytes,
            "rssBytes": self.rss_bytes,
            "pageFaults": self.page_faults,
            "majorPageFaults": self.major_page_faults,
        }
        if self.limit_bytes is not None:
            stats["availableBytes"] = max(0, self.limit_bytes - self.working_set_bytes)
        return stats


@dataclass(frozen=True)
class ContainerFigures:
    """A running container, what runs beside it included."""

    name: str
    figures: Figures
    log_bytes: int


@dataclass(frozen=True)
class PodFigures:
    """A pod with running containers."""

    name: str
    namespace: str
    uid: str
    started_at: float
    containers: Sequence[ContainerFigures]
    disk: DiskUse

    @property
    def total(self) -> Figures:
        """All its containers together."""
        all_ = [c.figures for c in self.containers]
        limits = [f.limit_bytes for f in all_ if f.limit_bytes is not None]
        return Figures(
            time=max(f.time for f in all_),
            started_at=self.started_at,
            cpu_ns=sum(f.cpu_ns for f in all_),
            nano_cores=sum(f.nano_cores for f in all_),
            usage_bytes=sum(f.usage_bytes for f in all_),
            working_set_bytes=sum(f.working_set_bytes for f in all_),
            rss_bytes=sum(f.rss_bytes for f in all_),
            page_faults=sum(f.page_faults for f in all_),
            major_page_faults=sum(f.major_page_faults for f in all_),
            processes=sum(f.processes for f in all_),
            limit_bytes=sum(limits) if len(limits) == len(all_) else None,
        )


@dataclass(frozen=True)
class NodeFigures:
    """The node: the whole machine, and the agent as its system container ``kubelet``."""

    name: str
    machine: Figures
    agent: Figures
    sandboxes: Figures
    disk: Disk


def summary(node: NodeFigures, pods: Sequence[PodFigures]) -> Json:
    """v1alpha1.Summary."""
    disk = _disk(node.disk, node.machine.time)
    return {
        "node": {
            "nodeName": node.name,
            "systemContainers": [
                {
                    "name": name,
                    "startTime": rfc3339(figures.started_at),
                    "cpu": figures.cpu(),
                    "memory": figures.memory(),
                }
                for name, figures in (("kubelet", node.agent), ("runtime", node.sandboxes))
            ],
            "startTime": rfc3339(node.machine.started_at),
            "cpu": node.machine.cpu(),
            "memory": node.machine.memory(),
            "fs": disk,
            "runtime": {"imageFs": disk, "containerFs": disk},
        },
        "pods": [_pod(pod, node.disk) for pod in pods],
    }


def _pod(pod: PodFigures, disk: Disk) -> Json:
    total = pod.total
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": rfc3339(pod.started_at),
        "containers": [
            {
                "name": one.name,
                "startTime": rfc3339(one.figures.started_at),
                "cpu": one.figures.cpu(),
                "memory": one.figures.memory(),
                # A module has no file system of its own to write to.
                "rootfs": {**_disk(disk, total.time), "usedBytes": 0},
                "logs": {**_disk(disk, total.time), "usedBytes": one.log_bytes},
            }
            for one in pod.containers
        ],
        "cpu": total.cpu(),
        "memory": total.memory(),
        "ephemeral-storage": {
            **_disk(disk, total.time),
            "usedBytes": pod.disk.bytes,
            "inodesUsed": pod.disk.inodes,
        },
        "process_stats": {"process_count": total.processes},
    }


def use_of(pod: PodFigures) -> Use:
    """What a pod uses, as evictions go by it."""
    total = pod.total
    return Use(
        memory_bytes=total.working_set_bytes,
        disk_bytes=pod.disk.bytes,
        inodes=pod.disk.inodes,
        processes=total.processes,
        containers={
            one.name: {MEMORY: one.figures.working_set_bytes, DISK: one.log_bytes} for one in pod.containers
        },
    )


def _disk(disk: Disk, time: float) -> Json:
    return {
        "time": rfc3339(time),
        "availableBytes": disk.free_bytes,
        "capacityBytes": disk.total_bytes,
        "usedBytes": disk.total_bytes - disk.free_bytes,
        "inodesFree": disk.free_inodes,
        "inodes": disk.total_inodes,
        "inodesUsed": max(0, disk.total_inodes - disk.free_inodes),
    }


def resource_families(node: NodeFigures, pods: Sequence[PodFigures]) -> list[Family]:
    """What ``/metrics/resource`` shows: the source of ``kubectl top`` (metrics-server)."""
    cpu, memory, started = [], [], []
    pod_cpu, pod_memory = [], []
    for pod in pods:
        where = {"pod": pod.name, "namespace": pod.namespace}
        for one in pod.containers:
            labels, figures = {"container": one.name, **where}, one.figures
            cpu.append(Sample(figures.cpu_ns / 1e9, labels, figures.time))
            memory.append(Sample(figures.working_set_bytes, labels, figures.time))
            started.append(Sample(figures.started_at, labels))
        total = pod.total
        pod_cpu.append(Sample(total.cpu_ns / 1e9, where, total.time))
        pod_memory.append(Sample(total.working_set_bytes, where, total.time))
    machine = node.machine
    return [
        Family(
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the container in core-seconds",
            cpu,
        ),
        Family(
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set of the container in bytes",
            memory,
        ),
        Family(
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds",
            started,
        ),
        Family(
            "node_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the node in core-seconds",
            [Sample(machine.cpu_ns / 1e9, {}, machine.time)],
        ),
        Family(
            "node_memory_working_set_bytes",
            "gauge",
            "Current working set of the node in bytes",
            [Sample(machine.working_set_bytes, {}, machine.time)],
        ),
        Family(
            "pod_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the pod in core-seconds",
            pod_cpu,
        ),
        Family(
            "pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", pod_memory
        ),
        Family(
            "resource_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
            [Sample(0)],
        ),
    ]
