"""A real Kubernetes, small enough to start for one test: control plane, nodes, and the waiting in between.

`Cluster` is the face of this package. The control plane itself is a Go program (``kube/``) that `binary` builds once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasmlab.cluster.cluster import Cluster as Cluster
    from wasmlab.cluster.manifests import article_pod as article_pod
    from wasmlab.cluster.manifests import wasm_pod as wasm_pod
    from wasmlab.cluster.nodes import NodeHandle as NodeHandle

_EXPORTS = {
    "Cluster": "wasmlab.cluster.cluster",
    "NodeHandle": "wasmlab.cluster.nodes",
    "article_pod": "wasmlab.cluster.manifests",
    "wasm_pod": "wasmlab.cluster.manifests",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
