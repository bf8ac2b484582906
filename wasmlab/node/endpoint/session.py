"""One client of exec or attach: a WebSocket with channels, and the notice of its leaving."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from wasmlab.node.endpoint import streams
from wasmlab.node.endpoint.streams import Frame, Streams
from wasmlab.node.keepalive import is_connected, keep_alive

_CLOSE_S = 2.0


class Session:
    """A client's WebSocket. Make it with `Session.open`.

    Attributes
    ----------
    streams : Streams
        What it asked for.
    """

    def __init__(self, request: web.Request, socket_: web.WebSocketResponse, wanted: Streams) -> None:
        self.streams = wanted
        self._request = request
        self._socket = socket_
        self._protocol = socket_.ws_protocol or streams.V4

    @classmethod
    async def open(cls, request: web.Request, wanted: Streams) -> Session:
        """Answer the upgrade, and say that the connection stands."""
        # No pings: clients and the API server send their own. The kernel's keep-alive notices a machine that died.
        answer = web.WebSocketResponse(protocols=streams.PROTOCOLS, compress=False, timeout=_CLOSE_S)
        await answer.prepare(request)
        keep_alive(request)
        session = cls(request, answer, wanted)
        first = streams.STDOUT if wanted.stdout else streams.STDERR if wanted.stderr else streams.ERROR
        await session.send(first, b"")
        return session

    @property
    def response(self) -> web.WebSocketResponse:
        """What the handler returns."""
        return self._socket

    async def gone(self) -> bool:
        """Whether the client has left, also while what it sent before cannot be read on.

        A connection that is not read shows neither end nor reset; one that has no owner any more answers to whatever
        is sent to it with a reset. So it is sent something.
        """
        with contextlib.suppress(ConnectionError):
            await self._socket.ping()
        return self._socket.closed or not is_connected(self._request.transport)

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a channel, waiting for a slow client; nothing if it does not want the channel.

        Raises
        ------
        ConnectionError
            It has left.
        """
        if channel == streams.STDOUT and not self.streams.stdout:
            return
        if channel == streams.STDERR and not self.streams.stderr:
            return
        message = streams.encode(self._protocol, channel, data)
        if isinstance(message, str):
            await self._socket.send_str(message)
        else:
            await self._socket.send_bytes(message)

    async def receive(self, on_stdin: Callable[[Frame], Awaitable[None]]) -> None:
        """Hand on what comes for stdin; return when the client has left."""
        async for message in self._socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                continue
            frame = streams.decode(self._protocol, message.data)
            if frame is not None and frame.channel == streams.STDIN and self.streams.stdin:
                await on_stdin(frame)

    async def finish(self, status: bytes) -> None:
        """Send the last word and close."""
        with contextlib.suppress(ConnectionError):
            await self.send(streams.ERROR, status)
            await self._socket.close()
