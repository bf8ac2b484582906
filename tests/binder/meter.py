"""How much memory a group of processes takes, sampled, with its peaks.

Two figures, because the kernel's own peak of a cgroup counts every page of every file that was read and therefore
always ends at the limit:

- `unreclaimable_bytes`: anonymous memory and tmpfs: what the kernel cannot take back without swap, so that it kills.
- `working_set_bytes`: usage less the inactive file pages; what Kubernetes, and so Binder, shows and evicts by.

References
----------
Kernel ``Documentation/admin-guide/cgroup-v1/memory.rst`` and ``cgroup-v2.rst``; Kubernetes, "Node-pressure eviction".
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


def now(directory: str) -> Peak:
    """Return what a memory group, of version 1 or 2, takes at this moment."""
    stat = cgroups.pairs(f"{directory}/memory.stat")
    if not stat:
        return Peak()
    if "anon" in stat:  # version 2
        usage, held = cgroups.number(f"{directory}/memory.current"), stat["anon"] + stat.get("shmem", 0)
        return Peak(held, usage - stat["inactive_file"])
    usage, held = (
        cgroups.number(f"{directory}/memory.usage_in_bytes"),
        stat["total_rss"] + stat["total_shmem"],
    )
    return Peak(held, usage - stat["total_inactive_file"])


class Meter:
    """Samples a memory group in a thread of its own until `stop`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._peak = Peak()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(_EVERY_S):
            seen = now(self._directory)
            peak = self._peak
            peak.unreclaimable_bytes = max(peak.unreclaimable_bytes, seen.unreclaimable_bytes)
            peak.working_set_bytes = max(peak.working_set_bytes, seen.working_set_bytes)

    def take(self) -> Peak:
        """Return the peak since the last call."""
        taken, self._peak = self._peak, Peak()
        return taken

    def stop(self) -> None:
        """End the sampling."""
        self._ended.set()
        self._thread.join()
