"""A kubelet for WASM: the node that runs modules as Pods (path 1 of the lab).

What decides is pure, what talks is thin; and no layer knows of those above it (both are kept by import-linter):

====================  ==================================================================================
``commands``          the command line; ``joincommand`` for clusters that somebody else runs
``agent``             all of it together: join, register, follow the pods, leave
``endpoint``          what the node serves: logs, exec, attach, figures, and who may ask for them
``portforward``       SPDY inside a WebSocket, to what a pod's modules listen on
``pods``              which pods are taken, what is left of them, in which order their containers run
``containers``        one container's life: pulled, created, run, probed, talked to, ended, run again
``inputs``            what a container is given: its module, its volumes, ConfigMaps, Secrets, Services
``status``            what became of a pod: states, records, the v1.PodStatus, how it is written
``runtime``           the sandbox's side: runs that outlive the agent, control groups, logs, pipes
``spec``              what a Pod asks for: variables, volumes' contents, probes, resources (all pure)
``membership``        how a machine becomes a Node and stays one: certificates, Node object, Lease
``config``            what a node is told at its start
``host``              the machine: what it has and uses, when it runs short, what is thrown away then
``api``               HTTP, watches, Events, quantities and times of the Kubernetes API
====================  ==================================================================================

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
