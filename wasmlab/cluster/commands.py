"""`wasmlab up`, `down`, `status` and `kubectl`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from wasmlab.console import emit, say, step

_DIR_HELP = "Directory of the lab [default: $WASMLAB_DIR or ~/.local/state/wasmlab/lab]"
Directory = Annotated[Path | None, typer.Option("--dir", "-d", help=_DIR_HELP, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line on stdout.")]


# What packages above this one have to end before the control plane may go. Each takes the lab's directory and returns
# the names of what it ended.
BEFORE_DOWN: list[Callable[[Path], list[str]]] = []


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    panel = "A lab that stays"
    app.command("up", rich_help_panel=panel)(up)
    app.command("down", rich_help_panel=panel)(down)
    app.command("status", rich_help_panel=panel)(status)
    # Everything after `kubectl` is kubectl's own, options and --help included.
    app.command(
        "kubectl",
        rich_help_panel=panel,
        options_metavar="[--dir DIR] -- WORDS...",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(kubectl)


def up(
    dir: Directory = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Engine that the node uses by default.", autocompletion=lambda: ["wasmtime", "wasmer"]
        ),
    ] = "wasmtime",
    node: Annotated[bool, typer.Option("--node/--no-node", help="Start a WASM node too.")] = True,
    name: Annotated[str, typer.Option("--node-name", help="Name of the node.")] = "wasm-node",
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Seconds that each part may take to be ready.")
    ] = 60.0,
    restart_semantics: Annotated[
        str, typer.Option(help="'kubernetes', or 'krustlet': run once whatever the pod's restartPolicy says.")
    ] = "kubernetes",
    as_json: AsJson = False,
) -> None:
    """Start a control plane, a registry and a WASM node, and return when they are ready; they go on.

    No root is needed. Every port is on loopback. Said again to a lab that runs, it starts what is missing or says what
    is in the way.

    Examples:
      wasmlab up                                  # then: wasmlab kubectl -- get nodes
      wasmlab up --dir lab --engine wasmer
      export KUBECONFIG=$(wasmlab up --dir lab --json | jq -r .kubeconfig)

    Changes: processes that stay until `wasmlab down`, their state in DIR; the first time it builds Kubernetes from
    source into the cache (about 10 minutes).
    """
    from wasmlab.cluster import binary
    from wasmlab.cluster.cluster import Cluster
    from wasmlab.cluster.nodes import check_node_name
    from wasmlab.cluster.statedir import StateDir
    from wasmlab.engines import names
    from wasmlab.errors import ClusterError

    if engine not in names():
        raise typer.BadParameter(f"there is no engine {engine!r}: choose from {', '.join(names())}")
    if restart_semantics not in ("kubernetes", "krustlet"):
        raise typer.BadParameter("--restart-semantics is 'kubernetes' or 'krustlet'")
    try:
        check_node_name(name)
    except ClusterError as error:
        raise typer.BadParameter(error.message) from None
    root = _root(dir)
    binary.ensure()
    state = StateDir(root)
    # A control plane whose node is missing (--no-node before, or its agent was killed) only wants its node.
    joining = node and state.control_plane() is not None and state.agent(name) is None
    if joining:
        cluster = Cluster.attach(root)
    else:
        with step(f"Start the control plane in {root}"):
            cluster = Cluster.embedded(root, node=False, timeout_s=timeout_s, detach=True)
    try:
        if node:
            with step(f"Join the node {name}"):
                cluster.add_node(
                    name, engine=engine, args=("--restart-semantics", restart_semantics), timeout_s=timeout_s
                )
    except BaseException:
        if not joining:
            cluster.stop()  # all or nothing: a half lab would only be in the way
        raise
    line = {
        "kubeconfig": str(cluster.kubeconfig),
        "registry": cluster.registry,
        "node": name if node else None,
        "dir": str(root),
        "server": cluster.server,
        "pid": cluster.plane.pid if cluster.plane else None,
    }
    if as_json:
        emit(line)
        return
    say("")
    print(f"kubeconfig  {line['kubeconfig']}")
    print(f"registry    {line['registry']}")
    if node:
        print(f"node        {name}")
    say(
        f"\nexport KUBECONFIG={line['kubeconfig']}\n`wasmlab kubectl -- get nodes` asks it, `wasmlab down` ends it."
    )


def down(
    dir: Directory = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Then remove the directory, with every object and blob.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End the nodes, what runs on them, the registry and the control plane.

    Examples:
      wasmlab down                    # every object is there again after the next `up`
      wasmlab down --dir lab --purge

    Changes: ends processes of that lab; with --purge removes DIR.
    """
    from wasmlab.cluster.shutdown import shut_down

    root = _root(dir)
    first = [name for end in BEFORE_DOWN for name in end(root)]
    report = shut_down(root, purge=purge)
    report["ended"][:0] = first
    if as_json:
        emit(report)
    elif report["ended"]:
        print(f"ended {', '.join(report['ended'])}")
    else:
        print(f"nothing ran in {root}")


