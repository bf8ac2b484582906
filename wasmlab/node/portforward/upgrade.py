"""A connection that has been HTTP and is SPDY from now on: what API servers before 1.36 speak to a kubelet.

aiohttp knows one such upgrade, WebSocket. For this one its transport gets another protocol, and its handler ends with
an answer that is none.

References
----------
``k8s.io/streaming/pkg/httpstream/spdy/upgrade.go`` (the handshake); ``httpstream.go`` (the protocol that both speak).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from wasmlab.node.keepalive import keep_alive

SPDY = "SPDY/3.1"
_PROTOCOL_HEADER = "X-Stream-Protocol-Version"
_PORTION_BYTES = 64 << 10
_CLOSE_S = 2.0


def is_wanted(request: web.Request) -> bool:
    """Whether a request asks for this upgrade."""
    return request.headers.get("Upgrade", "").lower() == SPDY.lower()


def agreed(request: web.Request, known: Sequence[str]) -> str | None:
    """Return the first of the client's protocols that we know; None if there is none."""
    offered = ",".join(request.headers.getall(_PROTOCOL_HEADER, []))
    return next((one for word in offered.split(",") if (one := word.strip()) in known), None)


class Upgraded:
    """A connection that was taken over. Make it with `Upgraded.take`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def take(cls, request: web.Request, protocol: str) -> Upgraded:
        """Answer the upgrade.

        Raises
        ------
        ConnectionError
            The client has left.
        """
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        following = _Protocol(reader, transport.get_protocol())
        transport.set_protocol(following)
        following.connection_made(transport)
        link = cls(reader, asyncio.StreamWriter(transport, following, reader, loop))
        keep_alive(request)
        await link.send(
            f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {SPDY}\r\n"
            f"{_PROTOCOL_HEADER}: {protocol}\r\n\r\n".encode()
        )
        return link

    @property
    def transport(self) -> asyncio.WriteTransport:
        """Of the connection."""
        return self._writer.transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while portion := await self._reader.read(_PORTION_BYTES):
            yield portion

    async def send(self, data: bytes) -> None:
        """Send bytes, waiting for a slow client.

        Raises
        ------
        ConnectionError
            It has left.
        """
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Send what is to be sent still, and end."""
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()


class Nothing(web.StreamResponse):
    """What a handler returns when its connection speaks another protocol: there is nothing to answer."""

    def __init__(self) -> None:
        super().__init__(status=101)

    async def prepare(self, request: Any) -> None:
        """Write no head."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write no end."""


class _Protocol(asyncio.StreamReaderProtocol):
    """Reads the connection; the HTTP server, whose it was, hears of its end."""

    def __init__(self, reader: asyncio.StreamReader, before: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._before.connection_lost(error)
