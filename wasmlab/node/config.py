"""What a node is told at its start, checked once."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wasmlab.errors import PrerequisiteError
from wasmlab.node.api import quantity
from wasmlab.node.host import pressure
from wasmlab.node.host.imagepolicy import GcPolicy

_DNS_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
_CAPACITIES = ("cpu", "memory", "pods", "ephemeral-storage")
SEMANTICS = ("kubernetes", "krustlet")
# Names of labels that the API server keeps for itself (NodeRestriction) or that the node sets.
_RESERVED_LABEL = re.compile(r"^(?:[^/]*\.)?(?:kubernetes|k8s)\.io/")
_ALLOWED_LABEL = re.compile(r"^(?:[^/]*\.)?(?:kubelet|node)\.kubernetes\.io/")


@dataclass(frozen=True)
class Intervals:
    """Periods and waits in seconds. Tests shrink them; the defaults are the kubelet's."""

    backoff_base_s: float = 10.0
    backoff_cap_s: float = 300.0
    lease_s: float = 10.0
    node_check_s: float = 10.0
    node_report_s: float = 60.0
    status_hold_s: float = 0.025  # how long a write that a final one may overtake is held back
    csr_timeout_s: float = 3600.0
    rotation_s: float = 10.0
    rotate_at: tuple[float, float] = (0.7, 0.9)  # shares of a certificate's life, between which it is renewed
    volume_sync_s: float = 60.0  # how often files follow the ConfigMaps and Secrets that they show
    volume_watch_s: float = 10.0  # how often the sizes of emptyDirs are looked at
    image_gc_s: float = 300.0
    pressure_hold_s: float = 300.0  # how long a pressure condition stays after its cause


