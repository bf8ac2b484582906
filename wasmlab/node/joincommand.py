"""``wasmlab node join``: from a kubeconfig to a node, in one command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from wasmlab.console import emit


def add(app: typer.Typer, program: Callable[[], list[str]]) -> None:
    """Add the command.

    Parameters
    ----------
    program : callable
        What starts wasmlab.
    """

    @app.command()
    def join(
        more: Annotated[
            list[str] | None,
            typer.Argument(metavar="[-- OPTIONS]", help="More options of `wasmlab node run`."),
        ] = None,
        kubeconfig: Annotated[
            Path | None,
            typer.Option(
                envvar="KUBECONFIG",
                help="Credentials for the cluster: an administrator's, or those of a bootstrap token.",
            ),
        ] = None,
        dir: Annotated[Path, typer.Option(help="Private directory of the node.")] = Path(
            "/var/lib/wasmlab-node"
        ),
        node_name: Annotated[
            str, typer.Option(help="Name of the Node; this machine's host name by default.")
        ] = "",
        address: Annotated[
            str, typer.Option(help="This node's IP; 'auto' is the one towards the outside.")
        ] = "auto",
        manual_approval: Annotated[
            bool,
            typer.Option(
                "--manual-approval", help="Let nobody but a person approve the node's first certificate."
            ),
        ] = False,
        approve: Annotated[
            bool,
            typer.Option("--approve", help="Approve what this node asks for, with the same credentials."),
        ] = False,
        csr_timeout_s: Annotated[float, typer.Option(help="How long to wait for each approval.")] = 3600.0,
        run: Annotated[
            bool, typer.Option(help="Go on as the node's agent; else end when the node may join.")
        ] = True,
        print_rbac: Annotated[
            bool,
            typer.Option(
                "--print-rbac", help="Only print what the cluster has to grant, for `kubectl apply -f -`."
            ),
        ] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="With --no-run: print one JSON line on stdout.")
        ] = False,
    ) -> None:
        """Join any cluster that a kubeconfig leads to, and run its WASM pods.

        With an administrator's kubeconfig it makes what joining needs (role bindings, a bootstrap token that is removed
        again); any other is used as a bootstrap token. Then it waits until somebody approves the node's serving
        certificate: it says with which command. The kubeconfig is not kept.

        Examples:
          wasmlab node join --kubeconfig ~/.kube/config --approve
          wasmlab node join --print-rbac | kubectl apply -f -     # for whoever may not grant it
          wasmlab node join --kubeconfig admin.conf --dir /var/lib/wasmlab-node --no-run -- --label zone=a

        Changes: the cluster gets role bindings and a Node; DIR gets the node's own credentials.
        """
        from wasmlab.node.membership import grants

        if as_json and (run or print_rbac):
            raise typer.BadParameter("an agent that goes on prints none: give --no-run", param_hint="--json")
        if print_rbac:
            typer.echo(grants.manifest(grants.bindings(automatic=not manual_approval)), nl=False)
            return
        if kubeconfig is None:
            raise typer.BadParameter("which cluster? Give its kubeconfig", param_hint="--kubeconfig")
        import asyncio

        from wasmlab.node import log
        from wasmlab.node.config import Intervals, NodeConfig, default_node_name
        from wasmlab.node.host import machine
        from wasmlab.node.membership.join import join as get_in

        where = machine.default_address() if address == "auto" else address
        config = NodeConfig(
            kubeconfig=dir.absolute() / "kubeconfig",
            dir=dir.absolute(),
            node_name=node_name or default_node_name(),
            address=where,
            intervals=Intervals(csr_timeout_s=csr_timeout_s),
        )
        log.setup("info")
        asyncio.run(get_in(config, kubeconfig.absolute(), automatic=not manual_approval, approve=approve))
        arguments = ["--dir", str(config.dir), "--node-name", config.node_name, "--address", where]
        arguments += ["--kubeconfig", str(config.kubeconfig), *(more or ())]
        argv = [*program(), "node", "run", *arguments]
        if as_json:
            emit({"node": config.node_name, "kubeconfig": str(config.kubeconfig), "argv": argv})
            return
        if not run:
            typer.echo(f"joined; the agent is started by: {' '.join(argv)}")
            return
        # The agent keeps nothing of this process, least of all the administrator's credentials.
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        os.execve(argv[0], argv, environment)
