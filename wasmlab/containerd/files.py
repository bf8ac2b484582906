"""Write what containerd, the kubelet and CNI read before they start, and make what they expect to find."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from wasmlab.containerd import cleanup, config, pause, shims
from wasmlab.containerd.layout import Layout
from wasmlab.containerd.programs import Programs
from wasmlab.paths import atomic_write


def make_directories(layout: Layout) -> None:
    """Make the node's directories."""
    for directory in (layout.logs, layout.bin, layout.cni, layout.registries, layout.kubelet, layout.root):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Containers' root file systems are below it, and processes in them need not be root's.
    layout.run.mkdir(mode=0o711, parents=True, exist_ok=True)
    layout.shim.mkdir(mode=0o700, exist_ok=True)
    atomic_write(layout.run / "dir", str(layout.dir))  # by it `cleanup.sweep` finds the node


def write_network(layout: Layout, subnet: str, gateway: str) -> None:
    """Write CNI's configuration."""
    layout.net.mkdir(exist_ok=True)
    conflist = config.cni_conflist(layout.network, layout.bridge, subnet, gateway, layout.cni / "state")
    atomic_write(layout.net / "10-wasmlab.conflist", conflist)


def write_containerd(layout: Layout, programs: Programs, *, wasm: bool, registry: str) -> None:
    """Write containerd's configuration, and how to reach the lab's registry."""
    if registry:
        directory = layout.registries / registry
        directory.mkdir(exist_ok=True)
        atomic_write(directory / "hosts.toml", config.hosts_toml(registry))
    text = config.containerd_toml(
        programs.major,
        root=layout.root,
        state=layout.state,
        socket=layout.socket,
        runc_root=layout.runc,
        opt=layout.run / "opt",
        sandbox_image=pause.NAME,
        cni_bin=programs.cni,
        cni_conf=layout.net,
        registries=layout.registries,
        runtimes=shims.HANDLERS if wasm else {},
    )
    atomic_write(layout.dir / "containerd.toml", text)


def write_kubelet(layout: Layout, address: str, port: int, *, ca: bytes, evented: bool) -> None:
    """Write the kubelet's configuration, and the certificate authority that vouches for who may ask it."""
    authority = layout.dir / "ca.crt"
    atomic_write(authority, ca)
    document = config.kubelet_configuration(
        socket=layout.socket,
        root=layout.kubelet,
        logs=layout.logs,
        address=address,
        port=port,
        ca=authority,
        cgroup=layout.cgroup,
        evented=evented,
    )
    atomic_write(layout.dir / "kubelet.yaml", json.dumps(document, indent=2))  # JSON is YAML


def make_cgroup(layout: Layout) -> None:
    """Make the cgroup below which the kubelet puts pods: it wants to find it, in every hierarchy."""
    name = layout.cgroup.lstrip("/")
    controllers = cleanup.CGROUPS / "cgroup.controllers"
    if controllers.exists():
        # The kubelet takes a cgroup without its controllers for one that is not there.
        for controller in controllers.read_text().split():
            with contextlib.suppress(OSError):  # some cannot be handed down everywhere
                (cleanup.CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
        (cleanup.CGROUPS / name).mkdir(exist_ok=True)
        return
    for hierarchy in cleanup.CGROUPS.iterdir():
        if not hierarchy.is_dir() or hierarchy.is_symlink() or hierarchy.name == "unified":
            continue
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        # A new cpuset is empty, and nothing can be in it, until it is told what it may use.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (group / file).exists():
                (group / file).write_text((hierarchy / file).read_text())


def point(kubeconfig: Path, server: str) -> None:
    """Correct the address of the API server in a kubeconfig that an earlier run wrote."""
    import yaml

    document = yaml.safe_load(kubeconfig.read_text())
    entry = document["clusters"][0]["cluster"]
    if entry["server"] != server:
        entry["server"] = server
        atomic_write(kubeconfig, yaml.safe_dump(document, sort_keys=False))
