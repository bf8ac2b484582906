"""`ContainerdNode`: kubelet and containerd, joined to a cluster, as one thing to start and to end."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wasmlab.cluster import binary, processes
from wasmlab.containerd import cleanup, files, joining, network, pause, programs, shims
from wasmlab.containerd.layout import Layout
from wasmlab.containerd.runtimeclass import NODE_LABEL, runtime_classes
from wasmlab.errors import ClusterError, ProcessError
from wasmlab.oci.image import archive
from wasmlab.paths import atomic_write, file_lock, private_dir
from wasmlab.process import Child, free_ports, start_time_ticks
from wasmlab.shim import control

if TYPE_CHECKING:
    from wasmlab.cluster.cluster import Cluster

DEFAULT_NAME = "containerd-node"
_GRACE_S = 10.0
_LOCK_TIMEOUT_S = 120.0
_CTR_TIMEOUT_S = 60.0


class ContainerdNode:
    """A node whose pods run in containers: runc's, or our shim's. A context manager.

    Parameters
    ----------
    cluster : Cluster
        The cluster that it joins; it must run.
    dir : path, optional
        Where its things lie. By default below the cluster's directory; temporary for a cluster that is not ours.
    name : str
        Of the Node.
    containerd : {"debian", "2.x"} or path
        Which containerd: the system's, the one built from its Go module, or that in a directory.
    evented : bool, optional
        The kubelet learns of containers' ends by events. By default if containerd is 2.x; 1.x sends none.
    wasm : bool
        Install the shim's handlers and their RuntimeClasses.
    detach : bool
        Let everything outlive this process, until `cleanup.clean` or `stop` of another object for the same directory.

    Attributes
    ----------
    layout : Layout
        Its paths and names.
    programs : Programs
        What runs.
    """

    def __init__(
        self,
        cluster: Cluster,
        dir: Path | str | None = None,
        *,
        name: str = DEFAULT_NAME,
        containerd: str | Path = "debian",
        evented: bool | None = None,
        wasm: bool = True,
        detach: bool = False,
        timeout_s: float = 90.0,
    ) -> None:
        # Not below a temporary lab: it is removed as a whole, and what pods have mounted is no part of it.
        below = None if cluster.dir is None or cluster._temporary else cluster.dir
        self._temporary = dir is None and below is None
        if dir is None:
            dir = below / "containerd" / name if below else tempfile.mkdtemp(prefix="wasmlab-node-")
        self.cluster = cluster
        self.layout = Layout.of(dir)
        self.name = name
        self.wasm = wasm
        self.detach = detach
        self.timeout_s = timeout_s
        self.programs = programs.find(containerd)
        self.evented = self.programs.major >= 2 if evented is None else evented
        self.containerd: Child | None = None
        self.kubelet: Child | None = None
        self.address = ""
        self.port = 0
        self._started_s = 0.0

    # ---------------------------------------------------------------- life

    def start(self) -> ContainerdNode:
        """Start containerd and the kubelet, and wait until the Node is Ready.

        What an earlier start left behind, killed or not, is removed first.

        Raises
        ------
        ClusterError
            If a node runs in this directory.
        ProcessError
            If containerd or the kubelet does not start.
        BootstrapError
            If the node does not become Ready. Whatever was made is removed again.
        """
        private_dir(self.layout.dir)
        with file_lock(
            self.layout.dir / "lock", _LOCK_TIMEOUT_S, what="another start of this container node"
        ):
            if cleanup.in_use(self.layout):
                raise ClusterError(
                    f"a container node runs in {self.layout.dir} already", remedy="stop it first"
                )
            cleanup.clean(self.layout)
            cleanup.sweep()
            # What may take minutes the first time comes before anything that waits for it.
            binary.ensure()
            image = archive(pause.image(), pause.NAME)
            if not self.detach:
                atexit.register(self.stop)
            try:
                self._prepare()
                self._start_containerd()
                self.ctr("images", "import", "-", input=image)
                if (
                    self.wasm
                ):  # before the kubelet lists them: a pod that comes early would fail, and wait for 10 s
                    self.cluster.apply(runtime_classes())
                self._start_kubelet()
                if self.wasm:  # ahead of the first pod, which would wait for it
                    control.start(self.layout.shim, sys.executable)
                self._wait_ready()
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """End everything: pods, processes, mounts, namespaces, cgroups, network. Images are gone as well.

        The Node is deleted, if the API server still answers, and pods on it are marked as gone.
        """
        atexit.unregister(self.stop)
        for child in (self.kubelet, self.containerd):
            if child is not None and child.alive:
                child.stop(_GRACE_S)
        self.kubelet = self.containerd = None
        with contextlib.suppress(ClusterError):
            if self.cluster.alive:
                joining.forget(self.cluster, self.name)
        cleanup.clean(self.layout)
        with contextlib.suppress(FileNotFoundError):
            self.layout.record.unlink()
        if self._temporary:
            shutil.rmtree(self.layout.dir, ignore_errors=True)

    def restart_kubelet(self, *, kill: bool = False) -> None:
        """End the kubelet alone, start it again, and wait until the Node is Ready. Pods go on meanwhile."""
        self._end(self.kubelet, kill)
        self._start_kubelet()
        self._wait_ready()

    def restart_containerd(self, *, kill: bool = False) -> None:
        """End containerd alone and start it again. Pods go on meanwhile: they belong to their shims."""
        self._end(self.containerd, kill)
        self._start_containerd()

    def __enter__(self) -> ContainerdNode:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---------------------------------------------------------------- looking at it

    def ctr(
        self, *args: str, input: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``ctr`` against this containerd, in the namespace that the kubelet uses (``k8s.io``).

        Raises
        ------
        ProcessError
            If it fails and `check` is true, or does not end.
        """
        argv = [str(self.programs.ctr), "--address", str(self.layout.socket), "--namespace", "k8s.io", *args]
        try:
            done = subprocess.run(
                argv, input=input, capture_output=True, timeout=_CTR_TIMEOUT_S, env=self._environment()
            )
        except subprocess.TimeoutExpired:
            raise ProcessError(
                f"`ctr {' '.join(args)}` did not end within {_CTR_TIMEOUT_S:g} s", argv=argv
            ) from None
        if check and done.returncode:
            raise ProcessError(
                f"`ctr {' '.join(args)}` failed",
                argv=argv,
                returncode=done.returncode,
                log_tail=done.stderr.decode(errors="replace"),
            )
        return done

    def traces(self) -> list[str]:
        """Return what of this node is on the machine now; empty after `stop`."""
        return cleanup.traces(self.layout)

    @property
    def log(self) -> Path:
        """The kubelet's log."""
        return self.layout.logs / "kubelet.log"

    # ---------------------------------------------------------------- inside

    def _prepare(self) -> None:
        layout, found = self.layout, self.programs
        self._write_record()  # first: a node without a record is a leftover to every other start
        files.make_directories(layout)
        subnet = network.choose_subnet(layout.id, network.used_subnets(found.ip))
        self.address = str(next(subnet.hosts()))
        network.make_bridge(found.ip, layout.bridge, self.address)
        self.port = free_ports(1)[0]
        files.write_network(layout, str(subnet), self.address)
        files.write_containerd(layout, found, wasm=self.wasm, registry=self.cluster.registry)
        files.write_kubelet(layout, self.address, self.port, ca=self.cluster.ca, evented=self.evented)
        files.make_cgroup(layout)
        if self.wasm:
            shims.install(layout.bin)

    def _environment(self) -> dict[str, str]:
        name, _, value = self.layout.mark.partition("=")
        return {
            **os.environ,
            name: value,
            "PATH": f"{self.layout.bin}:{self.programs.containerd.parent}:{programs.path()}",
            "WASMLAB_SHIM_DIR": str(self.layout.shim),
        }

    def _start_containerd(self) -> None:
        self.containerd = Child(
            [str(self.programs.containerd), "--config", str(self.layout.dir / "containerd.toml")],
            log=self.layout.logs / "containerd.log",
            env=self._environment(),
            die_with_parent=not self.detach,
        )
        self._write_record()
        self.containerd.wait_ready(
            lambda: self.layout.socket.exists() and self.ctr("version", check=False).returncode == 0,
            self.timeout_s,
            what="containerd",
        )

    def _start_kubelet(self) -> None:
        kubeconfig = self.layout.dir / "kubeconfig"
        argv = [
            str(binary.ensure()), "kubelet",
            "--config", str(self.layout.dir / "kubelet.yaml"),
            "--kubeconfig", str(kubeconfig),
            "--root-dir", str(self.layout.kubelet),
            "--cert-dir", str(self.layout.kubelet / "pki"),
            "--hostname-override", self.name,
            "--node-ip", self.address,
        ]  # fmt: skip
        if self.wasm:
            argv += ["--node-labels", f"{NODE_LABEL}=true"]
        if kubeconfig.exists():
            files.point(kubeconfig, self.cluster.server)
        else:
            bootstrap = self.cluster.bootstrap_kubeconfig(self.layout.dir / "bootstrap.kubeconfig")
            argv += ["--bootstrap-kubeconfig", str(bootstrap)]
        self._started_s = float(int(time.time()))
        self.kubelet = Child(argv, log=self.log, env=self._environment(), die_with_parent=not self.detach)
        self._write_record()

    def _wait_ready(self) -> None:
        assert self.kubelet is not None
        joining.wait_ready(self.cluster, self.name, self.kubelet, self._started_s, self.timeout_s)

    def _end(self, child: Child | None, kill: bool) -> None:
        if child is None:
            return
        if kill:
            child.kill()
        else:
            child.signal(signal.SIGTERM)
            child.wait(_GRACE_S + 20)

    def _write_record(self) -> None:
        record: dict[str, Any] = {
            "name": self.name,
            "detach": self.detach,
            "temporary": self._temporary,
            "owner": _identity(os.getpid()),
            "address": self.address,
            "port": self.port,
            "containerd_version": self.programs.version,
        }
        for key, child in (("containerd", self.containerd), ("kubelet", self.kubelet)):
            if child is not None:
                record[key] = _identity(child.pid)
        atomic_write(self.layout.record, processes.to_json(record))


def _identity(pid: int) -> dict[str, int | None]:
    return {"pid": pid, "start_ticks": start_time_ticks(pid)}
