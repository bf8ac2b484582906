"""`wasmlab cluster`: what a cluster of somebody else's has to grant, and what the lab left there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wasmlab.cluster import rbac
from wasmlab.console import emit, say

Kubeconfig = Annotated[
    Path,
    typer.Option(exists=True, dir_okay=False, envvar="KUBECONFIG", help="Credentials for the cluster."),
]
Context = Annotated[str | None, typer.Option(help="A context of it.", show_default="its current one")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line on stdout.")]
Namespace = Annotated[str, typer.Option(help="The lab's namespace.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    cluster = typer.Typer(
        help="Your own cluster: what the lab needs there, and leaves.", no_args_is_help=True
    )
    cluster.command("rbac")(print_rbac)
    cluster.command("grant")(grant)
    cluster.command("clean")(clean)
    app.add_typer(cluster, name="cluster", rich_help_panel="Nodes for any cluster")


def print_rbac(namespace: Namespace = rbac.NAME) -> None:
    """Print what a cluster has to grant to the lab.

    Examples:
      wasmlab cluster rbac | kubectl apply -f -
      wasmlab cluster rbac | kubectl delete -f -    # undoes it

    Changes nothing.
    """
    import yaml

    typer.echo(yaml.safe_dump_all(rbac.manifest(namespace), sort_keys=False), nl=False)


def grant(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The kubeconfig to write.")],
    kubeconfig: Kubeconfig,
    context: Context = None,
    namespace: Namespace = rbac.NAME,
    hours: Annotated[float, typer.Option(min=0.2, help="How long its token is valid.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """As an administrator: grant what the lab needs, and write a kubeconfig that may do that and no more.

    Examples:
      wasmlab cluster grant --kubeconfig ~/.kube/config --out lab.kubeconfig
      wasmlab doctor --kubeconfig lab.kubeconfig

    Changes: applies what `wasmlab cluster rbac` prints; writes FILE, for its owner alone.
    """
    from wasmlab.cluster.granting import grant as make

    expires = make(kubeconfig, out, context=context, namespace=namespace, valid_s=hours * 3600)
    if as_json:
        emit({"kubeconfig": str(out), "namespace": namespace, "expires": expires})
        return
    say(f"{out} is valid until {expires}, in the namespace {namespace}")


def clean(
    kubeconfig: Kubeconfig,
    context: Context = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what runs of the lab that were killed left in a cluster: what carries the label wasmlab.dev/run.

    Examples:
      wasmlab cluster clean --kubeconfig lab.kubeconfig --dry-run

    Changes: removes those objects, of every run, also of one that is going on.
    """
    from wasmlab.cluster import guest
    from wasmlab.cluster.cluster import Cluster

    with Cluster.from_kubeconfig(kubeconfig, context) as cluster:
        there = cluster.guest.current if cluster.guest else ""
        found: list[Any] = (
            [guest.title(one) for one in guest.leftovers(cluster.rest, there)]
            if dry_run
            else guest.sweep(cluster.rest, there)
        )
    if as_json:
        emit({"found" if dry_run else "removed": found})
        return
    for one in found:
        print(one)
    if not found:
        say("nothing of the lab is there")
