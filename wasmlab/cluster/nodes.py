"""Node agents as child processes: join, approval, readiness, restart, and everything ended with them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.cluster import processes
from wasmlab.cluster.rest import Unreachable
from wasmlab.errors import BootstrapError, ClusterError
from wasmlab.paths import atomic_write, private_dir, unmount_below
from wasmlab.process import Child, start_time_ticks

if TYPE_CHECKING:
    from wasmlab.cluster.cluster import Cluster

_AGENT_GRACE_S = 10.0
_POLL_S = 0.05
# As the kubelet of path 2: a lab on a full disk still runs; nothing is evicted because the machine does other things.
_EVICTION_HARD = "memory.available<50Mi,nodefs.available<1%,imagefs.available<1%"


class NodeHandle:
    """A node agent that this process started, or found running. Use `Cluster.add_node` to get one.

    Attributes
    ----------
    name : str
        Of the Node.
    dir : Path
        Its directory: kubeconfigs, certificates, logs, sandboxes.
    child : Child or None
        The process, if this process started it.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        directory: Path,
        *,
        engine: str,
        args: tuple[str, ...],
        detach: bool,
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.dir = directory
        self.engine = engine
        self.args = args
        self.detach = detach
        self.child: Child | None = None

    @property
    def log(self) -> Path:
        """The agent's log."""
        return self.dir / "agent.log"

    @property
    def kubeconfig(self) -> Path:
        """Written by the agent itself, when its client certificate has been issued."""
        return self.dir / "kubeconfig"

    @property
    def process(self) -> processes.Recorded | None:
        """The running agent, or None."""
        process = processes.recorded(processes.read_record(self.dir / "agent.json"))
        return process if process is not None and process.alive else None

    @property
    def alive(self) -> bool:
        """Whether the agent runs."""
        return self.process is not None

    def start(self) -> None:
        """Start the agent; `wait_ready` waits for the node to join.

        Raises
        ------
        ClusterError
            If it runs already.
        """
        if (running := self.process) is not None:
            raise ClusterError(
                f"node {self.name} runs already (process {running.pid})", remedy="stop it first"
            )
        private_dir(self.dir)
        argv = [
            sys.executable, "-m", "wasmlab.cli", "node", "run",
            "--kubeconfig", str(self.kubeconfig), "--dir", str(self.dir),
            "--node-name", self.name, "--engine", self.engine, "--eviction-hard", _EVICTION_HARD,
        ]  # fmt: skip
        if self.cluster.plane is not None:
            argv += ["--pod-cidr", ""]  # the controller manager allocates one, different for each node
        if not self.kubeconfig.exists():
            bootstrap = self.cluster.bootstrap_kubeconfig(self.dir / "bootstrap.kubeconfig")
            argv += ["--bootstrap-kubeconfig", str(bootstrap)]
        argv += self.args
        # An embedded control plane notices the end of this process, whichever thread started what, and then ends
        # the agents and their sandboxes. Under a foreign cluster the kernel's signal has to do.
        self.child = Child(argv, log=self.log, die_with_parent=self.cluster.plane is None)
        record = {
            "pid": self.child.pid,
            "start_ticks": start_time_ticks(self.child.pid),
            "name": self.name,
            "engine": self.engine,
            "args": list(self.args),
        }
        atomic_write(self.dir / "agent.json", processes.to_json(record))

    def wait_ready(self, timeout_s: float, *, approve: bool = True) -> None:
        """Wait until the Node is Ready, approving its serving certificate on the way.

        Parameters
        ----------
        timeout_s : float
            The deadline, in seconds.
        approve : bool
            Do what ``kubectl certificate approve NAME-tls`` does. If False, somebody else has to.

        Raises
        ------
        BootstrapError
            If the agent ends, its request is denied, or the deadline passes.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if self.child is not None and not self.child.alive:
                raise BootstrapError(
                    f"the agent of node {self.name} ended before the node was Ready "
                    f"(exit code {self.child.returncode}); last lines of its log:\n{self.child.tail()}",
                    remedy=f"see its whole log in {self.log}",
                    node=self.name,
                )
            try:
                requests = self.cluster.serving_requests(self.name)
                ready = self.ready()
            except Unreachable:  # the API server may be restarting under us: the deadline is the judge
                requests, ready = {}, False
            pending = [name for name, state in requests.items() if state == "Pending"]
            denied = [name for name, state in requests.items() if state == "Denied"]
            if denied and not pending and not ready:
                raise BootstrapError(
                    f"the certificate request {denied[-1]} was denied",
                    remedy=f"`kubectl delete csr {denied[-1]}`, then start the node again",
                    node=self.name,
                )
            if pending and approve:
                for name in pending:
                    self.cluster.approve_csr(name, timeout_s=5)
            elif ready:
                return
            if time.monotonic() >= deadline:
                request = pending[0] if pending else f"{self.name}-tls"
                waiting = (
                    f"{request} waits for approval"
                    if pending
                    else f"{request}: {requests.get(request, 'absent')}"
                )
                raise BootstrapError(
                    f"node {self.name} was not Ready after {timeout_s:g} s ({waiting}); last lines of its log:\n"
                    + (self.child.tail() if self.child else ""),
                    remedy=f"`kubectl certificate approve {request}`, if that is what it waits for; "
                    f"its log is {self.log}",
                    node=self.name,
                )
            time.sleep(_POLL_S)

    def ready(self) -> bool:
        """Whether the Node is Ready *by this agent*: a Ready left by an earlier one does not count."""
        node = self.cluster.node(self.name)
        if node is None:
            return False
        started = self._started_at()
        for condition in node["status"].get("conditions", []):
            if condition["type"] == "Ready" and condition["status"] == "True":
                return started is None or _epoch(condition["lastHeartbeatTime"]) >= started
        return False

    def _started_at(self) -> float | None:
        """Wall clock second in which the agent started; Kubernetes' times have no fractions."""
        record = processes.read_record(self.dir / "agent.json")
        ticks = record.get("start_ticks")
        if not ticks:
            return None
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return float(int(boot + ticks / os.sysconf("SC_CLK_TCK")))

    def stop(self) -> None:
        """End the agent (SIGTERM, then SIGKILL) and its sandboxes, with whatever runs in them."""
        self.stop_agent()
        processes.end(processes.sandboxes_under(self.dir), _AGENT_GRACE_S)
        clean_up(self.dir)

    def stop_agent(self) -> None:
        """End the agent alone: running modules go on, and the next agent finds them."""
        if self.child is not None:
            # Child.stop would end the whole process group, and the sandboxes may be in it.
            processes.end([p] if (p := self.process) else [], _AGENT_GRACE_S)
            self.child.wait(5)
            self.child = None
        elif (process := self.process) is not None:
            processes.end([process], _AGENT_GRACE_S)

    def kill(self) -> None:
        """SIGKILL the agent alone: what a crash looks like."""
        if self.child is not None:
            self.child.kill()
            self.child = None
        elif (process := self.process) is not None:
            processes.end([process], 0.0)

    def restart(self, timeout_s: float = 30.0) -> None:
        """Stop the agent (not the modules), start it again, wait until the node is Ready.

        Parameters
        ----------
        timeout_s : float
            The deadline, in seconds.
        """
        self.stop_agent()
        self.start()
        self.wait_ready(timeout_s)


def clean_up(directory: Path) -> None:
    """Remove what a node left in the kernel when it was ended with pods on it: mounts and control groups."""
    from wasmlab.sandbox import cgroups

    unmount_below(directory / "pods")
    cgroups.clear(directory / "cgroups")


def _epoch(timestamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(timestamp).timestamp()


def check_node_name(name: str) -> None:
    """Refuse what cannot be the name of a Node.

    Raises
    ------
    ClusterError
        If it is no DNS label (a Node may have dots, but its name is a label's value too: at most 63 characters).
    """
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", name):
        raise ClusterError(f"{name!r} cannot be the name of a Node", remedy="use a-z, 0-9, '-' and '.'")


def point_to(directory: Path, server: str) -> None:
    """Point a node of an earlier run to where the API server is now: somebody may have taken its port meanwhile."""
    import yaml

    for path in (directory / "kubeconfig", directory / "bootstrap.kubeconfig"):
        with contextlib.suppress(OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
            config = yaml.safe_load(path.read_text())
            if config["clusters"][0]["cluster"]["server"] != server:
                config["clusters"][0]["cluster"]["server"] = server
                atomic_write(path, yaml.safe_dump(config, sort_keys=False))
