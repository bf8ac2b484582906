"""``kubectl port-forward``: connections to what a pod's modules listen on.

``kubectl`` opens a WebSocket and speaks SPDY inside it (`spdy`): two streams for each connection, one for its bytes and
one for what went wrong. An API server of 1.36 or newer passes that on, as it is, to a node that declares
``ExtendWebSocketsToKubelet``; an older one unpacks it, and speaks SPDY without a WebSocket around it (`upgrade`).

A pod here has no network of its own. So that ``pods/portforward`` is no way to everything that listens on the node,
only those ports are reached on which a process of the pod itself listens.

References
----------
``k8s.io/kubernetes/pkg/kubelet/server/server.go`` (``getPortForward``);
``k8s.io/apimachinery/pkg/util/portforward/constants.go``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import WSMsgType, web

from wasmlab.node import log
from wasmlab.node.keepalive import keep_alive
from wasmlab.node.pods.manager import PodManager
from wasmlab.node.pods.worker import PodWorker
from wasmlab.node.portforward import spdy, upgrade
from wasmlab.node.portforward.session import Session
from wasmlab.node.spec import podspec

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
_UNTUNNELED = "portforward.k8s.io"
_NO_UPGRADE = "unable to upgrade: forwarding needs a connection that becomes a WebSocket, or SPDY/3.1\n"
_CLOSE_S = 2.0


class PortForwardServer:
    """Serves ``/portForward``.

    Parameters
    ----------
    manager : PodManager
        The pods.
    user_name : callable
        Who sent a request.
    """

    def __init__(self, manager: PodManager, user_name: Callable[[web.Request], str]) -> None:
        self._manager = manager
        self._user_name = user_name
        self._sessions: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """End the sessions."""
        for task in self._sessions:
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """/portForward/{namespace}/{pod}[/{uid}]."""
        path = request.match_info
        worker = self._manager.by_name(path["namespace"], path["pod"])
        if worker is None:
            return web.Response(status=404, text="pod does not exist\n")
        if path.get("uid", worker.uid) != worker.uid:
            return web.Response(status=404, text="pod not found\n")
        if upgrade.is_wanted(request):
            return await self._untunneled(request, worker)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400, text=_NO_UPGRADE)
        offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if PROTOCOL not in offered:
            return web.Response(status=403, text=f"requested protocols are not supported: {offered}\n")
        log.info("portForward", pod=podspec.key(worker.pod), user=self._user_name(request))
        answer = web.WebSocketResponse(
            protocols=(PROTOCOL,), compress=False, timeout=_CLOSE_S, max_msg_size=2 * spdy.MOST_BYTES
        )
        await answer.prepare(request)
        keep_alive(request)
        await self._run(Session(_Tunnel(answer), worker))
        return answer

    async def _untunneled(self, request: web.Request, worker: PodWorker) -> web.StreamResponse:
        if upgrade.agreed(request, (_UNTUNNELED,)) is None:
            return web.Response(status=403, text=f"this node speaks {_UNTUNNELED}\n")
        log.info("portForward", pod=podspec.key(worker.pod), user=self._user_name(request), over=upgrade.SPDY)
        try:
            link = await upgrade.Upgraded.take(request, _UNTUNNELED)
        except ConnectionError:
            return upgrade.Nothing()
        await self._run(Session(link, worker))
        return upgrade.Nothing()

    async def _run(self, session: Session) -> None:
        task = asyncio.create_task(session.run())
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        await task


class _Tunnel:
    """SPDY in the binary messages of a WebSocket; where a message ends means nothing."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for message in self._socket:
            if message.type is WSMsgType.BINARY:
                yield message.data

    async def send(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        await self._socket.close()
