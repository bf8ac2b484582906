"""What a module of a container may listen on, and whether that is free.

There is no network namespace: a module listens on the node's own addresses, as a container with ``hostNetwork`` does.
It may do so on the TCP ports that its container declares (``ports``) and on no others; one that declares none has no
network. A module that imports no sockets is not concerned, whatever it declares.

References
----------
Kubernetes API, ``ContainerPort``; ``k8s.io/kubernetes/pkg/apis/core/validation`` (under ``hostNetwork``, ``hostPort``
is ``containerPort``).
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

from wasmlab.errors import SandboxError
from wasmlab.modules import sockets
from wasmlab.modules.sockets import Wants
from wasmlab.node.spec.podspec import Refused

Json = dict[str, Any]


class PortTaken(SandboxError):
    """Somebody on this node listens there; the container is tried again later."""


def ports(container: Json, module: str) -> tuple[int, ...]:
    """Return the ports that the module may listen on.

    Parameters
    ----------
    module : str
        Path of the module.

    Raises
    ------
    Refused
        It wants to listen, and cannot be let.
    """
    declared = container.get("ports") or ()
    wanted = sockets.wants(module) if declared else Wants.NOTHING
    if wanted is Wants.NOTHING:
        return ()
    if wanted is Wants.COMPONENT:
        from wasmlab.engines.common import NO_SERVING_COMPONENTS

        raise Refused(f"ports: a component cannot listen here: {NO_SERVING_COMPONENTS}")
    problems = []
    for one in declared:
        number, protocol = one["containerPort"], one.get("protocol") or "TCP"
        if protocol != "TCP":
            problems.append(f"port {number}/{protocol}: a module can listen on TCP ports only")
        if (one.get("hostPort") or number) != number:
            problems.append(
                f"port {number}: hostPort {one['hostPort']} would have to be mapped, and a module listens on the "
                "node's own ports; let both be the same"
            )
        if one.get("hostIP") not in (None, "", "0.0.0.0", "::"):
            problems.append(f"port {number}: hostIP is for the module to choose, not for the node")
    if problems:
        raise Refused("; ".join(problems))
    return tuple(sorted({one["containerPort"] for one in declared}))


def refuse_taken(wanted: tuple[int, ...]) -> None:
    """Raise `PortTaken` if somebody listens on one of the ports, `Refused` if this node may not.

    The kernel is asked, which knows everything that listens here. Between this and the module's own attempt another may
    come first; then the module is told.
    """
    for port in wanted:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as one:
            # As the module's socket: what lingers of old connections is no reason.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortTaken(
                        f"port {port} of this node is in use: another pod or program listens there, and pods here "
                        "share the node's ports",
                        remedy="choose another port, or let the scheduler keep such pods apart (hostNetwork: true)",
                    ) from None
                raise Refused(f"port {port} cannot be listened on: {error.strerror}") from None
