"""Control groups of containers that have requests or limits: made, found again, judged, removed.

They lie below the group of this agent, ``wasmlab-<node>``, one per run; only containers that ask for something get one
(a hello without resources costs nothing). Where no group can be made (an ordinary user without delegation) the
engine's own memory limit and RLIMIT_DATA hold the memory, processor limits cannot be held, and an event of the pod says
both.

Version 2 has no controllers below a group that has processes of its own: this agent then moves itself to a group
``agent`` beside those of its containers, which a unit with ``Delegate=yes`` allows.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wasmlab.node import log
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.spec.resources import Json
from wasmlab.sandbox import cgroups

_CONTROLLERS = ("memory", "cpu")


@dataclass
class ContainerGroups:
    """The groups of this node's containers.

    Parameters
    ----------
    node : str
        The node's name.
    record : Path, optional
        Written with the directories that hold the groups, so that whoever ends a killed node can remove them.
    root : str
        Where control groups are mounted.
    """

    node: str
    record: Path | None = None
    root: str = cgroups.ROOT
    why_not: str = "they were not looked for"
    _make: Callable[[str], cgroups.V1 | cgroups.V2] | None = field(default=None, repr=False)

    def probe(self) -> None:
        """Find out whether groups with limits can be made here; `why_not` says if not."""
        try:
            self._make = self._layout()
            group = self._make("/probe")
            try:
                group.create({"memory": {"limit": 64 << 20}, "cpu": {"shares": 2}})
            finally:
                group.remove()
            self.why_not = ""
            if self.record is not None:
                self.record.write_text("\n".join(self._make("").directories))
        except (OSError, TimeoutError) as error:
            self._make = None
            self.why_not = f"{error.strerror or error} ({error.filename or self.root})"
            log.info("no control groups: limits are held by the engines", reason=self.why_not)

    @property
    def available(self) -> bool:
        """Whether limits are held by the kernel."""
        return self._make is not None

    def create(self, run_id: RunId, limits: Json) -> tuple[str, ...]:
        """Make the group of a run; return the directories to join.

        Raises
        ------
        OSError
            It cannot be made.
        """
        group = self.of(run_id)
        if group is None:
            return ()
        try:
            group.create(limits)
        except OSError:
            group.remove()
            raise
        return tuple(group.directories)

    def of(self, run_id: RunId) -> cgroups.V1 | cgroups.V2 | None:
        """The group of a run, which may not exist; None where there are none."""
        return self._make(f"/{run_id}") if self._make is not None else None

    def oom_killed(self, run_id: RunId) -> bool:
        """Whether the kernel killed it for lack of memory."""
        group = self.of(run_id)
        return group is not None and group.oom_kills() > 0

    def remove(self, run_id: RunId) -> None:
        """Remove the group of a run that has ended, if it had one."""
        group = self.of(run_id)
        if group is None:
            return
        try:
            group.remove()
        except (OSError, TimeoutError) as error:
            log.warning("cannot remove a control group", run=run_id, error=error)

    def sweep(self, known: set[str]) -> None:
        """Remove groups of runs that are not known any more (their agent was killed)."""
        if self._make is None:
            return
        for directory in self._make("").directories:
            for entry in _directories(directory):
                run_id = RunId.parse(entry)
                if run_id is not None and entry not in known:
                    self.remove(run_id)

    def close(self) -> None:
        """Leave nothing behind if nothing runs any more."""
        if self._make is not None:
            for directory in self._make("").directories:
                with contextlib.suppress(OSError):
                    os.rmdir(directory)

    def _layout(self) -> Callable[[str], cgroups.V1 | cgroups.V2]:
        own = _own_groups()
        name = f"/wasmlab-{re.sub(r'[^a-zA-Z0-9.-]', '-', self.node)}"
        if not cgroups.is_v2(self.root):
            below = {controller: own.get(controller, "").rstrip("/") for controller in _CONTROLLERS}
            if not all(os.path.isdir(f"{self.root}/{one}") for one in _CONTROLLERS):
                raise FileNotFoundError(2, "no hierarchy for memory and cpu", self.root)
            return lambda path: cgroups.V1(self.root, name + path, _CONTROLLERS, below)
        base = self.root + own.get("", "").rstrip("/")
        # After a restart inside the unit's group the agent is in the leaf that an earlier one made.
        base = base.removesuffix("/agent")
        _make_room(base)
        return lambda path: cgroups.V2(base + name + path)


def _make_room(base: str) -> None:
    """Have a version 2 group's controllers handed down, which needs it to have no processes of its own."""
    handed = set(cgroups.read(f"{base}/cgroup.subtree_control").split())
    if set(_CONTROLLERS) <= handed:
        return
    wanted = " ".join(f"+{one}" for one in _CONTROLLERS)
    try:
        cgroups.write(f"{base}/cgroup.subtree_control", wanted)
    except OSError:
        leaf = f"{base}/agent"
        os.makedirs(leaf, exist_ok=True)
        for pid in cgroups.pids(f"{base}/cgroup.procs"):
            # This agent and its zygotes; whatever else is there is not ours to move, and then this fails.
            if b"wasmlab" in Path(f"/proc/{pid}/cmdline").read_bytes():
                cgroups.write(f"{leaf}/cgroup.procs", pid)
        cgroups.write(f"{base}/cgroup.subtree_control", wanted)


def _own_groups() -> dict[str, str]:
    """This process's group by controller; version 2's under the empty name."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for one in controllers.split(","):
            found[one] = path
    return found


def _directories(path: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(path) if entry.is_dir()]
    except OSError:
        return []
