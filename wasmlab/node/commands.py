"""``wasmlab node run`` and ``wasmlab node unit``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from wasmlab.node import joincommand
from wasmlab.node.host import pressure
from wasmlab.node.host.imagepolicy import GcPolicy

node_app = typer.Typer(
    no_args_is_help=True, help="Run a WASM node: a kubelet whose containers are WASM modules."
)


def register(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.add_typer(node_app, name="node", rich_help_panel="Nodes for any cluster")


joincommand.add(node_app, lambda: _command())


Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        envvar="KUBECONFIG",
        help="The node's own credentials; the bootstrap writes them if the file does not exist.",
    ),
]
Directory = Annotated[Path, typer.Option(help="Private directory: keys, modules, logs, records of runs.")]
NodeName = Annotated[str, typer.Option(help="Name of the Node; this machine's host name by default.")]
Bootstrap = Annotated[Path | None, typer.Option(help="Credentials to join with (a bootstrap token).")]
EngineName = Annotated[str, typer.Option(help="Engine of pods that choose none: wasmtime or wasmer.")]
Semantics = Annotated[
    str,
    typer.Option(help="kubernetes: restartPolicy counts. krustlet: every pod runs to completion, once."),
]
Address = Annotated[str, typer.Option(help="This node's IP; 'auto' is the one towards the outside.")]


PodAddress = Annotated[
    str,
    typer.Option(
        help="What pods report as their IP, and endpoints of Services hold: the node's own, there is no CNI. 'auto' is "
        "--address, or the one towards the outside if that is loopback (no endpoint may hold loopback)."
    ),
]


@node_app.command()
def run(
    kubeconfig: Kubeconfig = None,
    dir: Directory = Path("/var/lib/wasmlab-node"),
    node_name: NodeName = "",
    bootstrap_kubeconfig: Bootstrap = None,
    engine: EngineName = "wasmtime",
    restart_semantics: Semantics = "kubernetes",
    address: Address = "127.0.0.1",
    pod_address: PodAddress = "auto",
    port: Annotated[int, typer.Option(help="Port of the node's TLS endpoint; 0 is any free one.")] = 0,
    hostname: Annotated[str, typer.Option(help="Host name, if it is not the node's name.")] = "",
    plain_http: Annotated[
        list[str] | None, typer.Option(help="Registry (host:port) to speak plain HTTP with; may be repeated.")
    ] = None,
    registry_ca: Annotated[
        Path | None, typer.Option(help="More certificate authorities for registries.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Node label KEY=VALUE; may be repeated.")] = None,
    max_pods: Annotated[int, typer.Option(help="Capacity in pods.")] = 110,
    capacity: Annotated[
        str, typer.Option(help="Capacity to state instead of what is found: cpu=4,memory=8Gi,pods=500.")
    ] = "",
    workers: Annotated[int, typer.Option(help="Pre-forked idle workers per engine.")] = 4,
    pod_cidr: Annotated[
        str,
        typer.Option(
            help="What the Node says as PodCIDR ('' for none); nothing here uses it, there is no CNI."
        ),
    ] = "10.244.0.0/24",
    client_ca_file: Annotated[
        Path | None,
        typer.Option(
            help="Authority of the client certificates that the endpoint takes; the kubeconfig's by default."
        ),
    ] = None,
    certificate_s: Annotated[
        int | None,
        typer.Option(
            min=600, help="Ask for certificates that live so many seconds; the signer's choice by default."
        ),
    ] = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="End the running modules when the agent ends.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    csr_timeout_s: Annotated[float, typer.Option(help="How long to wait for an approval.")] = 3600.0,
    backoff_base_s: Annotated[float, typer.Option(hidden=True)] = 10.0,
    lease_s: Annotated[float, typer.Option(hidden=True)] = 10.0,
    node_check_s: Annotated[float, typer.Option(hidden=True)] = 10.0,
    log_max_bytes: Annotated[int, typer.Option(hidden=True)] = 10 << 20,
    rotation_s: Annotated[float, typer.Option(hidden=True)] = 10.0,
    volume_sync_s: Annotated[float, typer.Option(hidden=True)] = 60.0,
    volume_watch_s: Annotated[float, typer.Option(hidden=True)] = 10.0,
    eviction_hard: Annotated[
        str, typer.Option(help="Below which amounts it evicts pods and takes no more.")
    ] = pressure.DEFAULT,
    image_gc_high_threshold: Annotated[
        int, typer.Option(help="Percent of the disk from which on unused modules are removed.")
    ] = GcPolicy.high_percent,
    image_gc_low_threshold: Annotated[
        int, typer.Option(help="Percent of the disk until which they are.")
    ] = GcPolicy.low_percent,
    minimum_image_age_s: Annotated[
        float, typer.Option(help="A module that was used so recently is not removed.")
    ] = GcPolicy.min_age_s,
    shutdown_grace_period: Annotated[
        float, typer.Option(help="End the pods with the agent, within so many seconds; 0: they run on.")
    ] = 0.0,
    shutdown_grace_period_critical_pods: Annotated[
        float, typer.Option(help="How many of those seconds are kept for critical pods.")
    ] = 0.0,
    image_gc_s: Annotated[float, typer.Option(hidden=True)] = 300.0,
    pressure_hold_s: Annotated[float, typer.Option(hidden=True)] = 300.0,
    rotate_at: Annotated[float | None, typer.Option(hidden=True)] = None,
) -> None:
    """Join a cluster as a WASM node and run its pods, until SIGTERM.

    Running modules outlive the agent; the next one takes them up. With --drain they end with it.

    Examples:
      wasmlab node run --kubeconfig node.kubeconfig --dir /var/lib/wasmlab-node
      wasmlab node run --bootstrap-kubeconfig bootstrap.kubeconfig --address auto --port 10250
      wasmlab node run --kubeconfig node.kubeconfig --label zone=a --capacity cpu=4,memory=8Gi,pods=500

    Changes: the cluster's Node, Lease and the status of its Pods; keys, modules, logs and records below DIR; control
    groups and mounts of Pods that need them.
    """
    import asyncio
    import gc

    from wasmlab.node import log
    from wasmlab.node.config import Intervals, NodeConfig, default_node_name
    from wasmlab.node.host import machine

    labels = dict(_pair(one) for one in label or ())
    config = NodeConfig(
        kubeconfig=(kubeconfig or dir / "kubeconfig").absolute(),
        dir=dir.absolute(),
        node_name=node_name or default_node_name(),
        bootstrap_kubeconfig=bootstrap_kubeconfig,
        engine=engine,
        restart_semantics=restart_semantics,
        address=machine.default_address() if address == "auto" else address,
        pod_address=machine.pod_address(address) if pod_address == "auto" else pod_address,
        port=port,
        hostname=hostname,
        plain_http=tuple(plain_http or ()),
        registry_ca=registry_ca,
        labels=labels,
        max_pods=max_pods,
        eviction_hard=eviction_hard,
        image_gc=GcPolicy(image_gc_high_threshold, image_gc_low_threshold, minimum_image_age_s),
        shutdown_grace_s=shutdown_grace_period,
        shutdown_grace_critical_s=shutdown_grace_period_critical_pods,
        capacity=dict(_pair(one, "--capacity") for one in capacity.split(",") if one),
        workers=workers,
        pod_cidr=pod_cidr or None,
        client_ca=client_ca_file,
        certificate_s=certificate_s,
        drain=drain,
        log_max_bytes=log_max_bytes,
        intervals=Intervals(
            csr_timeout_s=csr_timeout_s,
            backoff_base_s=backoff_base_s,
            lease_s=lease_s,
            node_check_s=node_check_s,
            rotation_s=rotation_s,
            volume_sync_s=volume_sync_s,
            volume_watch_s=volume_watch_s,
            image_gc_s=image_gc_s,
            pressure_hold_s=pressure_hold_s,
            rotate_at=Intervals.rotate_at if rotate_at is None else (rotate_at, rotate_at),
        ),
    )
    log.setup(log_level)
    # The imports below make half a million long-lived objects; without this every full collection walks them all.
    from wasmlab.node.agent import NodeAgent

    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(NodeAgent, config))


async def _main(agent: type, config: object) -> None:
    await agent(config).run()


def _pair(text: str, option: str = "--label") -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
    return key, value


@node_app.command()
def unit(
    # Not from the environment: whoever prints the unit may have an administrator's KUBECONFIG there.
    kubeconfig: Annotated[
        Path | None, typer.Option(help="The node's own credentials; DIR/kubeconfig by default.")
    ] = None,
    dir: Directory = Path("/var/lib/wasmlab-node"),
    node_name: NodeName = "",
    bootstrap_kubeconfig: Bootstrap = None,
    engine: EngineName = "wasmtime",
    restart_semantics: Semantics = "kubernetes",
    address: Address = "auto",
    port: Annotated[int, typer.Option(help="Port of the node's TLS endpoint.")] = 10250,
) -> None:
    """Print the systemd unit that runs a node as a service.

    Examples:
      wasmlab node unit --bootstrap-kubeconfig /etc/wasmlab/bootstrap.conf > wasmlab-node.service
      sudo install -m 644 wasmlab-node.service /etc/systemd/system && sudo systemctl enable --now wasmlab-node

    Changes nothing; it is printed.
    """
    from wasmlab.node.config import default_node_name
    from wasmlab.node.unitfile import unit as text

    arguments = [
        "--dir",
        str(dir.absolute()),
        "--node-name",
        node_name or default_node_name(),
        "--engine",
        engine,
    ]
    if bootstrap_kubeconfig is not None:
        arguments += ["--bootstrap-kubeconfig", str(bootstrap_kubeconfig.absolute())]
    if restart_semantics != "kubernetes":
        arguments += ["--restart-semantics", restart_semantics]
    arguments += ["--address", address, "--port", str(port)]
    typer.echo(text(_command(), (kubeconfig or dir / "kubeconfig").absolute(), arguments), nl=False)


def _command() -> list[str]:
    """What starts wasmlab: the command beside this Python, else on the PATH, else this Python and the package."""
    beside = Path(sys.executable).parent / "wasmlab"
    if beside.exists():
        return [str(beside)]
    found = shutil.which("wasmlab")
    return [os.path.abspath(found)] if found else [sys.executable, "-m", "wasmlab"]
