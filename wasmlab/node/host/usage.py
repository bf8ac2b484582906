"""What a module's process has used, read in /proc or in its control group.

Memory of a worker without a control group is its proportional set: what it shares with its zygote and its siblings is
counted once over all of them, so that the pods' figures add up to what the node has really given away.

References
----------
proc_pid_stat(5), proc_pid_smaps(5), clock_getcpuclockid(3);
Kernel ``Documentation/admin-guide/cgroup-v2.rst`` (``memory.stat``).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from wasmlab.node.host.disk import DiskUse

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # include/linux/posix-timers_types.h: of all threads of a process
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_WORKER_NAME = "wasm-"  # `wasmlab.sandbox.limits.confine` names the processes in which modules run


@dataclass(frozen=True)
class Usage:
    """CPU time since the start, and memory now."""

    cpu_ns: int = 0
    working_set_bytes: int = 0
    rss_bytes: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    processes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))


def _values(one: Usage) -> tuple[int, ...]:
    return (
        one.cpu_ns,
        one.working_set_bytes,
        one.rss_bytes,
        one.page_faults,
        one.major_page_faults,
        one.processes,
    )


def of_process(pid: int, name: str = "") -> Usage | None:
    """What one process uses; None if it has gone, or if another one (not called `name`...) has its number now."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The name is in parentheses and may hold any character, more of them included.
    comm, _, rest = text.partition(b"(")[2].rpartition(b")")
    if not comm.startswith(name.encode()):
        return None
    fields = rest.split()
    rss_bytes = int(fields[21]) * _PAGE_BYTES
    return Usage(
        cpu_ns=_clock_ns(pid) or (int(fields[11]) + int(fields[12])) * _TICK_NS,
        working_set_bytes=_proportional_bytes(pid) or rss_bytes,
        rss_bytes=rss_bytes,
        page_faults=int(fields[7]),
        major_page_faults=int(fields[9]),
        processes=1,
    )


def of_workers(pids: Iterable[int]) -> Usage:
    """What the processes of modules use together; those that have ended meanwhile count nothing."""
    total = Usage()
    for pid in pids:
        one = of_process(pid, _WORKER_NAME) if pid else None
        if one is not None:
            total += one
    return total


def in_groups(used: Usage, directories: Iterable[str]) -> Usage:
    """Replace what a control group knows better, where there is one: it counts what has ended, and file cache in use.

    Parameters
    ----------
    used : Usage
        As the processes have it.
    directories : iterable of str
        The group's directories (several under version 1); those that do not exist change nothing.
    """
    for directory in directories:
        current = _first_number(directory, "memory.current", "memory.usage_in_bytes")
        if current is not None:
            stat = _pairs(Path(directory, "memory.stat"))
            idle = stat.get("total_inactive_file", stat.get("inactive_file", 0))
            used = replace(
                used,
                working_set_bytes=max(0, current - idle),
                rss_bytes=stat.get("total_rss", stat.get("anon", used.rss_bytes)),
            )
        nanoseconds = _first_number(directory, "cpuacct.usage")
        if nanoseconds is None and (microseconds := _pairs(Path(directory, "cpu.stat")).get("usage_usec")):
            nanoseconds = microseconds * 1000
        if nanoseconds is not None:
            used = replace(used, cpu_ns=nanoseconds)
    return used


def _first_number(directory: str, *names: str) -> int | None:
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            return int(Path(directory, name).read_text())
    return None


def _pairs(path: Path) -> dict[str, int]:
    found = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if value.isdigit():
                found[key] = int(value)
    return found


def _clock_ns(pid: int) -> int:
    """CPU time of a process by its own clock, 0 if that cannot be read.

    In /proc it is counted in ticks of 10 ms: most modules have used none of them, and metrics-server drops a pod of
    which it is told that it has used nothing.
    """
    try:
        return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)  # clock_getcpuclockid(3)
    except OSError:
        return 0


def _proportional_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> bytes:
    # A file of /proc in one piece; pathlib and decoding would double what a thousand processes cost.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 16384)
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Machine:
    """The whole machine."""

    cpu_ns: int
    memory_usage_bytes: int
    memory_working_set_bytes: int
    memory_total_bytes: int
    booted_at: float


def machine() -> Machine:
    """Read the machine's totals: all processors since the start, memory in use with and without idle file cache."""
    cpu, booted_at = 0, 0.0
    for line in Path("/proc/stat").read_text().splitlines():
        key, _, rest = line.partition(" ")
        if key == "cpu":
            user, nice, system, _idle, _iowait, irq, softirq = (int(v) for v in rest.split()[:7])
            # Of a guest's time nothing is added: user and nice have it already. Stolen time was somebody else's.
            cpu = (user + nice + system + irq + softirq) * _TICK_NS
        elif key == "btime":
            booted_at = float(rest)
    memory = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        key, _, rest = line.partition(":")
        memory[key] = int(rest.split()[0]) * 1024
    usage = memory["MemTotal"] - memory["MemFree"]
    return Machine(
        cpu_ns=cpu,
        memory_usage_bytes=usage,
        memory_working_set_bytes=max(0, usage - memory.get("Inactive(file)", 0)),
        memory_total_bytes=memory["MemTotal"],
        booted_at=booted_at,
    )


def of_directory(directory: Path) -> DiskUse:
    """What a directory and all that is in it take on disk, links not followed."""
    total, inodes = 0, 1
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    below = of_directory(Path(entry.path))
                    total, inodes = total + below.bytes, inodes + below.inodes
                else:
                    total, inodes = total + entry.stat(follow_symlinks=False).st_blocks * 512, inodes + 1
    return DiskUse(total, inodes)
