"""The container's cgroup, v1 or v2: limits, membership, freezing, figures.

Only the controllers that do something here are used: memory, cpu, cpuacct, pids, and on v1 the freezer when somebody
pauses. (runc makes a directory in a dozen hierarchies for each container.)

References
----------
Kernel ``Documentation/admin-guide/cgroup-v1/`` and ``cgroup-v2.rst``; OCI runtime-spec ``config-linux.md`` (resources).
"""

# ruff: noqa: D102 - the methods are documented by the protocol Cgroup

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from typing import Any, Protocol

from wasmlab.shim.pb import cgroups_v1_pb2, cgroups_v2_pb2

ROOT = "/sys/fs/cgroup"
_V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")
_V2_CONTROLLERS = ("memory", "cpu", "pids")
_UNLIMITED = (1 << 64) - 1
_FREEZE_TIMEOUT_S = 2.0
_REMOVE_TIMEOUT_S = 2.0


class Cgroup(Protocol):
    """What the shim needs of a container's cgroup."""

    def create(self, resources: dict[str, Any]) -> None:
        """Make it, with its limits."""

    def update(self, resources: dict[str, Any]) -> None:
        """Change its limits."""

    def join_paths(self) -> list[str]:
        """Files into which a process writes its id to join."""

    def procs(self) -> list[int]:
        """Ids of its processes."""

    def freeze(self, frozen: bool) -> None:
        """Stop or continue all of its processes."""

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for lack of memory."""

    def metrics(self) -> Any:
        """Its figures, as containerd's message."""

    def remove(self) -> None:
        """Kill what is left in it and remove it."""


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
    if os.path.exists(f"{root}/cgroup.controllers"):
        return V2(root + path)
    return V1(root, path)


