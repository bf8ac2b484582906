"""The container's cgroup, v1 or v2: where an OCI spec puts it, and its figures in containerd's messages.

The mechanics are `wasmlab.sandbox.cgroups`.
"""

# ruff: noqa: D102 - the methods are documented by the protocol Cgroup

from __future__ import annotations

import contextlib
import os
from typing import Any, Protocol

from wasmlab.sandbox import cgroups
from wasmlab.sandbox.cgroups import ROOT, number, pairs, read
from wasmlab.shim.pb import cgroups_v1_pb2, cgroups_v2_pb2

_UNLIMITED = (1 << 64) - 1


class Cgroup(cgroups.Cgroup, Protocol):
    """What the shim needs of a container's cgroup."""

    def metrics(self) -> Any:
        """Its figures, as containerd's message."""


def path_of(spec_path: str, container: str) -> str:
    """Return the path below the cgroup root for ``linux.cgroupsPath`` of an OCI spec.

    The systemd form ``slice:prefix:name`` becomes the directories that systemd would have made.
    """
    if not spec_path:
        return f"/wasmlab/{container}"
    if spec_path.count(":") == 2 and "/" not in spec_path.split(":")[0]:
        slice_name, prefix, name = spec_path.split(":")
        path, so_far = "", ""
        for part in (slice_name or "system.slice").removesuffix(".slice").split("-"):
            so_far = f"{so_far}-{part}" if so_far else part
            path += f"/{so_far}.slice"
        unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
        return f"{path}/{unit}"
    return os.path.normpath("/" + spec_path.lstrip("/"))


def find(path: str, root: str = ROOT) -> Cgroup:
    """Return the cgroup at `path` for the layout of this machine."""
    return V2(root + path) if cgroups.is_v2(root) else V1(root, path)


class V1(cgroups.V1):
    """Version 1: one hierarchy per controller."""

    def metrics(self) -> Any:
        out = cgroups_v1_pb2.Metrics()
        if directory := self.existing.get("pids"):
            out.pids.current = number(f"{directory}/pids.current")
            out.pids.limit = number(f"{directory}/pids.max", 0)
        if directory := self.existing.get("cpuacct"):
            out.cpu.usage.total = number(f"{directory}/cpuacct.usage")
            ticks = os.sysconf("SC_CLK_TCK")
            split = pairs(f"{directory}/cpuacct.stat")
            out.cpu.usage.user = split.get("user", 0) * 1_000_000_000 // ticks
            out.cpu.usage.kernel = split.get("system", 0) * 1_000_000_000 // ticks
            with contextlib.suppress(OSError, ValueError):
                out.cpu.usage.per_cpu.extend(
                    int(one) for one in read(f"{directory}/cpuacct.usage_percpu").split()
                )
        if directory := self.existing.get("cpu"):
            stat = pairs(f"{directory}/cpu.stat")
            out.cpu.throttling.periods = stat.get("nr_periods", 0)
            out.cpu.throttling.throttled_periods = stat.get("nr_throttled", 0)
            out.cpu.throttling.throttled_time = stat.get("throttled_time", 0)
        if directory := self.existing.get("memory"):
            self._memory(out, directory)
        return out

    @staticmethod
    def _memory(out: Any, directory: str) -> None:
        names = {"pgfault": "pg_fault", "pgmajfault": "pg_maj_fault"}
        fields = out.memory.DESCRIPTOR.fields_by_name
        for key, value in pairs(f"{directory}/memory.stat").items():
            prefix = "total_" if key.startswith("total_") else ""
            field = prefix + names.get(key.removeprefix("total_"), key.removeprefix("total_"))
            if field in fields and field != "usage":
                setattr(out.memory, field, value)
        out.memory.usage.usage = number(f"{directory}/memory.usage_in_bytes")
        out.memory.usage.max = number(f"{directory}/memory.max_usage_in_bytes")
        out.memory.usage.limit = number(f"{directory}/memory.limit_in_bytes")
        out.memory.usage.failcnt = number(f"{directory}/memory.failcnt")
        control = pairs(f"{directory}/memory.oom_control")
        out.memory_oom_control.oom_kill_disable = control.get("oom_kill_disable", 0)
        out.memory_oom_control.under_oom = control.get("under_oom", 0)
        out.memory_oom_control.oom_kill = control.get("oom_kill", 0)


class V2(cgroups.V2):
    """Version 2: one directory."""

    def metrics(self) -> Any:
        out = cgroups_v2_pb2.Metrics()
        directory = self.directory
        out.pids.current = number(f"{directory}/pids.current")
        out.pids.limit = number(f"{directory}/pids.max", 0)
        _fill(out.cpu, pairs(f"{directory}/cpu.stat"))
        _fill(out.memory, pairs(f"{directory}/memory.stat"))
        out.memory.usage = number(f"{directory}/memory.current")
        out.memory.usage_limit = number(f"{directory}/memory.max", _UNLIMITED)
        out.memory.max_usage = number(f"{directory}/memory.peak")
        out.memory.swap_usage = number(f"{directory}/memory.swap.current")
        out.memory.swap_limit = number(f"{directory}/memory.swap.max", _UNLIMITED)
        _fill(out.memory_events, pairs(f"{directory}/memory.events"))
        return out


def _fill(message: Any, values: dict[str, int]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if name in fields:
            setattr(message, name, value)
