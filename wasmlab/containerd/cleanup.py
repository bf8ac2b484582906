"""Remove everything that a container node left on the machine, whatever state it was left in.

The same steps end a node that runs well and clear up after one that was killed: nothing is asked of the kubelet or of
containerd, which may be gone. Every step finds its things by the node's id, never by a pattern that could match
somebody else's:

1. processes: containerd and the kubelet (by record), what carries the node's mark in its environment (shims), what is
   in the node's cgroups (containers);
2. mounts below the node's directories (root file systems, volumes, network namespaces);
3. cgroups, the bridge with its ports, CNI's cached results, sockets of shims, links in /var/log/containers;
4. the run directory and containerd's content.

Done twice it does nothing the second time. What could not be removed is returned, and named in the error of `clean`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from wasmlab.cluster import processes
from wasmlab.cluster.processes import Recorded, identify
from wasmlab.containerd.layout import RUN, Layout
from wasmlab.containerd.programs import which
from wasmlab.errors import ClusterError

CGROUPS = Path("/sys/fs/cgroup")
CNI_RESULTS = Path("/var/lib/cni/results")
POD_LINKS = Path("/var/log/containers")
# Fixed in the kubelet, whatever its root directory.
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
# What the kubelet, containerd, runc's shim and CNI make wherever they run, the innermost first.
_COMMON = (
    POD_LINKS,
    CNI_RESULTS,
    CNI_RESULTS.parent,
    Path("/run/containerd/s"),
    Path("/run/containerd"),
    DEVICE_PLUGINS,
    DEVICE_PLUGINS.parent,
)
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)
_ROUNDS = 100


def clean(layout: Layout, *, grace_s: float = 5.0) -> None:
    """Remove all traces of the node, running or not, but for its logs and the kubelet's credentials.

    Raises
    ------
    ClusterError
        If something resisted; it names what.
    """
    record = processes.read_record(layout.record)
    daemons = [
        process
        for name in ("kubelet", "containerd")
        if (process := processes.recorded(record.get(name) or {})) is not None
    ]
    # One after the other: a kubelet that loses its containerd would try to save its pods.
    for process in daemons:
        processes.end([process], grace_s)
    sockets = list(_shim_sockets(layout))
    left = [
        *_end_processes(layout),
        *_unmount(layout),
        *_remove_cgroups(layout),
        *_remove_bridge(layout),
    ]
    for path in sockets:
        with contextlib.suppress(OSError):
            path.unlink()
    _remove_cni_results(layout)
    _remove_pod_links(layout)
    # A mount that stayed may lead to files that are not the node's: nothing below it is touched.
    content = (layout.run, layout.root, layout.cni, layout.kubelet / "pods", layout.logs / "pods")
    for directory in () if _mounts(layout) else content:
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            left.append(str(directory))
    _remove_empty_directories(layout)
    if left:
        raise ClusterError(
            f"could not remove everything that the container node in {layout.dir} made: {', '.join(left)}",
            remedy="see what holds it (`lsns`, `findmnt`, `fuser -vm`), then run the command again",
            left=left,
        )


def in_use(layout: Layout) -> bool:
    """Whether somebody is in charge of the node: its owner lives, or it was meant to go on and does."""
    record = processes.read_record(layout.record)
    owner, *daemons = (
        processes.recorded(record.get(name) or {}) for name in ("owner", "containerd", "kubelet")
    )
    if owner is not None and owner.alive:
        return True
    return bool(record.get("detach")) and any(daemon is not None and daemon.alive for daemon in daemons)


def sweep() -> list[Path]:
    """Remove what nodes left whose owners were killed, wherever their directories are; return these directories."""
    found = []
    for marker in RUN.glob("*/dir"):
        with contextlib.suppress(OSError):
            layout = Layout(Path(marker.read_text()))
            if layout.run == marker.parent and not in_use(layout):
                temporary = processes.read_record(layout.record).get("temporary")
                clean(layout)
                if temporary:
                    shutil.rmtree(layout.dir, ignore_errors=True)
                found.append(layout.dir)
    return found


def traces(layout: Layout) -> list[str]:
    """Return what of the node is still on the machine: empty after `clean`."""
    found = [f"process {process.pid}" for process in _processes(layout)]
    found += [f"mount {path}" for path in _mounts(layout)]
    found += [f"cgroup {path}" for path in _cgroup_roots(layout)]
    if Path("/sys/class/net", layout.bridge).exists():
        found.append(f"interface {layout.bridge}")
    found += [f"file {path}" for path in CNI_RESULTS.glob(f"{layout.network}-*")]
    found += [f"link {path}" for path in _pod_links(layout)]
    found += [f"directory {path}" for path in (layout.run, layout.root) if path.exists()]
    return found


# ---------------------------------------------------------------- processes


def _processes(layout: Layout) -> list[Recorded]:
    pids = set(_ours(layout)) | set(_in_cgroups(layout))
    pids.discard(os.getpid())
    return [process for pid in sorted(pids) if (process := identify(pid)) is not None]


def _ours(layout: Layout) -> Iterator[int]:
    """Yield what carries the node's mark, and the WASM shim's processes: they start with a clean environment."""
    mark, directory = layout.mark.encode(), os.fsencode(layout.shim)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Ended meanwhile, or a kernel thread.
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                shim = b"wasmlab.shim.zygote" in words and directory in words
                if shim or mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def _in_cgroups(layout: Layout) -> Iterator[int]:
    for root in _cgroup_roots(layout):
        for directory, _, files in os.walk(root):
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError):
                    yield from map(int, Path(directory, "cgroup.procs").read_text().split())


def _end_processes(layout: Layout) -> list[str]:
    for _ in range(_ROUNDS):  # a process may fork while it is being ended
        found = _processes(layout)
        if not found:
            return []
        # A frozen process does not even die.
        for root in _cgroup_roots(layout):
            _thaw(root)
        for process in found:
            process.signal(signal.SIGKILL)
        time.sleep(0.02)
    return [f"process {process.pid}" for process in _processes(layout)]


def _thaw(root: Path) -> None:
    for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        for directory, _, files in os.walk(root):
            if name in files:
                with contextlib.suppress(OSError):
                    Path(directory, name).write_text(word)


# ---------------------------------------------------------------- mounts


def _mounts(layout: Layout) -> list[str]:
    """Return mount points below the node's directories, the innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4])
        if any(Path(point).is_relative_to(root) for root in (layout.run, layout.dir)):
            found.append(point)
    return found[::-1]


