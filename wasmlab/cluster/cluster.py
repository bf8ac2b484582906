"""`Cluster`: one object for an embedded control plane and for any other cluster that has a kubeconfig."""

from __future__ import annotations

import atexit
import base64
import contextlib
import re
import secrets
import shutil
import string
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wasmlab.cluster import manifests, processes
from wasmlab.cluster.controlplane import ControlPlane, resources
from wasmlab.cluster.nodes import NodeHandle
from wasmlab.cluster.rest import Rest
from wasmlab.cluster.statedir import StateDir
from wasmlab.cluster.wait import wait_for
from wasmlab.errors import ClusterError, ProcessError
from wasmlab.paths import atomic_write

if TYPE_CHECKING:
    from kubernetes import client

DEFAULT_NODE = "wasm-node"
_KUBECTL_TIMEOUT_S = 120.0
_NODES = "/api/v1/nodes"
_CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_TOKEN_LIFE = timedelta(hours=24)


class Cluster:
    """A Kubernetes cluster. Use `embedded`, `attach` or `from_kubeconfig` to get one.

    Attributes
    ----------
    kubeconfig : Path
        Credentials of an administrator.
    registry : str
        ``host:port`` of the registry that belongs to it; empty if there is none.
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
        self.kubeconfig = kubeconfig
        self.registry = registry
        self.context = context
        self.state = state
        self.plane = plane
        self.nodes: dict[str, NodeHandle] = {}
        self._temporary = temporary
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
        plane = ControlPlane(state, detach=detach, options=() if temporary else ("--fsync",))
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
            ``host:port`` of a registry that the nodes can reach.
        """
        kubeconfig = Path(path).expanduser().absolute()
        if not kubeconfig.exists():
            raise ClusterError(f"there is no kubeconfig {kubeconfig}", remedy="check the path")
        return cls(kubeconfig=kubeconfig, registry=registry or "", context=context)

    # ---------------------------------------------------------------- life

    def start(self, timeout_s: float | None = None) -> Cluster:
        """Start the control plane, unless it runs by this object; nodes are started by `add_node`.

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
            self._update_node_kubeconfigs()
            self._find_nodes()
            if not self.plane.detach:
                atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """End the nodes, what runs on them, and the control plane; remove a temporary directory."""
        atexit.unregister(self.stop)
        if self.plane is None or self.state is None:
            for handle in self.nodes.values():
                handle.stop()
                shutil.rmtree(handle.dir, ignore_errors=True)
            self.nodes.clear()
            self._forget_client()
            return
        self._find_nodes()
        for handle in self.nodes.values():
            handle.stop()
        self.nodes.clear()
        self.plane.stop()
        self._forget_client()
        if self._temporary:
            shutil.rmtree(self.state.root, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL the control plane, as a crash would; `start` brings it back with every object."""
        if self.plane is not None:
            self.plane.kill()

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

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._kubeconfig_entry("clusters", "cluster")["server"])

    @property
    def ca(self) -> bytes:
        """Certificate authority of the API server, PEM."""
        entry = self._kubeconfig_entry("clusters", "cluster")
        if data := entry.get("certificate-authority-data"):
            return base64.b64decode(data)
        if path := entry.get("certificate-authority"):
            return (self.kubeconfig.parent / path).read_bytes()
        return b""

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
            "registry": self.registry or None,
            "kubeconfig": str(self.kubeconfig),
            "versions": state.get("versions"),
            "started": state.get("started") if running else None,
            "nodes": [],
        }
        if running:
            for node in self.rest.get(_NODES)["items"]:
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
        ``open_files``, and how long it took to become ready, ``ready_after_s``."""  # fmt: skip
        pid = self.plane.pid if self.plane else None
        if pid is None or self.state is None:
            raise ClusterError("only an embedded control plane that runs has statistics")
        return {**resources(pid), "ready_after_s": self.state.state()["ready_after_s"]}

    # ---------------------------------------------------------------- the API

    @cached_property
    def api(self) -> client.ApiClient:
        """A client of the API server; the typed APIs below share it."""
        from kubernetes import client, config

        configuration = client.Configuration()
        config.load_kube_config(
            config_file=str(self.kubeconfig), context=self.context, client_configuration=configuration
        )
        if urlsplit(configuration.host).hostname in ("127.0.0.1", "localhost", "::1"):
            # The client takes HTTPS_PROXY from the environment, and no proxy can reach our own loopback.
            configuration.proxy = None
        return client.ApiClient(configuration)

    @cached_property
    def rest(self) -> Rest:
        """The same API server as raw dictionaries."""
        return Rest(self.api)

    @property
    def core(self) -> client.CoreV1Api:
        """Pods, Nodes, Events, Secrets ..."""
        from kubernetes import client

        return client.CoreV1Api(self.api)

    @property
    def apps(self) -> client.AppsV1Api:
        """Deployments, DaemonSets ..."""
        from kubernetes import client

        return client.AppsV1Api(self.api)

    @property
    def certificates(self) -> client.CertificatesV1Api:
        """CertificateSigningRequests."""
        from kubernetes import client

        return client.CertificatesV1Api(self.api)

    def kubectl(
        self, *args: str, input: str | None = None, check: bool = True, timeout_s: float = _KUBECTL_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, of the version of the embedded control plane, against this cluster.

        Raises
        ------
        ProcessError
            If it fails and `check` is true, or runs longer than `timeout_s`.
        """
        argv = self.kubectl_argv(*args)
        try:
            done = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(
                f"`kubectl {' '.join(args)}` still ran after {timeout_s:g} s", argv=argv
            ) from error
        if check and done.returncode:
            raise ProcessError(
                f"`kubectl {' '.join(args)}` failed",
                argv=argv,
                returncode=done.returncode,
                log_tail=done.stderr,
            )
        return done

    def kubectl_argv(self, *args: str) -> list[str]:
        """Return the command line with which `kubectl` runs `args`."""
        from wasmlab.cluster import binary

        argv = [str(binary.ensure()), "kubectl", "--kubeconfig", str(self.kubeconfig)]
        if self.context:
            argv += ["--context", self.context]
        return [*argv, *args]

    def apply(self, manifest: dict[str, Any] | Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Create or change objects (server-side apply, as field manager ``wasmlab``).

        Parameters
        ----------
        manifest : dict or iterable of dict
            One object or several; without a namespace they go to ``default``.

        Returns
        -------
        list of dict
            The objects as the API server now has them.

        Raises
        ------
        ClusterError
            With what the API server said.
        """
        return [self.rest.apply(one) for one in _listed(manifest)]

    def delete(
        self, manifest: dict[str, Any] | Iterable[dict[str, Any]], *, grace_s: int | None = None
    ) -> None:
        """Delete objects; those that do not exist are passed over. Does not wait until they are gone."""
        for one in _listed(manifest):
            self.rest.delete(one, grace_s)

    # ---------------------------------------------------------------- pods

    def wait_pod(
        self,
        name: str,
        namespace: str = "default",
        phase: Sequence[str] = ("Succeeded", "Failed"),
        timeout_s: float = 30.0,
    ) -> dict[str, Any]:
        """Wait until a pod is in one of the phases, by watching it.

        Returns
        -------
        dict
            The pod.

        Raises
        ------
        NotReady
            At the deadline, with the pod's ``events``.
        """

        def arrived(pod: dict[str, Any] | None) -> bool:
            return pod is not None and pod["status"].get("phase") in phase

        found = wait_for(
            self.rest,
            _pods(namespace),
            name,
            arrived,
            timeout_s,
            what=f"pod {namespace}/{name} to be {' or '.join(phase)}",
            events=lambda: [f"{e['reason']}: {e['message']}" for e in self.events(name, namespace)],
        )
        assert found is not None
        return found

    def wait_gone(self, name: str, namespace: str = "default", timeout_s: float = 30.0) -> None:
        """Wait until a pod no longer exists.

        Raises
        ------
        NotReady
            At the deadline.
        """
        wait_for(
            self.rest,
            _pods(namespace),
            name,
            lambda pod: pod is None,
            timeout_s,
            what=f"pod {namespace}/{name} to be gone",
        )

    def logs(
        self,
        name: str,
        namespace: str = "default",
        *,
        container: str | None = None,
        previous: bool = False,
        timestamps: bool = False,
        tail_lines: int | None = None,
        since_s: int | None = None,
        limit_bytes: int | None = None,
    ) -> str:
        """Return a pod's logs, as ``kubectl logs`` would: through the API server, from the node.

        Raises
        ------
        ClusterError
            With what the API server said, e.g. that the container has not started.
        """
        query = {
            "container": container,
            "previous": "true" if previous else None,
            "timestamps": "true" if timestamps else None,
            "tailLines": tail_lines,
            "sinceSeconds": since_s,
            "limitBytes": limit_bytes,
        }
        what = f"read the logs of pod {namespace}/{name}"
        return self.rest.call("GET", f"{_pods(namespace)}/{name}/log", query=query, what=what).decode(
            errors="replace"
        )

    def events(self, name: str | None = None, namespace: str = "default") -> list[dict[str, Any]]:
        """Return the events about an object (or all), oldest first: raw ``v1.Event`` dictionaries."""
        selector = f"involvedObject.name={name}" if name else None
        items: list[dict[str, Any]] = self.rest.get(
            f"/api/v1/namespaces/{namespace}/events", fieldSelector=selector
        )["items"]
        return sorted(items, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")

    # ---------------------------------------------------------------- nodes

    def node(self, name: str) -> dict[str, Any] | None:
        """Return a Node, or None."""
        items = self.rest.get(_NODES, fieldSelector=f"metadata.name={name}")["items"]
        return items[0] if items else None

    def csr_state(self, name: str) -> str | None:
        """Return ``"Pending"``, ``"Approved"``, ``"Denied"``, ``"Failed"`` or ``"Issued"``; None if it is absent."""
        items = self.rest.get(_CSRS, fieldSelector=f"metadata.name={name}")["items"]
        return _csr_state(items[0]) if items else None

    def approve_csr(self, name: str, timeout_s: float = 30.0) -> None:
        """Approve a certificate signing request, waiting for it to appear: ``kubectl certificate approve``.

        Raises
        ------
        NotReady
            If it has not appeared by the deadline.
        ClusterError
            If it was denied, or the API server refuses.
        """
        request = wait_for(
            self.rest,
            _CSRS,
            name,
            lambda csr: csr is not None,
            timeout_s,
            what=f"certificate signing request {name} to appear",
        )
        assert request is not None
        if (state := _csr_state(request)) != "Pending":
            if state in ("Denied", "Failed"):
                raise ClusterError(
                    f"certificate signing request {name} is {state.lower()}",
                    remedy=f"`kubectl delete csr {name}`; the node sends a new one",
                )
            return
        approval = {
            "type": "Approved",
            "status": "True",
            "reason": "WasmlabApprove",
            "message": "Approved by wasmlab on behalf of its user",
        }
        request["status"]["conditions"] = [*request["status"].get("conditions", []), approval]
        self.rest.call("PUT", f"{_CSRS}/{name}/approval", body=request, what=f"approve {name}")

    def bootstrap_kubeconfig(self, path: Path | str) -> Path:
        """Make a bootstrap token, valid for a day, and write the kubeconfig with which a node asks to join.

        Returns
        -------
        Path
            `path`, written with mode 0600.
        """
        import yaml

        if self.plane is None:  # an embedded control plane has the grants from its start
            self.apply(manifests.bootstrap_bindings())
        alphabet = string.ascii_lowercase + string.digits
        token_id, secret = ("".join(secrets.choice(alphabet) for _ in range(n)) for n in (6, 16))
        expires = (datetime.now(UTC) + _TOKEN_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.apply(manifests.bootstrap_token(token_id, secret, expires))
        config = manifests.kubeconfig(
            self.server, base64.b64encode(self.ca).decode(), {"token": f"{token_id}.{secret}"}
        )
        target = Path(path)
        atomic_write(target, yaml.safe_dump(config, sort_keys=False))
        return target

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

        Raises
        ------
        BootstrapError
            If the node does not join; it is stopped again.
        """
        check_node_name(name)
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
            raise
        return handle

    # ---------------------------------------------------------------- inside

    def _forget_client(self) -> None:
        """The next request makes a new client: the credentials of a new start are new."""
        self.__dict__.pop("rest", None)
        if (api := self.__dict__.pop("api", None)) is not None:
            api.close()

    def _kubeconfig_entry(self, section: str, kind: str) -> dict[str, Any]:
        import yaml

        config = yaml.safe_load(self.kubeconfig.read_text())
        wanted = self.context or config["current-context"]
        context = next(entry["context"] for entry in config["contexts"] if entry["name"] == wanted)
        entry = next(entry for entry in config[section] if entry["name"] == context[kind])
        found: dict[str, Any] = entry[kind]
        return found

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

    def _update_node_kubeconfigs(self) -> None:
        """Point nodes of an earlier run to where the API server is now, if somebody took its port meanwhile."""
        import yaml

        assert self.state is not None
        server = self.server
        for name in self.state.node_names():
            for path in (
                self.state.node(name) / "kubeconfig",
                self.state.node(name) / "bootstrap.kubeconfig",
            ):
                with contextlib.suppress(OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
                    config = yaml.safe_load(path.read_text())
                    if config["clusters"][0]["cluster"]["server"] != server:
                        config["clusters"][0]["cluster"]["server"] = server
                        atomic_write(path, yaml.safe_dump(config, sort_keys=False))


def check_node_name(name: str) -> None:
    """Refuse what cannot be the name of a Node.

    Raises
    ------
    ClusterError
        If it is no DNS label (a Node may have dots, but its name is a label's value too: at most 63 characters).
    """
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", name):
        raise ClusterError(f"{name!r} cannot be the name of a Node", remedy="use a-z, 0-9, '-' and '.'")


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def _csr_state(request: dict[str, Any]) -> str:
    status = request.get("status", {})
    conditions = {condition["type"] for condition in status.get("conditions", [])}
    for bad in ("Denied", "Failed"):
        if bad in conditions:
            return bad
    if "Approved" in conditions:
        return "Issued" if status.get("certificate") else "Approved"
    return "Pending"


def _listed(manifest: dict[str, Any] | Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(manifest, dict):
        return list(manifest["items"]) if manifest.get("kind") == "List" else [manifest]
    return list(manifest)