@dataclass(frozen=True)
class NodeConfig:
    """Everything a `wasmlab.node.NodeAgent` needs.

    Parameters
    ----------
    kubeconfig : Path
        The node's own credentials; written by the bootstrap if it does not exist.
    dir : Path
        Private directory of this node: keys, modules, logs, the sandbox's records.
    node_name : str
        Name of the Node object.
    bootstrap_kubeconfig : Path, optional
        Credentials (a bootstrap token) to ask for the node's own with.
    engine : str
        For pods that do not choose one.
    restart_semantics : {"kubernetes", "krustlet"}
        Whether restartPolicy is honoured, or every pod runs to completion as under Krustlet.
    address : str
        The node's IP, where its endpoint listens.
    pod_address : str, optional
        What pods report as theirs: they have no network but the node's. The node's IP if not given.
    port : int
        The endpoint's port; 0 takes a free one, and the same again after a restart.
    hostname : str, optional
        For the Hostname address and the name of the serving CSR; the node's name if not given.
    plain_http : tuple of str
        Registries (host:port) to speak plain HTTP with. Loopback registries need no mention.
    max_pods : int
        Capacity in pods.
    capacity : mapping
        What the node says it has (cpu, memory, pods, ephemeral-storage), instead of what is found.
    eviction_hard : str
        Below which amounts the node is under pressure and evicts pods, as the kubelet's ``--eviction-hard``.
    image_gc : GcPolicy
        When modules that no pod uses are removed.
    shutdown_grace_s, shutdown_grace_critical_s : float
        When the agent is ended by SIGTERM: how long all pods have to end, and how much of that is kept for the
        critical ones. 0: they run on, for the next agent.
    workers : int
        Pre-forked idle workers per engine.
    drain : bool
        End the running modules when the agent ends.
    log_max_bytes : int
        A container's log is rotated when it has grown past this.
    client_ca : Path, optional
        Authority of the client certificates that the endpoint takes; the kubeconfig's if not given.
    certificate_s : int, optional
        How long the node's certificates are wished to live, in seconds; the signer decides.
    registry_ca : Path, optional
        More certificate authorities for registries, PEM.
    labels : dict of str to str
        More labels of the Node.
    pod_cidr : str or None
        What the Node says as PodCIDR.
    parallel_pulls : int
        How many modules are pulled at once.
    parallel_compiles : int
        How many are compiled at once.
    intervals : Intervals
        How often, and how long, things are done.
    """

    kubeconfig: Path
    dir: Path
    node_name: str
    bootstrap_kubeconfig: Path | None = None
    engine: str = "wasmtime"
    restart_semantics: str = "kubernetes"
    address: str = "127.0.0.1"
    pod_address: str = ""
    port: int = 0
    hostname: str = ""
    plain_http: tuple[str, ...] = ()
    registry_ca: Path | None = None
    max_pods: int = 110
    capacity: Mapping[str, str] = field(default_factory=dict)
    eviction_hard: str = pressure.DEFAULT
    image_gc: GcPolicy = field(default_factory=GcPolicy)
    shutdown_grace_s: float = 0.0
    shutdown_grace_critical_s: float = 0.0
    workers: int = 4
    drain: bool = False
    pod_cidr: str | None = "10.244.0.0/24"
    labels: Mapping[str, str] = field(default_factory=dict)
    client_ca: Path | None = None
    certificate_s: int | None = None
    log_max_bytes: int = 10 << 20
    parallel_pulls: int = 4
    parallel_compiles: int = 2
    intervals: Intervals = field(default_factory=Intervals)

    def __post_init__(self) -> None:
        import ipaddress

        from wasmlab import engines

        if not _DNS_NAME.match(self.node_name) or len(self.node_name) > 253:
            raise PrerequisiteError(
                f"{self.node_name!r} cannot be a node's name",
                remedy="use lower case letters, digits, '-' and '.'; --node-name sets it",
            )
        if self.restart_semantics not in SEMANTICS:
            raise PrerequisiteError(
                f"unknown restart semantics {self.restart_semantics!r}",
                remedy=f"one of {', '.join(SEMANTICS)}",
            )
        if self.engine not in engines.pod_names():
            raise PrerequisiteError(
                f"there is no engine {self.engine!r}", remedy=f"one of {', '.join(engines.pod_names())}"
            )
        if not self.pod_address:
            object.__setattr__(self, "pod_address", self.address)
        for option, address in (("--address", self.address), ("--pod-address", self.pod_address)):
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise PrerequisiteError(
                    f"{address!r} is not an IP address", remedy=f"{option} takes the node's IP, not a name"
                ) from None
        try:
            pressure.parse(self.eviction_hard)
        except ValueError as error:
            raise PrerequisiteError(
                f"--eviction-hard: {error}", remedy=f"as the kubelet's: {pressure.DEFAULT}"
            ) from None
        if not 0 <= self.image_gc.low_percent < self.image_gc.high_percent <= 100:
            raise PrerequisiteError(
                f"modules cannot be removed from {self.image_gc.high_percent} % of the disk on until"
                f" {self.image_gc.low_percent} %",
                remedy="the low threshold is below the high one, both are percents",
            )
        if not 0 <= self.shutdown_grace_critical_s <= self.shutdown_grace_s:
            raise PrerequisiteError(
                "the grace period of critical pods is a part of the whole one",
                remedy="give --shutdown-grace-period at least as much as --shutdown-grace-period-critical-pods",
            )
        for name, amount in self.capacity.items():
            try:
                known = name in _CAPACITIES and quantity.exact(amount) > 0
            except ValueError:
                known = False
            if not known:
                raise PrerequisiteError(
                    f"a node cannot have the capacity {name}={amount}",
                    remedy=f"one of {', '.join(_CAPACITIES)} and a quantity, such as cpu=4,memory=8Gi,pods=500",
                )
        for label in self.labels:
            if _RESERVED_LABEL.match(label) and not _ALLOWED_LABEL.match(label):
                raise PrerequisiteError(
                    f"the label {label} is one that a node must not set on itself (NodeRestriction)",
                    remedy="set it with kubectl label, or choose another prefix",
                )

    @property
    def host(self) -> str:
        """The Hostname address."""
        return self.hostname or self.node_name

    # Where things are below `dir`.
    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.dir / "pki"

    @property
    def pods_dir(self) -> Path:
        """A directory per pod, by UID: logs and emptyDir volumes."""
        return self.dir / "pods"

    @property
    def spans_file(self) -> Path:
        """One JSON line per pod with its phases."""
        return self.dir / "spans.jsonl"


def default_node_name() -> str:
    """This machine's host name, in the form a Node's name takes."""
    return socket.gethostname().lower().split(".")[0] or "wasm-node"
