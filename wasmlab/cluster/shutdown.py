"""End everything that runs in a lab's directory, whoever started it, by what is on record there.

Works on the remains of a crash too: a dead control plane with live agents, agents that were killed and left their
sandboxes, a directory that was never used.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from wasmlab.cluster import processes
from wasmlab.cluster.controlplane import STOP_GRACE_S
from wasmlab.cluster.nodes import clean_up
from wasmlab.cluster.statedir import StateDir
from wasmlab.errors import ClusterError
from wasmlab.paths import file_lock

_AGENT_GRACE_S = 10.0


def shut_down(root: Path, *, purge: bool = False) -> dict[str, Any]:
    """End agents, then their sandboxes, then the control plane.

    Parameters
    ----------
    root : Path
        The lab's directory.
    purge : bool
        Remove it afterwards.

    Returns
    -------
    dict
        ``dir``, ``ended`` (what was running) and ``killed`` (what did not end when asked to).

    Raises
    ------
    ClusterError
        If `purge` is asked for a directory that is no lab, or something still holds the lab's lock.
    """
    state = StateDir(root)
    if purge and root.exists() and not (root / "version.json").exists() and any(root.iterdir()):
        raise ClusterError(f"{root} is not the directory of a lab: it is not removed", remedy="check --dir")
    ended: list[str] = []
    killed: list[str] = []

    def end(named: dict[str, processes.Recorded], grace_s: float) -> None:
        ended.extend(named)
        left = processes.end(named.values(), grace_s)
        killed.extend(name for name, process in named.items() if process in left)

    # Agents first: they would try to restart what is taken from under them. Then what they started.
    agents = {name: process for name in state.node_names() if (process := state.agent(name)) is not None}
    end({f"node {name}": process for name, process in agents.items()}, _AGENT_GRACE_S)
    sandboxes = processes.sandboxes_under(root / "nodes")
    if processes.end(sandboxes, _AGENT_GRACE_S):
        killed.append("sandboxes")
    if sandboxes:
        ended.append("sandboxes")
    for directory in (root / "nodes").glob("*"):
        clean_up(directory)
    plane = state.control_plane()
    end({"control plane": plane} if plane else {}, STOP_GRACE_S)
    if (root / "lock").exists():
        # The proof: whoever runs on this directory holds its lock, on record or not.
        with file_lock(root / "lock", 2.0, what=f"the lab in {root}"):
            if purge:
                if below := _mounted_below(root):
                    # Removing through a mount would remove files that are somebody else's.
                    raise ClusterError(
                        f"{root} is not removed: {below} is mounted in it",
                        remedy="`wasmlab containerd down` ends the container node that made it",
                    )
                shutil.rmtree(root)
    return {"dir": str(root), "ended": ended, "killed": killed}


def _mounted_below(root: Path) -> str | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].replace("\\040", " ")
        if point != str(root) and Path(point).is_relative_to(root):
            return point
    return None
