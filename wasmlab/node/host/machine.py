"""Read what this machine has: processors, memory, disk, identity.

Inside a container the limits of its control group count, because they are what the modules get.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import platform
import socket
from collections.abc import Mapping
from pathlib import Path

from wasmlab.node.api import quantity
from wasmlab.node.host.disk import Disk
from wasmlab.node.host.pressure import Level

_MEMORY_RESERVE_KI = 100 * 1024  # the kubelet's hard eviction line for memory.available


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def memory_ki() -> int:
    """Usable memory in KiB: the machine's, or the control group's limit if that is less."""
    total = 0
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1])
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _text(path)
        if limit.isdigit():
            total = min(total or int(limit) // 1024, int(limit) // 1024)
    return total


def hugepages() -> dict[str, str]:
    """Reserved huge pages by size; 0 where the kernel offers the size and none are reserved."""
    result = {"hugepages-1Gi": "0", "hugepages-2Mi": "0"}
    for size_ki, unit in ((1048576, "1Gi"), (2048, "2Mi")):
        count = _text(f"/sys/kernel/mm/hugepages/hugepages-{size_ki}kB/nr_hugepages")
        if count.isdigit() and int(count):
            result[f"hugepages-{unit}"] = f"{int(count) * size_ki}Ki"
    return result


def disk(path: Path) -> Disk:
    """Space on the file system that holds `path`."""
    stat = os.statvfs(path)
    return Disk(
        total_bytes=stat.f_blocks * stat.f_frsize,
        free_bytes=stat.f_bavail * stat.f_frsize,
        # Some file systems count no inodes; they cannot run out of them.
        total_inodes=stat.f_files or 1,
        free_inodes=stat.f_favail if stat.f_files else 1,
    )


def signals(path: Path) -> dict[str, Level]:
    """What the kubelet's eviction signals measure. One file system holds logs, volumes and modules here."""
    space = disk(path)
    memory = memory_ki() * 1024
    files = Level(space.free_bytes, space.total_bytes)
    inodes = Level(space.free_inodes, space.total_inodes)
    return {
        "memory.available": Level(memory_available(memory), memory),
        "nodefs.available": files,
        "imagefs.available": files,
        "nodefs.inodesFree": inodes,
        "imagefs.inodesFree": inodes,
        "pid.available": _processes(),
    }


def memory_available(capacity_bytes: int) -> int:
    """What is left: of the machine, and of this control group's limit if that is what `capacity_bytes` is."""
    machine = 0
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            machine = int(line.split()[1]) * 1024
    for usage, stats, cache in (
        ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
        (
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
            "/sys/fs/cgroup/memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        used = _text(usage)
        if used.isdigit():
            found = dict(line.split(" ", 1) for line in _text(stats).splitlines() if " " in line)
            return min(machine, max(0, capacity_bytes - int(used) + int(found.get(cache, 0))))
    return machine


def _processes() -> Level:
    """Processes and threads that may still be made, of this machine's or this control group's most."""
    most = int(_text("/proc/sys/kernel/pid_max") or 0)
    now = int(_text("/proc/loadavg").split()[3].partition("/")[2] or 0)
    for directory in ("/sys/fs/cgroup", "/sys/fs/cgroup/pids"):
        limit, current = _text(f"{directory}/pids.max"), _text(f"{directory}/pids.current")
        if limit.isdigit() and current.isdigit() and int(limit) < most:
            return Level(max(0, int(limit) - int(current)), int(limit))
    return Level(max(0, most - now), most)


def resources(
    path: Path, max_pods: int, stated: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Capacity and allocatable, as the kubelet computes them with no reservations but its eviction lines.

    Parameters
    ----------
    stated : mapping, optional
        What the operator says the node has, instead of what was found (``--capacity``).
    """
    capacity = {
        "cpu": str(cpus()),
        "pods": str(max_pods),
        **hugepages(),
        "memory": f"{memory_ki()}Ki",
        "ephemeral-storage": f"{disk(path).total_bytes // 1024}Ki",
        **(stated or {}),
    }
    allocatable = {
        **capacity,
        "memory": f"{max(0, quantity.parse(capacity['memory']) // 1024 - _MEMORY_RESERVE_KI)}Ki",
        "ephemeral-storage": f"{quantity.parse(capacity['ephemeral-storage']) // 1024 * 9 // 10}Ki",
    }
    return capacity, allocatable


def system() -> dict[str, str]:
    """The identity part of v1.NodeSystemInfo."""
    os_release = {}
    for line in _text("/etc/os-release").splitlines():
        key, _, value = line.partition("=")
        os_release[key] = value.strip('"')
    return {
        "machineID": _text("/etc/machine-id"),
        # Readable by root only; an ordinary user has the machine id, which is as unique.
        "systemUUID": _text("/sys/class/dmi/id/product_uuid") or _text("/etc/machine-id"),
        "bootID": _text("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": os_release.get("PRETTY_NAME", "Linux"),
    }


def default_address() -> str:
    """The address other machines reach this one at: of the route to the outside, else loopback."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1: nothing is sent by connecting a datagram socket
        return str(ipaddress.ip_address(probe.getsockname()[0]))
    return "127.0.0.1"


def pod_address(address: str) -> str:
    """What the pods of a node with `address` report as theirs: the same, unless it is loopback, which is no address of
    an endpoint (``k8s.io/kubernetes/pkg/apis/core/validation``, ``ValidateNonSpecialIP``)."""
    with contextlib.suppress(ValueError):  # "auto", or what `NodeConfig` refuses
        if not ipaddress.ip_address(address).is_loopback:
            return address
    return default_address()
