"""What lies where in a lab's directory.

::

    D/state.json    the control plane: pid, ports, readiness (written by the Go program)
    D/lock          flock of the running control plane
    D/version.json  who wrote the data
    D/kubeconfig    the administrator's (0600)
    D/pki/          certificate authority, keys, kubeconfigs of the components (0700, files 0600)
    D/etcd/         every Kubernetes object         D/registry/   blobs of the registry
    D/logs/         control-plane.log               D/nodes/NAME/ one directory per node agent
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasmlab.cluster import processes
from wasmlab.errors import PrerequisiteError
from wasmlab.paths import private_dir

_OWN_NAMES = {"state.json", "version.json", "pki", "etcd", "logs"}


@dataclass(frozen=True)
class StateDir:
    """The directory of one lab."""

    root: Path

    @property
    def state_file(self) -> Path:
        """Where the Go program says what runs."""
        return self.root / "state.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def ca(self) -> Path:
        """Certificate of the lab's authority, PEM."""
        return self.root / "pki" / "ca.crt"

    @property
    def log(self) -> Path:
        """Log of the control plane; one earlier run is kept beside it as ``.1``."""
        return self.root / "logs" / "control-plane.log"

    def node(self, name: str) -> Path:
        """Directory of one node agent."""
        return self.root / "nodes" / name

    def node_names(self) -> list[str]:
        """Names of the nodes that ever ran here."""
        nodes = self.root / "nodes"
        return sorted(entry.name for entry in nodes.iterdir() if entry.is_dir()) if nodes.is_dir() else []

    def state(self) -> dict[str, Any]:
        """Content of state.json; empty if there is none."""
        return processes.read_record(self.state_file)

    def control_plane(self) -> processes.Recorded | None:
        """The running control plane, or None."""
        process = processes.recorded(self.state())
        return process if process is not None and process.alive else None

    def agent(self, name: str) -> processes.Recorded | None:
        """The running agent of a node, or None."""
        process = processes.recorded(processes.read_record(self.node(name) / "agent.json"))
        return process if process is not None and process.alive else None

    def prepare(self) -> None:
        """Create the directories; set the last log aside.

        Raises
        ------
        PrerequisiteError
            If the directory cannot be had, or holds somebody's files and would have to be made private.
        """
        self._refuse_foreign_files()
        private_dir(self.root)
        private_dir(self.root / "logs")
        if self.log.exists():
            os.replace(self.log, self.log.with_suffix(".log.1"))

    def _refuse_foreign_files(self) -> None:
        """A lab's directory becomes 0700: `--dir ~` or, for root, `--dir /` must not do that to a home or a system."""
        if not self.root.is_dir() or not self.root.stat().st_mode & 0o077:
            return
        names = {entry.name for entry in self.root.iterdir()}
        if names and not names & _OWN_NAMES:
            raise PrerequisiteError(
                f"{self.root} holds files that are no lab's, and a lab's directory is closed to other users",
                remedy=f"choose a directory of its own, for example --dir {self.root / 'lab'}",
            )


def default_root() -> Path:
    """Return ``$WASMLAB_DIR``, or ``${XDG_STATE_HOME:-~/.local/state}/wasmlab/lab``."""
    if chosen := os.environ.get("WASMLAB_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "wasmlab" / "lab"