class V1:
    """Version 1: one hierarchy per controller."""

    def __init__(self, root: str, path: str) -> None:
        self._root, self._path = root, path
        self._made: dict[str, str] = {}
        self.existing = {
            name: f"{root}/{name}{path}" for name in _V1_CONTROLLERS if os.path.isdir(f"{root}/{name}")
        }

    def create(self, resources: dict[str, Any]) -> None:
        for name, directory in self.existing.items():
            os.makedirs(directory, exist_ok=True)
            self._made[name] = directory
        self.update(resources)

    def update(self, resources: dict[str, Any]) -> None:
        memory = resources.get("memory") or {}
        if "memory" in self.existing and (limit := memory.get("limit")):
            _write(f"{self.existing['memory']}/memory.limit_in_bytes", limit)
            if memory.get("swap"):
                with contextlib.suppress(OSError):  # kernels without swap accounting
                    _write(f"{self.existing['memory']}/memory.memsw.limit_in_bytes", memory["swap"])
        cpu = resources.get("cpu") or {}
        if "cpu" in self.existing:
            for key, name in (
                ("shares", "cpu.shares"),
                ("period", "cpu.cfs_period_us"),
                ("quota", "cpu.cfs_quota_us"),
            ):
                if cpu.get(key):
                    _write(f"{self.existing['cpu']}/{name}", cpu[key])
        pids = (resources.get("pids") or {}).get("limit")
        if "pids" in self.existing and pids:
            _write(f"{self.existing['pids']}/pids.max", pids if pids > 0 else "max")

    def join_paths(self) -> list[str]:
        # Not cgroup.procs: to move a whole process the kernel waits (5-20 ms) until no other one forks or ends; one
        # thread may move itself at once. A worker has one thread when it joins.
        return [
            f"{directory}/tasks" for directory in dict.fromkeys(map(os.path.realpath, self._made.values()))
        ]

    def _anywhere(self) -> str:
        return next(iter(self.existing.values()), "")

    def procs(self) -> list[int]:
        return _pids(f"{self._anywhere()}/cgroup.procs")

    def freeze(self, frozen: bool) -> None:
        directory = f"{self._root}/freezer{self._path}"
        if not os.path.isdir(directory):
            if not frozen:
                return
            os.makedirs(directory)
        for pid in self.procs():
            with contextlib.suppress(ProcessLookupError):
                _write(f"{directory}/cgroup.procs", pid)
        state = "FROZEN" if frozen else "THAWED"
        _write(f"{directory}/freezer.state", state)
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        while _read(f"{directory}/freezer.state").strip() != state:
            if time.monotonic() > deadline:
                _write(f"{directory}/freezer.state", "THAWED")
                raise TimeoutError(errno.ETIMEDOUT, f"the cgroup did not become {state}", directory)
            time.sleep(0.001)

    def oom_kills(self) -> int:
        directory = self.existing.get("memory")
        return _pairs(f"{directory}/memory.oom_control").get("oom_kill", 0) if directory else 0

    def metrics(self) -> Any:
        out = cgroups_v1_pb2.Metrics()
        if directory := self.existing.get("pids"):
            out.pids.current = _number(f"{directory}/pids.current")
            out.pids.limit = _number(f"{directory}/pids.max", 0)
        if directory := self.existing.get("cpuacct"):
            out.cpu.usage.total = _number(f"{directory}/cpuacct.usage")
            ticks = os.sysconf("SC_CLK_TCK")
            split = _pairs(f"{directory}/cpuacct.stat")
            out.cpu.usage.user = split.get("user", 0) * 1_000_000_000 // ticks
            out.cpu.usage.kernel = split.get("system", 0) * 1_000_000_000 // ticks
            with contextlib.suppress(OSError, ValueError):
                out.cpu.usage.per_cpu.extend(
                    int(one) for one in _read(f"{directory}/cpuacct.usage_percpu").split()
                )
        if directory := self.existing.get("cpu"):
            stat = _pairs(f"{directory}/cpu.stat")
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
        for key, value in _pairs(f"{directory}/memory.stat").items():
            prefix = "total_" if key.startswith("total_") else ""
            field = prefix + names.get(key.removeprefix("total_"), key.removeprefix("total_"))
            if field in fields and field != "usage":
                setattr(out.memory, field, value)
        out.memory.usage.usage = _number(f"{directory}/memory.usage_in_bytes")
        out.memory.usage.max = _number(f"{directory}/memory.max_usage_in_bytes")
        out.memory.usage.limit = _number(f"{directory}/memory.limit_in_bytes")
        out.memory.usage.failcnt = _number(f"{directory}/memory.failcnt")
        control = _pairs(f"{directory}/memory.oom_control")
        out.memory_oom_control.oom_kill_disable = control.get("oom_kill_disable", 0)
        out.memory_oom_control.under_oom = control.get("under_oom", 0)
        out.memory_oom_control.oom_kill = control.get("oom_kill", 0)

    def remove(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self.freeze(False)
        frozen = f"{self._root}/freezer{self._path}"
        _remove([*(self.existing.values()), *([frozen] if os.path.isdir(frozen) else [])])


class V2:
    """Version 2: one directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._root = directory[: -len(directory)] or "/"

    def create(self, resources: dict[str, Any]) -> None:
        os.makedirs(self.directory, exist_ok=True)
        for parent in self._parents():
            for name in _V2_CONTROLLERS:
                # EBUSY: that parent has processes of its own; then the kernel has no such controller below it.
                with contextlib.suppress(OSError):
                    _write(f"{parent}/cgroup.subtree_control", f"+{name}")
        self.update(resources)

    def _parents(self) -> Iterator[str]:
        above = []
        parent = os.path.dirname(self.directory)
        while os.path.exists(f"{parent}/cgroup.procs") or os.path.exists(f"{parent}/cgroup.controllers"):
            above.append(parent)
            parent = os.path.dirname(parent)
        return reversed(above)

    def update(self, resources: dict[str, Any]) -> None:
        memory = resources.get("memory") or {}
        if limit := memory.get("limit"):
            _write(f"{self.directory}/memory.max", limit if limit > 0 else "max")
            swap = memory.get("swap")
            if swap and limit > 0:
                with contextlib.suppress(OSError):  # kernels without swap
                    _write(f"{self.directory}/memory.swap.max", max(0, swap - limit) if swap > 0 else "max")
        cpu = resources.get("cpu") or {}
        if shares := cpu.get("shares"):
            # The conversion that every runtime uses: [2, 262144] to [1, 10000].
            _write(f"{self.directory}/cpu.weight", max(1, min(10000, 1 + (shares - 2) * 9999 // 262142)))
        if quota := cpu.get("quota"):
            _write(
                f"{self.directory}/cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100000}"
            )
        if pids := (resources.get("pids") or {}).get("limit"):
            _write(f"{self.directory}/pids.max", pids if pids > 0 else "max")
        for name, value in (resources.get("unified") or {}).items():
            if "/" in name:
                raise ValueError(f"{name!r} is no cgroup file")
            _write(f"{self.directory}/{name}", value)

    def join_paths(self) -> list[str]:
        return [f"{self.directory}/cgroup.procs"]

    def procs(self) -> list[int]:
        return _pids(f"{self.directory}/cgroup.procs")

    def freeze(self, frozen: bool) -> None:
        _write(f"{self.directory}/cgroup.freeze", int(frozen))
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        while _pairs(f"{self.directory}/cgroup.events").get("frozen", int(frozen)) != int(frozen):
            if time.monotonic() > deadline:
                _write(f"{self.directory}/cgroup.freeze", 0)
                raise TimeoutError(errno.ETIMEDOUT, "the cgroup did not freeze", self.directory)
            time.sleep(0.001)

    def oom_kills(self) -> int:
        return _pairs(f"{self.directory}/memory.events").get("oom_kill", 0)

    def metrics(self) -> Any:
        out = cgroups_v2_pb2.Metrics()
        directory = self.directory
        out.pids.current = _number(f"{directory}/pids.current")
        out.pids.limit = _number(f"{directory}/pids.max", 0)
        _fill(out.cpu, _pairs(f"{directory}/cpu.stat"))
        _fill(out.memory, _pairs(f"{directory}/memory.stat"))
        out.memory.usage = _number(f"{directory}/memory.current")
        out.memory.usage_limit = _number(f"{directory}/memory.max", _UNLIMITED)
        out.memory.max_usage = _number(f"{directory}/memory.peak")
        out.memory.swap_usage = _number(f"{directory}/memory.swap.current")
        out.memory.swap_limit = _number(f"{directory}/memory.swap.max", _UNLIMITED)
        _fill(out.memory_events, _pairs(f"{directory}/memory.events"))
        return out

    def remove(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self.freeze(False)
        _remove([self.directory])


def _fill(message: Any, values: dict[str, int]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if name in fields:
            setattr(message, name, value)


def _write(path: str, value: object) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, f"cannot write {value}: {error.strerror}", path) from None
    finally:
        os.close(fd)


def _read(path: str) -> str:
    with open(path) as stream:
        return stream.read()


def _pids(path: str) -> list[int]:
    try:
        return [int(one) for one in _read(path).split()]
    except OSError:
        return []


def _pairs(path: str) -> dict[str, int]:
    """Return a flat keyed file; empty if it is not there."""
    try:
        return {
            key: int(value)
            for key, _, value in (line.partition(" ") for line in _read(path).splitlines())
            if value.strip().isdigit()
        }
    except OSError:
        return {}


def _number(path: str, otherwise: int = 0) -> int:
    """Return the number in a file; `otherwise` if there is none (``max``, or no such file)."""
    try:
        return int(_read(path))
    except (OSError, ValueError):
        return otherwise


def _remove(directories: list[str]) -> None:
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    for directory in dict.fromkeys(map(os.path.realpath, directories)):
        while True:
            try:
                os.rmdir(directory)
                break
            except FileNotFoundError:
                break
            except OSError as error:
                # EBUSY: something runs in it, or the kernel is still taking its processes apart.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                for pid in _pids(f"{directory}/cgroup.procs"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.002)
