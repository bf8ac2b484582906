"""Where a container node keeps its things, and what it calls them. Pure, but for `Layout.of`, which resolves a path.

::

    D/node.json            what runs: process ids, subnet, options
    D/containerd.toml      D/kubelet.yaml    D/kubeconfig    D/bootstrap.kubeconfig
    D/containerd/          images, snapshots, metadata
    D/kubelet/             volumes of pods, certificates
    D/bin/                 the shim's executables, ahead on containerd's PATH
    D/cni/net.d/           the pod network          D/cni/state/   addresses given out
    D/registries/          how to reach registries  D/logs/        one log per process, and the pods' logs
    /run/wasmlab/ID/       sockets, bundles, network namespaces: what must not outlive a boot

ID is derived from the path of D, so that whoever knows D can clean up what was made for it, even if nothing in D was
written any more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

RUN = Path("/run/wasmlab")
# A Unix socket's path may have 107 bytes; the longest below D is kubelet/pod-resources/kubelet.sock.
_LONGEST_DIRECTORY = 107 - len("/kubelet/pod-resources/kubelet.sock")


@dataclass(frozen=True)
class Layout:
    """The paths and names of one container node."""

    dir: Path

    @classmethod
    def of(cls, directory: Path | str) -> Layout:
        """Return the layout of the node in `directory`.

        Raises
        ------
        ClusterError
            If its path is too long for sockets.
        """
        from wasmlab.errors import ClusterError

        resolved = Path(directory).resolve()
        if len(str(resolved)) > _LONGEST_DIRECTORY:
            raise ClusterError(
                f"{resolved} has {len(str(resolved))} characters; sockets in it would have too long a path",
                remedy=f"choose a directory of at most {_LONGEST_DIRECTORY} characters",
            )
        return cls(resolved)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits."""
        return hashlib.sha256(str(self.dir).encode()).hexdigest()[:8]

    @property
    def run(self) -> Path:
        """Directory for what must not outlive a boot."""
        return RUN / self.id

    @property
    def record(self) -> Path:
        """What runs."""
        return self.dir / "node.json"

    @property
    def socket(self) -> Path:
        """containerd's socket."""
        return self.run / "containerd.sock"

    @property
    def state(self) -> Path:
        """containerd's bundles, sandboxes, network namespaces."""
        return self.run / "state"

    @property
    def root(self) -> Path:
        """containerd's images and snapshots."""
        return self.dir / "containerd"

    @property
    def runc(self) -> Path:
        """runc's own state."""
        return self.run / "runc"

    @property
    def shim(self) -> Path:
        """Directory of the WASM shim's zygote, ``WASMLAB_SHIM_DIR``."""
        return self.run / "shim"

    @property
    def kubelet(self) -> Path:
        """The kubelet's root directory."""
        return self.dir / "kubelet"

    @property
    def bin(self) -> Path:
        """Executables ahead on containerd's PATH."""
        return self.dir / "bin"

    @property
    def logs(self) -> Path:
        """Logs of the processes; ``pods/`` in it holds those of the containers."""
        return self.dir / "logs"

    @property
    def cni(self) -> Path:
        """CNI configuration and state."""
        return self.dir / "cni"

    @property
    def net(self) -> Path:
        """Directory of the network's configuration."""
        return self.cni / "net.d"

    @property
    def registries(self) -> Path:
        """One directory with a hosts.toml per registry."""
        return self.dir / "registries"

    @property
    def network(self) -> str:
        """Name of the CNI network."""
        return f"wasmlab-{self.id}"

    @property
    def bridge(self) -> str:
        """Name of the bridge: at most 15 characters."""
        return f"wl-{self.id}"

    @property
    def cgroup(self) -> str:
        """The cgroup, in every hierarchy, below which all pods are."""
        return f"/wasmlab-{self.id}"

    @property
    def mark(self) -> str:
        """Environment variable setting that containerd and all its descendants carry."""
        return f"WASMLAB_CONTAINERD={self.id}"
