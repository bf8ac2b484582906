"""A kubelet for WASM: the node that runs modules as Pods (path 1 of the lab).

The package is split along one rule: what decides is pure, what talks is thin.

Pure (no I/O, tested alone)
    ``states`` (where a container may go), ``records`` (what is known), ``podstatus`` (the v1.PodStatus of it),
    ``podspec`` (what of a Pod this node can serve), ``env`` (environment and arguments), ``backoff``, ``quantity``,
    ``nodeobject`` (the v1.Node), ``csr`` (keys, requests, kubeconfig), ``crilog`` (the log format), ``unitfile``,
    ``probes`` (what their answers mean), ``authn`` and ``authz`` (who asks the endpoint for what), ``streams`` (exec's
    wire format), ``summary`` and ``promtext`` (figures as they are shown).
Thin
    ``kubeapi`` (HTTP), ``bootstrap``, ``registration`` (Node and Lease), ``watch``, ``images``, ``inputs`` (what a
    container is given), ``runtime`` (sandbox and compile cache), ``events``, ``statuswriter``, ``worker`` (a pod's
    life) with ``adoption`` (what an earlier agent left) and ``course`` (in which order containers run and end),
    ``container`` (one of them) with ``pulling``, ``creating`` and ``attempt`` (a run: ``hooks``, the ``prober``, its
    end within a ``grace`` period, its ``termmessage``), ``instances`` and ``actions`` (what probes, hooks and exec
    run), ``manager`` (all pods), ``server`` (the endpoint) with ``tls``,
    ``guard`` (who may come in), ``logserver``, ``streaming`` (exec and attach) and ``statserver`` (metrics) behind it,
    ``issue`` and ``certificates`` (asked for, renewed), ``rotation`` (logs), ``spans`` (timings), ``machine``
    (capacity), ``agent`` (all of it together).

References
----------
Constants and rules cite the kubelet's source (``k8s.io/kubernetes/pkg/kubelet``, 1.37) where they follow it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasmlab.node.agent import NodeAgent
    from wasmlab.node.config import NodeConfig

__all__ = ["NodeAgent", "NodeConfig"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import wasmlab.node` (and the CLI's help) does not pay for aiohttp.
    if name == "NodeAgent":
        from wasmlab.node.agent import NodeAgent

        return NodeAgent
    if name == "NodeConfig":
        from wasmlab.node.config import NodeConfig

        return NodeConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