def _unmount(layout: Layout) -> list[str]:
    for point in _mounts(layout):
        # Detached, because nothing that still has a file open there shall keep it.
        _LIBC.umount2(os.fsencode(point), _MNT_DETACH)
    return [f"mount {point}" for point in _mounts(layout)]


# ---------------------------------------------------------------- cgroups


def _cgroup_roots(layout: Layout) -> list[Path]:
    """Return the node's cgroup in every hierarchy in which it exists (one, if cgroup v2 alone is mounted)."""
    name = layout.cgroup.lstrip("/")
    candidates = [CGROUPS / name, *(entry / name for entry in CGROUPS.iterdir() if entry.is_dir())]
    return [path for path in candidates if path.is_dir()]


def _remove_cgroups(layout: Layout) -> list[str]:
    for _ in range(_ROUNDS):  # the kernel lets go of a dead process' cgroup a little later
        roots = _cgroup_roots(layout)
        if not roots:
            break
        for root in roots:
            for directory, _, _ in os.walk(root, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        if _cgroup_roots(layout):
            time.sleep(0.02)
    return [f"cgroup {root}" for root in _cgroup_roots(layout)]


# ---------------------------------------------------------------- network


def _remove_bridge(layout: Layout) -> list[str]:
    device = Path("/sys/class/net", layout.bridge)
    if not device.exists():
        return []
    ip = which("ip") or Path("ip")
    ports = device / "brif"
    # A port's other end is in a namespace that is going away, but that happens some time later.
    names = [entry.name for entry in ports.iterdir()] if ports.is_dir() else []
    for name in (*names, layout.bridge):
        subprocess.run([str(ip), "link", "delete", name], capture_output=True, timeout=30)
    return [f"interface {layout.bridge}"] if device.exists() else []


def _remove_cni_results(layout: Layout) -> None:
    for path in CNI_RESULTS.glob(f"{layout.network}-*"):
        with contextlib.suppress(OSError):
            path.unlink()


# ---------------------------------------------------------------- files


def _pod_links(layout: Layout) -> Iterable[Path]:
    """Return the links that every kubelet makes in /var/log/containers, as far as they lead to this node's logs."""
    if not POD_LINKS.is_dir():
        return []
    return [
        path
        for path in POD_LINKS.iterdir()
        if path.is_symlink() and Path(os.readlink(path)).is_relative_to(layout.logs)
    ]


def _remove_pod_links(layout: Layout) -> None:
    for path in _pod_links(layout):
        with contextlib.suppress(OSError):
            path.unlink()


def _shim_sockets(layout: Layout) -> Iterator[Path]:
    """Return the sockets that runc's shims keep in a place common to all containerds."""
    for address in layout.state.glob("io.containerd.runtime.v2.task/*/*/address"):
        with contextlib.suppress(OSError):
            text = address.read_text().strip().removeprefix("unix://")
            if text.startswith("/"):
                yield Path(text)


def _remove_empty_directories(layout: Layout) -> None:
    with contextlib.suppress(OSError):
        layout.run.parent.rmdir()
    if layout.run.parent.exists():
        return  # another node runs here, and needs them
    _remove_dead_socket(DEVICE_PLUGINS / "kubelet.sock")
    for directory in _COMMON:
        with contextlib.suppress(OSError):  # not empty: somebody else's
            directory.rmdir()


def _remove_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))  # a kubelet that is not ours may listen
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            pass
