"""``/metrics``: what this node does, under the kubelet's names where the kubelet has one for it.

References
----------
``k8s.io/kubernetes/pkg/kubelet/metrics/metrics.go``, ``pkg/kubelet/server/metrics/metrics.go``;
Prometheus documentation, "Writing client libraries" (process metrics).
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from pathlib import Path

from wasmlab.node.host.usage import of_process
from wasmlab.node.pods.manager import PodManager
from wasmlab.node.promtext import Family, Histogram, Sample

_BUCKETS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = ("exec", "attach", "portForward", "containerLogs")
# Anything else counts as one: a label must not grow with what strangers ask for.
_PATHS = frozenset(
    (
        *("", "healthz", "pods", "runningpods", "configz", "containerLogs", "metrics", "stats", "logs"),
        *("exec", "attach", "run", "portForward", "checkpoint"),
    )
)
_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))


class Requests:
    """Counts what the endpoint is asked."""

    def __init__(self) -> None:
        self._total: Counter[tuple[str, str, int]] = Counter()
        self._durations = Histogram(
            "kubelet_http_requests_duration_seconds", "Duration of short requests", _BUCKETS_S
        )

    def count(self, path: str, method: str, code: int, seconds: float) -> None:
        """Note one request that has ended (code 0: the client left)."""
        path = path if path in _PATHS else "other"
        method = method if method in _METHODS else "other"
        self._total[path, method, code] += 1
        if path not in _LONG:
            self._durations.add(seconds, path=path, server_type="readwrite")

    def families(self) -> list[Family]:
        """What was counted."""
        total = [
            Sample(
                n,
                {
                    "code": str(code),
                    "long_running": str(path in _LONG).lower(),
                    "method": method,
                    "path": path,
                    "server_type": "readwrite",
                },
            )
            for (path, method, code), n in sorted(self._total.items())
        ]
        return [
            Family(
                "kubelet_http_requests_total", "counter", "Requests to the endpoint that have ended", total
            ),
            self._durations.family(),
        ]


def pod_families(node: str, manager: PodManager) -> list[Family]:
    """How many pods and containers there are, by state."""
    states: Counter[str] = Counter()
    running, restarts, beside = 0, 0, 0
    for worker in manager.workers.values():
        running += any(c.record.running for c in worker.containers)
        for container in worker.containers:
            record = container.record
            restarts += record.restarts
            beside += len(container.instances)
            states["running" if record.running else "exited" if record.terminated else "created"] += 1
    return [
        Family(
            "kubelet_node_name",
            "gauge",
            "The node's name. The count is always 1.",
            [Sample(1, {"node": node})],
        ),
        Family("kubelet_running_pods", "gauge", "Pods that have a running container", [Sample(running)]),
        Family(
            "kubelet_running_containers",
            "gauge",
            "Containers by state",
            [Sample(n, {"container_state": state}) for state, n in sorted(states.items())],
        ),
        Family("kubelet_active_pods", "gauge", "Pods on this node", [Sample(len(manager.workers))]),
        Family(
            "wasmlab_container_restarts",
            "gauge",
            "Restarts of the containers on this node",
            [Sample(restarts)],
        ),
        Family(
            "wasmlab_instances",
            "gauge",
            "Modules that run beside a container: exec, probes, hooks",
            [Sample(beside)],
        ),
    ]


def process_families(started_at: float) -> list[Family]:
    """The agent's own process."""
    own = of_process(os.getpid())
    if own is None:
        return []
    used = resource.getrusage(resource.RUSAGE_SELF)
    return [
        Family(
            "process_cpu_seconds_total",
            "counter",
            "CPU time of the agent",
            [Sample(used.ru_utime + used.ru_stime)],
        ),
        Family("process_resident_memory_bytes", "gauge", "Memory of the agent", [Sample(own.rss_bytes)]),
        Family("process_open_fds", "gauge", "Open files of the agent", [Sample(_open_files())]),
        Family(
            "process_start_time_seconds", "gauge", "When the agent started, unix time", [Sample(started_at)]
        ),
    ]


def _open_files() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0
