"""The systemd unit of a node (row 1 of the article): pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def unit(command: Sequence[str], kubeconfig: Path, arguments: Sequence[str]) -> str:
    """The text of ``wasmlab-node.service``.

    Parameters
    ----------
    command : sequence of str
        What starts wasmlab: an absolute path, and arguments that come before ``node run``.
    kubeconfig : Path
        What ``KUBECONFIG`` is set to.
    arguments : sequence of str
        Further arguments of ``wasmlab node run``.

    Notes
    -----
    ``KillMode=process`` is what lets modules outlive a restart of the agent: systemd then ends only the agent, the
    modules go on under their zygote, and the next agent finds them. ``Delegate`` lets the node hold containers' limits
    in control groups of its own below the unit's.
    """
    line = shlex.join([*command, "node", "run", *arguments]).replace("%", "%%")
    return f"""\
[Unit]
Description=wasmlab node, a kubelet for WASM
Documentation=https://kubernetes.io/docs/concepts/architecture/nodes/
Wants=network-online.target
After=network-online.target multi-user.target

[Service]
Type=exec
Environment=KUBECONFIG={kubeconfig}
ExecStart={line}
Restart=on-failure
RestartSec=5s
KillMode=process
Delegate=cpu memory

[Install]
WantedBy=multi-user.target
"""
