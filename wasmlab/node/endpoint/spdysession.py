"""One client of exec or attach over SPDY: a stream for each channel. API servers before 1.36 come this way.

References
----------
``k8s.io/cri-streaming/pkg/streaming/remotecommand/httpstream.go`` (streams, their order, how they end).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from wasmlab.node.endpoint import streams
from wasmlab.node.endpoint.streams import Frame, Streams
from wasmlab.node.keepalive import is_connected
from wasmlab.node.portforward import spdy
from wasmlab.node.portforward.upgrade import Nothing, Upgraded

_STREAMS_S = 30.0  # DefaultStreamCreationTimeout
_LEAVE_S = 2.0
_CHANNELS = {
    "stdin": streams.STDIN,
    "stdout": streams.STDOUT,
    "stderr": streams.STDERR,
    "error": streams.ERROR,
    "resize": streams.RESIZE,
}
_PORTION_BYTES = 32 << 10
_Event = spdy.Opened | spdy.Data | spdy.Reset


class SpdySession:
    """A client's connection. Make it with `SpdySession.open`.

    Attributes
    ----------
    streams : Streams
        What it asked for.
    """

    def __init__(self, link: Upgraded, wanted: Streams) -> None:
        self.streams = wanted
        self._link = link
        self._spdy = spdy.Connection()
        self._events = self._read()
        self._stream: dict[int, int] = {}  # channel -> stream
        self._early: list[_Event] = []

    @classmethod
    async def open(cls, request: web.Request, wanted: Streams) -> SpdySession:
        """Answer the upgrade, and wait for the client's streams.

        Raises
        ------
        ConnectionError
            It has left, or is at fault.
        """
        session = cls(await Upgraded.take(request, streams.V4), wanted)
        missing = {streams.ERROR}
        missing |= {streams.STDIN} if wanted.stdin else set()
        missing |= {streams.STDOUT} if wanted.stdout else set()
        missing |= {streams.STDERR} if wanted.stderr else set()
        try:
            async with asyncio.timeout(_STREAMS_S):
                while missing - session._stream.keys():
                    # What comes on stdin may be here before the other streams are.
                    session._early.append(await anext(session._events))
        except (TimeoutError, StopAsyncIteration):
            await session._link.close()
            raise ConnectionResetError("the client did not open its streams") from None
        return session

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns."""
        return Nothing()

    async def gone(self) -> bool:
        """Whether the client has left, also while what it sent before cannot be read on."""
        with contextlib.suppress(ConnectionError):
            await self._link.send(spdy.ping(2))  # even numbers are the server's
        return not is_connected(self._link.transport)

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a channel, waiting for a slow client; nothing if it does not want the channel.

        Raises
        ------
        ConnectionError
            It has left.
        """
        stream = self._stream.get(channel)
        if stream is not None:
            for at in range(0, len(data), _PORTION_BYTES):
                await self._link.send(spdy.data(stream, data[at : at + _PORTION_BYTES]))

    async def receive(self, on_stdin: Callable[[Frame], Awaitable[None]]) -> None:
        """Hand on what comes for stdin; return when the client has left."""
        async for event in self._all():
            if event.stream != self._stream.get(streams.STDIN):
                continue
            if isinstance(event, spdy.Data) and event.data:
                await on_stdin(Frame(streams.STDIN, event.data))
            if isinstance(event, spdy.Reset) or (isinstance(event, spdy.Data) and event.end):
                await on_stdin(Frame(streams.STDIN, end=True))

    async def finish(self, status: bytes) -> None:
        """Send the last word and close."""
        with contextlib.suppress(ConnectionError):
            for channel in (streams.STDOUT, streams.STDERR):
                if (stream := self._stream.get(channel)) is not None:
                    await self._link.send(spdy.data(stream, b"", end=True))
            await self._link.send(spdy.data(self._stream[streams.ERROR], status, end=True))
            # It leaves when it has read all that; what is closed before may be lost on its way.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    async for _ in self._link:
                        pass
        await self._link.close()

    async def _all(self) -> AsyncIterator[_Event]:
        while self._early:
            yield self._early.pop(0)
        async for event in self._events:
            yield event

    async def _read(self) -> AsyncIterator[_Event]:
        """Yield what comes; streams are accepted, pings are answered."""
        try:
            async for portion in self._link:
                for event in self._spdy.feed(portion):
                    if isinstance(event, spdy.Ping):
                        if event.number % 2:  # ours come back too
                            await self._link.send(spdy.ping(event.number))
                        continue
                    if isinstance(event, spdy.Opened):
                        await self._opened(event)
                    yield event
        except spdy.ProtocolError:
            await self._link.send(spdy.go_away(0, spdy.PROTOCOL_ERROR))

    async def _opened(self, event: spdy.Opened) -> None:
        channel = _CHANNELS.get(event.headers.get("streamtype", ""))
        if channel is None or channel in self._stream:
            await self._link.send(spdy.reset(event.stream, spdy.REFUSED))
            return
        self._stream[channel] = event.stream
        await self._link.send(self._spdy.reply(event.stream))
