"""`wasmlab containerd`: the container node of a lab, its image of a node for kind, and what others need to install."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wasmlab.cluster import commands as cluster
from wasmlab.console import emit, step

_DIR_HELP = "Directory of the lab [default: $WASMLAB_DIR or ~/.local/state/wasmlab/lab]"
Directory = Annotated[Path | None, typer.Option("--dir", "-d", help=_DIR_HELP, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the ``containerd`` commands to `app`, and have ``wasmlab down`` end container nodes first."""
    if _end_all not in cluster.BEFORE_DOWN:
        cluster.BEFORE_DOWN.append(_end_all)
    sub = typer.Typer(
        help="Path 2: a node with the real kubelet, containerd and our shim (as root).", no_args_is_help=True
    )
    sub.command()(up)
    sub.command()(down)
    sub.command()(kind)
    sub.command()(config)
    sub.command()(bundle)
    sub.command()(installer)
    app.add_typer(sub, name="containerd", rich_help_panel="Nodes for any cluster")


def _end_all(root: Path) -> list[str]:
    from wasmlab.containerd.joining import stop_all

    return [f"node {name}" for name in stop_all(root)] if (root / "containerd").is_dir() else []


def up(
    dir: Directory = None,
    name: Annotated[str, typer.Option("--node-name", help="Name of the Node.")] = "containerd-node",
    containerd: Annotated[
        str,
        typer.Option(
            help="'debian': the system's; '2.x': built from its Go module; or a directory with containerd.",
            autocompletion=lambda: ["debian", "2.x"],
        ),
    ] = "debian",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the node.")] = 90.0,
    as_json: AsJson = False,
) -> None:
    """Add a container node to a lab that runs (`wasmlab up`); return when it is Ready. It goes on.

    Examples:
      wasmlab up --dir lab && sudo wasmlab containerd up --dir lab
      wasmlab containerd up --dir lab --containerd 2.x --node-name second

    Changes, as root: a kubelet, a containerd, a bridge, control groups and mounts, all below DIR or named after the
    node; `wasmlab containerd down` or `wasmlab down` removes them.
    """
    from wasmlab.cluster.cluster import Cluster
    from wasmlab.containerd.node import ContainerdNode

    cluster = Cluster.attach(_root(dir))
    node = ContainerdNode(cluster, name=name, containerd=containerd, detach=True, timeout_s=timeout_s)
    with step(f"Join the node {name} (containerd {node.programs.version})"):
        node.start()
    facts = {
        "node": name,
        "dir": str(node.layout.dir),
        "containerd": node.programs.version,
        "socket": str(node.layout.socket),
        "runtimeClasses": ["wasm", "wasmtime", "wasmer"],
    }
    if as_json:
        emit(facts)
    else:
        print(f"node            {name}\ncontainerd      {node.programs.version}, {node.layout.socket}")
        print("runtime classes wasm, wasmtime, wasmer")


def down(
    dir: Directory = None,
    name: Annotated[
        str | None, typer.Option("--node-name", help="Only this node.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """End the container nodes of a lab and remove all that they made on this machine.

    Examples:
      wasmlab containerd down --dir lab
      wasmlab containerd down --dir lab --node-name second --json

    Changes: ends their processes, removes their bridge, control groups, mounts and directories.
    """
    from wasmlab.containerd.joining import stop_all

    root = _root(dir)
    ended = stop_all(root, only=name)
    if as_json:
        emit({"dir": str(root), "ended": ended})
    else:
        print(f"ended {', '.join(ended)}" if ended else f"no container node ran in {root}")


def kind(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Directory to write.")] = Path(
        "kind"
    ),
    workers: Annotated[int, typer.Option(min=1, help="Nodes that run WASM.")] = 1,
    image: Annotated[str | None, typer.Option(help="The nodes' image, e.g. kindest/node:v1.37.2.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The self-contained shim; else it is made.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the configuration of a kind cluster whose nodes have the shim, with all that it mounts.

    Examples:
      wasmlab containerd kind --out kind && kind create cluster --config kind/kind.yaml
      wasmlab containerd kind --workers 3 --image kindest/node:v1.37.2

    Changes: writes DIR. kind itself needs Docker.
    """
    from wasmlab.containerd.kindfiles import write

    with step(f"Write {out}", quiet=bundle is not None):
        written = write(out, workers=workers, image=image, bundle=bundle)
    if as_json:
        emit({"config": str(written), "runtimeClasses": str(out / "runtimeclasses.yaml")})
        return
    print(
        f"wrote {written}\nkind create cluster --config {written}\nkubectl apply -f {out}/runtimeclasses.yaml"
    )


def bundle(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Directory to write.")] = Path(
        "wasmlab-shim"
    ),
    prefix: Annotated[str, typer.Option(help="Where it will be on the node.")] = "/opt/wasmlab-shim",
    as_json: AsJson = False,
) -> None:
    """Write the shim as a directory that needs no Python on the node.

    Examples:
      wasmlab containerd bundle --out wasmlab-shim
      tar cz wasmlab-shim | ssh NODE tar xz -C /opt

    Changes: writes DIR.
    """
    from wasmlab.containerd.bundle import make

    with step(f"Write {out}"):
        made = make(out.absolute(), prefix=prefix)
    if as_json:
        emit({"dir": str(made), "prefix": prefix})
        return
    print(f"wrote {made}: put it on a node as {prefix}, and links to its bin/ on containerd's PATH")


def installer(
    ref: Annotated[str, typer.Argument(metavar="REF", help="Reference of the installer's image.")],
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Undo it on the nodes.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Build the image and push it to REF first.")] = False,
) -> None:
    """Print the manifests that install the shim on every node of a cluster: `... | kubectl apply -f -`.

    Examples:
      wasmlab containerd installer --push registry.example.com/shim:v1 | kubectl apply -f -
      wasmlab containerd installer --uninstall registry.example.com/shim:v1 | kubectl apply -f -

    Changes: with --push the registry; what is printed changes the nodes once it is applied.
    """
    import yaml

    from wasmlab.containerd import installmanifests

    if push:
        _push_installer(ref)
    manifests = installmanifests.installer(ref, action="uninstall" if uninstall else "install")
    print(yaml.safe_dump_all(manifests, sort_keys=False), end="")


def _push_installer(ref: str) -> None:
    import tempfile

    from wasmlab.containerd.bundle import make
    from wasmlab.containerd.installimage import installer_image
    from wasmlab.oci.client import Client
    from wasmlab.oci.credentials import Credentials

    with step(f"Build the installer's image and push {ref}"), tempfile.TemporaryDirectory() as work:
        image = installer_image(make(Path(work) / "bundle"))
        Client(credentials=Credentials.from_docker_config()).push_image(image, ref)


def config(
    major: Annotated[int, typer.Option(min=1, max=2, help="1: containerd 1.x. 2: containerd 2.x.")] = 2,
) -> None:
    """Print the part of containerd's configuration that makes our shim known.

    Example:
      wasmlab containerd config --major 1 >> /etc/containerd/config.toml

    Changes nothing; it is printed.
    """
    from wasmlab.containerd.config import handlers_snippet

    print(handlers_snippet(major), end="")


def _root(dir: Path | None) -> Path:
    from wasmlab.cluster.statedir import default_root

    return (dir or default_root()).absolute()