def status(dir: Directory = None, as_json: AsJson = False) -> None:
    """Tell what runs. Exit code 0 if the control plane runs, 1 if not.

    Examples:
      wasmlab status
      registry=$(wasmlab status --json | jq -r .registry)

    Changes nothing.
    """
    from wasmlab.cluster.cluster import Cluster
    from wasmlab.cluster.statedir import StateDir

    root = _root(dir)
    state = StateDir(root)
    report: dict[str, Any] = {"dir": str(root), "running": False, "ready": False, "nodes": []}
    if state.control_plane() is not None:
        report = Cluster.attach(root).status()
    if as_json:
        emit(report)
    elif not report["running"]:
        print(f"no control plane runs in {root}")
    else:
        print(f"dir         {root}")
        print(f"server      {report['server']} (process {report['pid']}, since {report['started']})")
        print(f"registry    {report['registry']}")
        print(f"kubeconfig  {report['kubeconfig']}")
        print("versions    " + ", ".join(f"{k} {v}" for k, v in (report["versions"] or {}).items()))
        for node in report["nodes"]:
            agent = f"agent is process {node['agent_pid']}" if node["agent_pid"] else "no agent runs here"
            print(f"node        {node['name']}: {'Ready' if node['ready'] else 'NotReady'}, {agent}")
    if not report["running"]:
        raise typer.Exit(1)


def kubectl(
    context: typer.Context,
    # No short form here: kubectl has a -d of its own.
    dir: Annotated[Path | None, typer.Option("--dir", help=_DIR_HELP, show_default=False)] = None,
) -> None:
    """Run kubectl against the lab: `wasmlab kubectl -- get pods`.

    kubectl is the cluster's own version, and its exit code is this command's.

    Examples:
      wasmlab kubectl -- get pods -A
      wasmlab kubectl --dir lab -- logs -f hello

    Changes: what you tell it to.
    """
    from wasmlab.cluster import binary
    from wasmlab.cluster.cluster import Cluster
    from wasmlab.cluster.statedir import StateDir

    root, words = _root(dir), context.args
    if not words or words in (["--help"], ["-h"]):
        print(context.get_help(), end="")
        print(" `wasmlab kubectl -- help` lists kubectl's own commands.")
        return
    if StateDir(root).control_plane() is None and {"help", "--help", "-h"} & {words[0], words[-1]}:
        argv = [str(binary.ensure()), "kubectl", *words]  # help needs no lab
    else:
        argv = Cluster.attach(root).kubectl_argv(*words)
    # Replaced, not called: signals, terminals and exit codes are then kubectl's own.
    os.execv(argv[0], argv)


def _root(dir: Path | None) -> Path:
    from wasmlab.cluster.statedir import default_root

    return (dir or default_root()).absolute()
