"""`Cluster`: one object for an embedded control plane and for any other cluster that has a kubeconfig."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from wasmlab.cluster import manifests, processes, shown
from wasmlab.cluster.controlplane import ControlPlane, resources
from wasmlab.cluster.joining import NODES, Joining
from wasmlab.cluster.localregistry import LocalRegistry
from wasmlab.cluster.nodes import NodeHandle, check_node_name, point_to
from wasmlab.cluster.statedir import StateDir
from wasmlab.errors import ClusterError

DEFAULT_NODE = "wasm-node"


class Cluster(Joining):
    """A Kubernetes cluster. Use `embedded`, `attach` or `from_kubeconfig` to get one.

    Attributes
    ----------
    kubeconfig : Path
        Credentials of an administrator.
    registry : str
        ``host:port`` of the registry that belongs to it. In somebody else's cluster for which none was given: one that
        is started here, on loopback, from which only a node that runs on this machine can pull.
    dir : Path or None
        Directory of the state; None for a cluster that is not ours.
    nodes : dict of str to NodeHandle
        The node agents that run under it, by name.
    """

    def __init__(
        self,
        *,
        kubeconfig: Path,
        registry: str = "",
        context: str | None = None,
        state: StateDir | None = None,
        plane: ControlPlane | None = None,
        temporary: bool = False,
    ) -> None:
        super().__init__(kubeconfig, context)
        self._registry = registry
        self.state = state
        self.plane = plane
        self.nodes: dict[str, NodeHandle] = {}
        self._temporary = temporary
        self.foreign = plane is None
        self._local_registry: LocalRegistry | None = None
        self._timeout_s = 60.0

    # ---------------------------------------------------------------- getting one

    @classmethod
    def embedded(
        cls,
        dir: Path | str | None = None,
        *,
        node: bool = True,
        nodes: Sequence[str] = (DEFAULT_NODE,),
        engine: str = "wasmtime",
        timeout_s: float = 60.0,
        detach: bool = False,
        node_args: Sequence[str] = (),
    ) -> Cluster:
        """Start a control plane, a registry and WASM nodes on this machine.

        Parameters
        ----------
        dir : path, optional
            Directory of the state: a new one, or one that an earlier run left. None: temporary, removed at the end.
        node : bool
            Start the nodes too.
        nodes : sequence of str
            Their names.
        engine : str
            The engine that the nodes use by default.
        timeout_s : float
            Deadline for each of the control plane and the nodes, in seconds.
        detach : bool
            Let everything outlive this process, until `stop` of an `attach`\\ ed cluster.
        node_args : sequence of str
            More arguments of ``wasmlab node run``.

        Returns
        -------
        Cluster
            Running. It is a context manager, and stops at the latest when Python ends.

        Raises
        ------
        ClusterError
            If the directory is in use or unusable.
        ProcessError
            If the control plane does not start.
        BootstrapError
            If a node does not join. Whatever was started is stopped again.
        """
        temporary = dir is None
        root = Path(tempfile.mkdtemp(prefix="wasmlab-")) if dir is None else Path(dir).absolute()
        state = StateDir(root)
        # Only a directory that is kept has to survive a power cut; a crash of the program is survived either way.
        options = () if temporary else ("--fsync",)
        plane = ControlPlane(state, detach=detach, ephemeral=temporary, options=options)
        cluster = cls(kubeconfig=state.kubeconfig, state=state, plane=plane, temporary=temporary)
        cluster._timeout_s = timeout_s
        try:
            cluster.start()
        except BaseException:
            # Only what is ours: the directory may be in use by somebody else's control plane.
            if temporary:
                shutil.rmtree(root, ignore_errors=True)
            raise
        try:
            for name in nodes if node else ():
                cluster.add_node(name, engine=engine, args=node_args, timeout_s=timeout_s)
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def attach(cls, dir: Path | str) -> Cluster:
        """Return the cluster that runs in `dir`, started by another process.

        Raises
        ------
        ClusterError
            If none runs there.
        """
        state = StateDir(Path(dir).absolute())
        running = state.control_plane()
        if running is None:
            raise ClusterError(
                f"no control plane runs in {state.root}", remedy=f"`wasmlab up --dir {state.root}` starts one"
            )
        cluster = cls(
            kubeconfig=state.kubeconfig,
            registry=state.state()["registry"],
            state=state,
            plane=ControlPlane(state, detach=True),
        )
        cluster._find_nodes()
        return cluster

    @classmethod
    def from_kubeconfig(
        cls, path: Path | str, context: str | None = None, registry: str | None = None
    ) -> Cluster:
        """Return a cluster that somebody else runs: kind, k3s, a real one.

        Parameters
        ----------
        path : path
            The kubeconfig.
        context : str, optional
            A context in it, else its current one.
        registry : str, optional
            ``host:port`` of a registry that the nodes can reach; see `registry` for what happens without one.

        Raises
        ------
        ClusterError
            If there is no such file.

        Notes
        -----
        Nothing is made before it is needed. What is made is labelled, in one namespace (the context's, else one of its
        own), and removed by `stop`, at the latest when Python ends; see `wasmlab.cluster.guest`.
        """
        kubeconfig = Path(path).expanduser().absolute()
        if not kubeconfig.exists():
            raise ClusterError(f"there is no kubeconfig {kubeconfig}", remedy="check the path")
        return cls(kubeconfig=kubeconfig, registry=registry or "", context=context)

    # ---------------------------------------------------------------- life

    def start(self, timeout_s: float | None = None) -> Cluster:
        """Start the control plane, unless it runs by this object; nodes are started by `add_node`.

        Parameters
        ----------
        timeout_s : float, optional
            Deadline in seconds; by default the one it was made with.

        Raises
        ------
        ClusterError
            If the directory is in use by another control plane, or unusable.
        ProcessError
            If the control plane does not start.
        """
        if self.plane is None or self.state is None:
            return self
        if not (self.plane.started and self.alive):
            state = self.plane.start(timeout_s or self._timeout_s)
            self.registry = state["registry"]
            self._forget_client()
            for name in self.state.node_names():
                point_to(self.state.node(name), self.server)
            self._find_nodes()
            if not self.plane.detach:
                atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """End the nodes, what runs on them, and the control plane; remove a temporary directory."""
        atexit.unregister(self.stop)
        if self.plane is None or self.state is None:
            self._leave()
            return
        self._find_nodes()
        for handle in self.nodes.values():
            handle.stop()
        self.nodes.clear()
        self.plane.stop()
        self._forget_client()
        if self._temporary:
            shutil.rmtree(self.state.root, ignore_errors=True)

    def _leave_at_exit(self) -> None:
        # Not before the client has been made: its certificates are in files that it removes at exit, last come first
        # served, and whoever leaves needs them.
        atexit.register(self.stop)

    def _leave(self) -> None:
        """Remove everything of this run from somebody else's cluster: Pods while their node can still end them."""
        guest = self.__dict__.get("guest")
        try:
            if guest is not None:
                with contextlib.suppress(ClusterError):  # `leave` tries again, and says why it cannot
                    guest.remove_pods()
            for handle in self.nodes.values():
                handle.stop()
                shutil.rmtree(handle.dir, ignore_errors=True)
            self.nodes.clear()
            if guest is not None:
                guest.leave()
        finally:
            if self._local_registry is not None:
                self._local_registry.stop()
                self._local_registry = None
            self._forget_client()

    @property
    def registry(self) -> str:
        """``host:port`` of the registry; see the class."""
        if self.foreign and not self._registry:
            if self._local_registry is None:
                self._local_registry = LocalRegistry()
                atexit.register(self.stop)
            return self._local_registry.address
        return self._registry

    @registry.setter
    def registry(self, address: str) -> None:
        self._registry = address

    def kill(self) -> None:
        """SIGKILL the control plane, as a crash would; `start` brings it back with every object."""
        if self.plane is not None:
            self.plane.kill()

    def __repr__(self) -> str:
        return shown.short(self)

    def _repr_html_(self) -> str:
        return shown.card(self)

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the control plane runs; for a cluster that is not ours, whether it answers."""
        if self.state is not None:
            return self.state.control_plane() is not None
        try:
            self.rest.call("GET", "/readyz", timeout_s=5)
        except ClusterError:
            return False
        return True

    @property
    def dir(self) -> Path | None:
        """Directory of the state."""
        return None if self.state is None else self.state.root

    def status(self) -> dict[str, Any]:
        """Return what runs, as `wasmlab status` prints it."""
        state = self.state.state() if self.state else {}
        running = self.alive
        report: dict[str, Any] = {
            "dir": str(self.dir) if self.dir else None,
            "running": running,
            "ready": bool(running and state.get("ready", True)),
            "pid": self.plane.pid if self.plane else None,
            "server": self.server if self.kubeconfig.exists() else None,
            "registry": self._registry or None,
            "kubeconfig": str(self.kubeconfig),
            "versions": state.get("versions"),
            "started": state.get("started") if running else None,
            "nodes": [],
        }
        if running:
            for node in self.rest.get(NODES)["items"]:
                name = node["metadata"]["name"]
                agent = self.state.agent(name) if self.state else None
                conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", [])}
                report["nodes"].append(
                    {
                        "name": name,
                        "ready": conditions.get("Ready") == "True",
                        "agent_pid": agent.pid if agent else None,
                        "arch": node["metadata"].get("labels", {}).get(manifests.ARCH_LABEL),
                    }
                )
        return report

    def stats(self) -> dict[str, float]:
        """Return what the control plane uses: ``rss_bytes``, ``private_bytes``, ``cpu_s``, ``threads``,
        ``open_files``, and how long it took to become ready, ``ready_after_s``.

        Raises
        ------
        ClusterError
            If it is not an embedded control plane that runs.
        """  # fmt: skip
        pid = self.plane.pid if self.plane else None
        if pid is None or self.state is None:
            raise ClusterError("only an embedded control plane that runs has statistics")
        return {**resources(pid), "ready_after_s": self.state.state()["ready_after_s"]}

    # ---------------------------------------------------------------- nodes

    def add_node(
        self,
        name: str = DEFAULT_NODE,
        *,
        engine: str = "wasmtime",
        approve: bool = True,
        args: Sequence[str] = (),
        timeout_s: float = 60.0,
        wait: bool = True,
    ) -> NodeHandle:
        """Start a node agent, approve its certificate, and wait until the Node is Ready.

        Parameters
        ----------
        name : str
            Of the Node, and of its directory under the state directory.
        engine : str
            What runs modules whose pod names no engine.
        approve : bool
            Approve the serving certificate. If False, a person has to: pass ``wait=False`` too.
        args : sequence of str
            More arguments of ``wasmlab node run``.
        timeout_s : float
            The deadline, in seconds.
        wait : bool
            Wait until the Node is Ready.

        Returns
        -------
        NodeHandle
            The agent; also in `nodes`, by its name.

        Raises
        ------
        BootstrapError
            If the node does not join; it is stopped again.
        """
        check_node_name(name)
        if self.guest is not None:
            self.guest.joins(name)
            args = ("--label", self.guest.node_label, *args)
        if self.state is not None:
            directory = self.state.node(name)
        else:
            directory = Path(tempfile.mkdtemp(prefix=f"wasmlab-{name}-"))
        handle = NodeHandle(
            self,
            name,
            directory,
            engine=engine,
            args=tuple(args),
            detach=bool(self.plane and self.plane.detach),
        )
        try:
            handle.start()
            self.nodes[name] = handle
            if wait:
                handle.wait_ready(timeout_s, approve=approve)
        except BaseException:
            if handle.child is not None:
                handle.stop()
            self.nodes.pop(name, None)
            if self.state is None:  # nobody would find it
                shutil.rmtree(directory, ignore_errors=True)
            raise
        return handle

    # ---------------------------------------------------------------- inside

    def _find_nodes(self) -> None:
        """Make handles for agents that another process started."""
        if self.state is None:
            return
        for name in self.state.node_names():
            if name not in self.nodes:
                record = processes.read_record(self.state.node(name) / "agent.json")
                self.nodes[name] = NodeHandle(
                    self,
                    name,
                    self.state.node(name),
                    engine=record.get("engine", "wasmtime"),
                    args=tuple(record.get("args", ())),
                    detach=True,
                )
