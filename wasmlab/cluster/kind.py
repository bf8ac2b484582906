"""The article's kind cluster: nodes that have the shim, by extraMounts. Pure.

The article mounted a whole ``config.toml`` over the node's own. That still works where one knows what the node's image
wants in it; by default the runtimes are given as a patch, which kind merges into whatever the node has.

References
----------
kind.sigs.k8s.io/docs/user/configuration: extraMounts, containerdConfigPatches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

#: Where the nodes find what is mounted.
BUNDLE_ON_NODE = PurePosixPath("/opt/wasmlab-shim")
BIN_ON_NODE = PurePosixPath("/usr/local/bin")
CONFIG_ON_NODE = PurePosixPath("/etc/containerd/config.toml")
NODE_LABEL = "wasmlab.dev/shim"


def kind_config(
    *,
    bin_dir: str = "bin",
    programs: Sequence[str] = ("containerd-shim-wasm-v1",),
    bundle: str | None = None,
    patches: Sequence[str] = (),
    config_file: str | None = None,
    workers: int = 1,
    image: str | None = None,
) -> dict[str, Any]:
    """Return the configuration of a kind cluster whose workers run WASM.

    Parameters
    ----------
    bin_dir : str
        Directory on the host with the shim's executables.
    programs : sequence of str
        Their names.
    bundle : str, optional
        Directory on the host with what the executables need, mounted as ``/opt/wasmlab-shim``; the nodes of kind have
        no Python of their own.
    patches : sequence of str
        TOML that kind merges into containerd's configuration.
    config_file : str, optional
        The article's way: a file on the host that replaces containerd's configuration.
    workers : int
        How many nodes, besides the control plane, run WASM.
    image : str, optional
        The nodes' image; kind's default if None.

    Returns
    -------
    dict
        To be written as YAML and given to ``kind create cluster --config``.
    """
    mounts = [_mount(f"{bin_dir}/{name}", BIN_ON_NODE / name) for name in programs]
    if config_file is not None:
        mounts.insert(0, _mount(config_file, CONFIG_ON_NODE))
    if bundle is not None:
        mounts.append(_mount(bundle, BUNDLE_ON_NODE))
    control_plane: dict[str, Any] = {"role": "control-plane"}
    worker: dict[str, Any] = {"role": "worker", "labels": {NODE_LABEL: "true"}, "extraMounts": mounts}
    if image is not None:
        control_plane["image"] = worker["image"] = image
    config: dict[str, Any] = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [control_plane, *(worker for _ in range(workers))],
    }
    if patches:
        config["containerdConfigPatches"] = list(patches)
    return config


def _mount(host: str, container: PurePosixPath) -> dict[str, Any]:
    # Without write access a node could not even mark a file as executable that the host has not.
    return {"hostPath": host, "containerPath": str(container), "readOnly": True}
