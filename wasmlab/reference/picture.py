"""The picture of the architecture, ``docs/architecture.svg``. Pure."""

from __future__ import annotations

from wasmlab.notebooks.diagrams import Arrow, Box, diagram

_BOXES: dict[str, Box] = {
    "source": (0, 0, "Source", "C, Rust, Go, Zig"),
    "module": (1, 0, "Module", "wasmlab.modules"),
    "artifact": (2, 0, "Artifact or image", "wasmlab.oci"),
    "registry": (3, 0, "Registry", "OCI distribution"),
    "pod": (0, 1.5, "Pod", "kubectl apply"),
    "apiserver": (1, 1.5, "kube-apiserver", "etcd, controllers"),
    "scheduler": (2, 1.5, "kube-scheduler", "taints, RuntimeClass"),
    "agent": (3, 1, "Node agent", "path 1: wasmlab.node"),
    "kubelet": (3, 2, "kubelet", "path 2"),
    "containerd": (4, 2, "containerd", "RuntimeClass wasm"),
    "shim": (5, 2, "Shim", "wasmlab.shim"),
    "sandbox": (5, 1, "Sandbox", "one process per run"),
    "engine": (6, 1, "Engine", "wasmtime, wasmer"),
    "spans": (1, 3, "Spans", "one per step"),
    "rows": (2, 3, "Tidy rows", "wasmlab.bench"),
    "statistics": (3, 3, "Statistics", "medians, intervals"),
    "plots": (4, 3, "Plots, reports", "wasmlab.plots"),
}
_ARROWS: list[Arrow] = [
    ("source", "module", "build"),
    ("module", "artifact", "pack"),
    ("artifact", "registry", "push"),
    ("pod", "apiserver"),
    ("apiserver", "scheduler"),
    ("scheduler", "agent"),
    ("scheduler", "kubelet"),
    ("registry", "agent", "pull, verify"),
    ("registry", "containerd"),
    ("kubelet", "containerd"),
    ("containerd", "shim"),
    ("agent", "sandbox"),
    ("shim", "sandbox"),
    ("sandbox", "engine"),
    ("spans", "rows"),
    ("rows", "statistics"),
    ("statistics", "plots"),
]


def architecture() -> str:
    """Return the picture as an SVG document."""
    return diagram(_BOXES, _ARROWS, highlight=("agent", "shim", "sandbox")) + "\n"
