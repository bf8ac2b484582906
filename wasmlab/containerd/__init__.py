"""A container node on this machine: the real kubelet, the real containerd, and our shim behind RuntimeClasses.

`ContainerdNode` is the face. It needs root, containerd, runc and the CNI plugins; everything it makes (processes,
mounts, namespaces, cgroups, a bridge, files) is its own, named after its directory, and is removed with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasmlab.containerd.cleanup import clean as clean
    from wasmlab.containerd.node import ContainerdNode as ContainerdNode
    from wasmlab.containerd.programs import missing as missing
    from wasmlab.containerd.runtimeclass import runtime_classes as runtime_classes

_EXPORTS = {
    "ContainerdNode": "wasmlab.containerd.node",
    "clean": "wasmlab.containerd.cleanup",
    "missing": "wasmlab.containerd.programs",
    "runtime_classes": "wasmlab.containerd.runtimeclass",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
