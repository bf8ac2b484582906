"""How much memory a group of processes takes, sampled, with its peaks.

Two figures, because a cgroup's own ``max_usage_in_bytes`` counts every page of every file that was read and therefore
always ends at the limit:

- `unreclaimable_bytes`: anonymous memory and tmpfs: what the kernel cannot take back without swap, so that it kills.
- `working_set_bytes`: usage less the inactive file pages; what Kubernetes, and so Binder, shows and evicts by.

References
----------
Kernel ``Documentation/admin-guide/cgroup-v1/memory.rst``; Kubernetes, "Node-pressure eviction".
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from wasmlab.sandbox import cgroups

_EVERY_S = 0.05


@dataclass
class Peak:
    """The highest values of one step."""

    unreclaimable_bytes: int = 0
    working_set_bytes: int = 0


class Meter:
    """Samples a version 1 memory group in a thread of its own until `stop`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._peak = Peak()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(_EVERY_S):
            stat = cgroups.pairs(f"{self._directory}/memory.stat")
            if not stat:
                continue
            usage = cgroups.number(f"{self._directory}/memory.usage_in_bytes")
            held = stat["total_rss"] + stat.get("total_shmem", 0)
            self._peak.unreclaimable_bytes = max(self._peak.unreclaimable_bytes, held)
            working = usage - stat["total_inactive_file"]
            self._peak.working_set_bytes = max(self._peak.working_set_bytes, working)

    def take(self) -> Peak:
        """Return the peak since the last call."""
        taken, self._peak = self._peak, Peak()
        return taken

    def kills(self) -> int:
        """How many processes the kernel has ended for want of memory."""
        return cgroups.pairs(f"{self._directory}/memory.oom_control").get("oom_kill", 0)

    def stop(self) -> None:
        """End the sampling."""
        self._ended.set()
        self._thread.join()
