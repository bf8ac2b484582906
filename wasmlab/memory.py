"""How much memory this process may use: what the machine has, or less where a control group limits it.

References
----------
Kernel ``Documentation/admin-guide/cgroup-v1/memory.rst`` and ``cgroup-v2.rst``; proc(5); cgroups(7).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def machine_bytes(proc: Path = _PROC) -> tuple[int, int]:
    """Return total and available memory of the machine in bytes, limits aside."""
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    total, available = (int(fields[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    return total, available


def limit_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Return the lowest limit of the groups that this process is in; None if none limits it.

    In a container the groups' paths in /proc may be the host's while only the container's own group is mounted, so its
    top is looked at as well.
    """
    limits = []
    for file in _limit_files(proc, cgroups):
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    lowest = min(limits, default=None)
    # Version 1 has no word for "none": it shows a number beyond any memory.
    return lowest if lowest is not None and lowest < machine_bytes(proc)[0] else None


def usable_bytes() -> tuple[int, int]:
    """Return total and available memory in bytes, with the limit taken into account."""
    total, available = machine_bytes()
    limit = limit_bytes()
    return (total, available) if limit is None else (limit, min(limit, available))


def _limit_files(proc: Path, cgroups: Path) -> Iterator[Path]:
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in ["0::/", "1:memory:/", *lines]:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (cgroups / "memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        group = top / path.lstrip("/")
        yield from (parent / name for parent in (group, *group.parents) if parent.is_relative_to(top))
