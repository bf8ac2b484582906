"""How much room is left: pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Disk:
    """Free and total space where the node keeps modules and logs."""

    total_bytes: int
    free_bytes: int
    total_inodes: int = 1
    free_inodes: int = 1

    @property
    def full(self) -> bool:
        """Below the kubelet's hard eviction line: 10% of the space or 5% of the inodes left.

        A file system of more than a TiB does not need a tenth of itself free: 10 GiB are enough there and anywhere.
        """
        line_bytes = min(self.total_bytes // 10, 10 * 2**30)
        return self.free_bytes < line_bytes or self.free_inodes * 20 < self.total_inodes


@dataclass(frozen=True)
class DiskUse:
    """What a directory takes."""

    bytes: int = 0
    inodes: int = 0
