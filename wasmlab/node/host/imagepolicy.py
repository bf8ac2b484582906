"""Which modules go when the disk fills: pure.

As the kubelet: from `high` percent of the disk on, modules that no pod here refers to are removed, the least recently
used first, until `low` percent; none that was used in the last `min_age_s`.

References
----------
``k8s.io/kubernetes/pkg/kubelet/images/image_gc_manager.go``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasmlab.node.host.disk import Disk

if TYPE_CHECKING:
    from wasmlab.oci.store import Entry


@dataclass(frozen=True)
class GcPolicy:
    """When and how much. The defaults are the kubelet's.

    Attributes
    ----------
    high_percent, low_percent : int
        Of the disk in use: from where on, and until where.
    min_age_s : float
        What was used so recently stays.
    """

    high_percent: int = 85
    low_percent: int = 80
    min_age_s: float = 120.0


def wanted_bytes(disk: Disk, policy: GcPolicy) -> int:
    """How much has to be freed now; 0 if nothing."""
    if disk.total_bytes <= 0:
        return 0
    used_percent = 100 - disk.free_bytes * 100 // disk.total_bytes
    if used_percent < policy.high_percent:
        return 0
    return max(0, disk.total_bytes * (100 - policy.low_percent) // 100 - disk.free_bytes)


def victims(
    entries: Sequence[Entry], in_use: Collection[str], bytes_wanted: int, policy: GcPolicy, now: float
) -> list[Entry]:
    """Which modules to remove.

    Parameters
    ----------
    entries : sequence of Entry
        All modules, the least recently used first.
    in_use : collection of str
        References and digests that pods need.
    """
    chosen: list[Entry] = []
    freed = 0
    for entry in entries:
        if freed >= bytes_wanted:
            break
        if entry.digest in in_use or any(one in in_use for one in entry.references):
            continue
        if now - entry.last_used < policy.min_age_s:
            continue
        chosen.append(entry)
        freed += entry.size_bytes
    return chosen
