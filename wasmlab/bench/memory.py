"""How much memory processes take, read from ``/proc/<pid>/smaps_rollup``.

USS is what would be freed if the process ended (its private pages); PSS adds its share of the pages it shares. Workers
are forked from a zygote, so RSS counts the interpreter and the engine once per worker and says little.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wasmlab.sandbox import records


@dataclass(frozen=True)
class Memory:
    """Memory of one process or several, in bytes."""

    uss_bytes: int = 0
    pss_bytes: int = 0
    rss_bytes: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            self.uss_bytes + other.uss_bytes,
            self.pss_bytes + other.pss_bytes,
            self.rss_bytes + other.rss_bytes,
        )


def of(pid: int, proc: Path = Path("/proc")) -> Memory | None:
    """Return a process's memory, None if it is gone or belongs to somebody else."""
    try:
        text = (proc / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return None
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            sizes[name] = int(words[0]) * 1024
    private = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
    return Memory(private, sizes.get("Pss", 0), sizes.get("Rss", 0))


def total(pids: Iterable[int]) -> Memory:
    """Return the memory of several processes together; those that are gone count nothing."""
    found = Memory()
    for pid in pids:
        one = of(pid)
        if one is not None:
            found += one
    return found


def children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(word) for word in (task / "children").read_text().split()]
    return found


def of_node(directory: Path, agent: int | None = None) -> Memory:
    """Return the memory of a node: its agent, and the sandboxes below `directory` with all that they forked."""
    from wasmlab.cluster import processes

    # Workers have the zygote's command line, and are found as it is; children are looked up all the same.
    found = {one.pid for one in processes.sandboxes_under(directory)}
    found |= {child for pid in found for child in children(pid)}
    return total(found | ({agent} if agent else set()))


def running_workers(directory: Path) -> list[int]:
    """Return the pids of runs that the sandboxes below `directory` have on record and that have not ended."""
    found = []
    # os.walk passes over directories that vanish while it looks: pods end and are removed all the time.
    for parent, _, names in os.walk(directory):
        if os.path.basename(parent) != "runs":
            continue
        for name in names:
            with contextlib.suppress(OSError, ValueError, KeyError):
                record = records.read(f"{parent}/{name}")
                if "outcome" not in record:
                    found.append(int(record["pid"]))
    return found
