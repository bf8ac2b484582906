"""Control groups, v1 and v2: limits, membership, freezing, kills for lack of memory. Both paths build on it.

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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

ROOT = "/sys/fs/cgroup"
V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")
V2_CONTROLLERS = ("memory", "cpu", "pids")
_FREEZE_TIMEOUT_S = 2.0
_REMOVE_TIMEOUT_S = 2.0


class Cgroup(Protocol):
    """A container's cgroup."""

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

    def remove(self) -> None:
        """Kill what is left in it and remove it."""


def is_v2(root: str = ROOT) -> bool:
    """Whether this machine has the unified hierarchy there."""
    return os.path.exists(f"{root}/cgroup.controllers")


class V1:
    """Version 1: one hierarchy per controller.

    Parameters
    ----------
    root, path : str
        Where the hierarchies are mounted, and the group below each of them.
    controllers : sequence of str
        Which of them.
    below : mapping, optional
        Controller -> the group that `path` starts from there; the hierarchy's root if not given.
    """

    def __init__(
        self,
        root: str,
        path: str,
        controllers: Sequence[str] = V1_CONTROLLERS,
        below: Mapping[str, str] | None = None,
    ) -> None:
        self._root, self._path = root, path
        self.existing = {
            name: f"{root}/{name}{(below or {}).get(name, '')}{path}"
            for name in controllers
            if os.path.isdir(f"{root}/{name}")
        }

    def create(self, resources: dict[str, Any]) -> None:
        for directory in self.existing.values():
            os.makedirs(directory, exist_ok=True)
        self.update(resources)

    def update(self, resources: dict[str, Any]) -> None:
        memory = resources.get("memory") or {}
        if "memory" in self.existing and (limit := memory.get("limit")):
            write(f"{self.existing['memory']}/memory.limit_in_bytes", limit)
            if memory.get("swap"):
                with contextlib.suppress(OSError):  # kernels without swap accounting
                    write(f"{self.existing['memory']}/memory.memsw.limit_in_bytes", memory["swap"])
        cpu = resources.get("cpu") or {}
        if "cpu" in self.existing:
            for key, name in (
                ("shares", "cpu.shares"),
                ("period", "cpu.cfs_period_us"),
                ("quota", "cpu.cfs_quota_us"),
            ):
                if cpu.get(key):
                    write(f"{self.existing['cpu']}/{name}", cpu[key])
        most = (resources.get("pids") or {}).get("limit")
        if "pids" in self.existing and most:
            write(f"{self.existing['pids']}/pids.max", most if most > 0 else "max")

    @property
    def directories(self) -> list[str]:
        """The group's directories, once each (cpu and cpuacct may be one)."""
        return list(dict.fromkeys(map(os.path.realpath, self.existing.values())))

    def join_paths(self) -> list[str]:
        # Not cgroup.procs: to move a whole process the kernel waits (5-20 ms) until no other one forks or ends; one
        # thread may move itself at once. A worker has one thread when it joins.
        return [f"{directory}/tasks" for directory in self.directories]

    def _anywhere(self) -> str:
        return next(iter(self.existing.values()), "")

    def procs(self) -> list[int]:
        return pids(f"{self._anywhere()}/cgroup.procs")

    def freeze(self, frozen: bool) -> None:
        directory = f"{self._root}/freezer{self._path}"
        if not os.path.isdir(directory):
            if not frozen:
                return
            os.makedirs(directory)
        for pid in self.procs():
            with contextlib.suppress(ProcessLookupError):
                write(f"{directory}/cgroup.procs", pid)
        state = "FROZEN" if frozen else "THAWED"
        write(f"{directory}/freezer.state", state)
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        while read(f"{directory}/freezer.state").strip() != state:
            if time.monotonic() > deadline:
                write(f"{directory}/freezer.state", "THAWED")
                raise TimeoutError(errno.ETIMEDOUT, f"the cgroup did not become {state}", directory)
            time.sleep(0.001)

    def oom_kills(self) -> int:
        directory = self.existing.get("memory")
        return pairs(f"{directory}/memory.oom_control").get("oom_kill", 0) if directory else 0

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
            for name in V2_CONTROLLERS:
                # EBUSY: that parent has processes of its own; then the kernel has no such controller below it.
                with contextlib.suppress(OSError):
                    write(f"{parent}/cgroup.subtree_control", f"+{name}")
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
            write(f"{self.directory}/memory.max", limit if limit > 0 else "max")
            swap = memory.get("swap")
            if swap and limit > 0:
                with contextlib.suppress(OSError):  # kernels without swap
                    write(f"{self.directory}/memory.swap.max", max(0, swap - limit) if swap > 0 else "max")
        cpu = resources.get("cpu") or {}
        if shares := cpu.get("shares"):
            # The conversion that every runtime uses: [2, 262144] to [1, 10000].
            write(f"{self.directory}/cpu.weight", max(1, min(10000, 1 + (shares - 2) * 9999 // 262142)))
        if quota := cpu.get("quota"):
            write(
                f"{self.directory}/cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100000}"
            )
        if most := (resources.get("pids") or {}).get("limit"):
            write(f"{self.directory}/pids.max", most if most > 0 else "max")
        for name, value in (resources.get("unified") or {}).items():
            if "/" in name:
                raise ValueError(f"{name!r} is no cgroup file")
            write(f"{self.directory}/{name}", value)

    @property
    def directories(self) -> list[str]:
        """Its one directory."""
        return [self.directory]

    def join_paths(self) -> list[str]:
        return [f"{self.directory}/cgroup.procs"]

    def procs(self) -> list[int]:
        return pids(f"{self.directory}/cgroup.procs")

    def freeze(self, frozen: bool) -> None:
        write(f"{self.directory}/cgroup.freeze", int(frozen))
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        while pairs(f"{self.directory}/cgroup.events").get("frozen", int(frozen)) != int(frozen):
            if time.monotonic() > deadline:
                write(f"{self.directory}/cgroup.freeze", 0)
                raise TimeoutError(errno.ETIMEDOUT, "the cgroup did not freeze", self.directory)
            time.sleep(0.001)

    def oom_kills(self) -> int:
        return pairs(f"{self.directory}/memory.events").get("oom_kill", 0)

    def remove(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self.freeze(False)
        _remove([self.directory])


def clear(record: Path) -> None:
    """Remove the groups that a node made and did not remove itself (it was killed), best effort.

    Parameters
    ----------
    record : Path
        A file with their parent directories, one a line.
    """
    with contextlib.suppress(OSError):
        for directory in record.read_text().splitlines():
            with contextlib.suppress(OSError):
                _remove([entry.path for entry in os.scandir(directory) if entry.is_dir()])
                os.rmdir(directory)
        record.unlink()


def write(path: str, value: object) -> None:
    """Write one value, in one call.

    Raises
    ------
    OSError
        With what could not be written where.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, f"cannot write {value}: {error.strerror}", path) from None
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Return a file's text."""
    with open(path) as stream:
        return stream.read()


def pids(path: str) -> list[int]:
    """Return the process ids in a file; none if it is not there."""
    try:
        return [int(one) for one in read(path).split()]
    except OSError:
        return []


def pairs(path: str) -> dict[str, int]:
    """Return a flat keyed file; empty if it is not there."""
    try:
        return {
            key: int(value)
            for key, _, value in (line.partition(" ") for line in read(path).splitlines())
            if value.strip().isdigit()
        }
    except OSError:
        return {}


def number(path: str, otherwise: int = 0) -> int:
    """Return the number in a file; `otherwise` if there is none (``max``, or no such file)."""
    try:
        return int(read(path))
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
                for pid in pids(f"{directory}/cgroup.procs"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.002)
