"""``/portForward`` between a client that speaks as kubectl does and a listener of this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, web

from tests.node.spdykit import Client
from wasmlab.node.portforward import spdy
from wasmlab.node.portforward.server import PROTOCOL, PortForwardServer

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Forwarded:
    """A client of the endpoint."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self.client = Client()
        self._last = -1
        self._waiting: list[tuple[int, int, object]] = []

    async def open(self, port: int, request: str | None = "0") -> tuple[int, int]:
        """Open the two streams of a connection, that for errors first; return (error, data)."""
        more = {} if request is None else {"requestid": request}
        opened = []
        for kind in ("error", "data"):
            self._last += 2
            opened.append(self._last)
            await self.send(self.client.open(self._last, streamtype=kind, port=str(port), **more))
            assert await self.next() == (2, self._last, {})
            if kind == "error":
                await self.send(spdy.data(self._last, b"", end=True))
        return opened[0], opened[1]

    async def send(self, frame: bytes) -> None:
        # As Go's framer: the head of a frame and its content are messages of their own.
        for part in (frame[:8], frame[8:]):
            if part:
                await self._socket.send_bytes(part)

    async def next(self) -> tuple[int, int, object]:
        while not self._waiting:
            async with asyncio.timeout(20):
                self._waiting += self.client.read(await self._socket.receive_bytes())
        return self._waiting.pop(0)

    async def all_of(self, stream: int, other: int) -> tuple[bytes, bytes]:
        """What comes on two streams until both have ended."""
        content, ends = {stream: b"", other: b""}, set()
        while len(ends) < 2:
            kind, which, found = await self.next()
            assert kind == 0, (kind, which, found)
            data, end = found  # type: ignore[misc]
            content[which] += data
            if end:
                ends.add(which)
        return content[stream], content[other]


@asynccontextmanager
async def endpoint(pids: tuple[int, ...] = (os.getpid(),)) -> AsyncIterator[tuple[ClientSession, str]]:
    """An endpoint whose one pod has these processes."""
    pod = {"metadata": {"namespace": "default", "name": "p"}}
    worker = SimpleNamespace(uid="u", pod=pod, containers=[SimpleNamespace(pids=pids)])
    manager: Any = SimpleNamespace(by_name=lambda _, name: worker if name == "p" else None)
    server = PortForwardServer(manager, lambda _: "somebody")
    app = web.Application()
    for path in ("{namespace}/{pod}", "{namespace}/{pod}/{uid}"):
        app.router.add_route("*", f"/portForward/{path}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}/portForward/default"
        async with ClientSession() as session:
            yield session, base
    finally:
        await server.aclose()
        await runner.cleanup()


@asynccontextmanager
async def forwarded(*pids: int) -> AsyncIterator[Forwarded]:
    async with (
        endpoint(pids or (os.getpid(),)) as (session, base),
        session.ws_connect(f"{base}/p", protocols=[PROTOCOL]) as socket,
    ):
        assert socket.protocol == PROTOCOL
        yield Forwarded(socket)


@asynccontextmanager
async def listener(serve: Serve, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Something that listens in this process."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read to the end, answer in capitals."""
    writer.write((await reader.read(-1)).upper())
    await writer.drain()


async def test_bytes_go_both_ways_and_so_do_their_ends() -> None:
    async with listener(shout) as port, forwarded() as client:
        error, data = await client.open(port)
        big = b"abc" * 200_000
        for at in range(0, len(big), 32768):
            await client.send(spdy.data(data, big[at : at + 32768]))
        await client.send(spdy.data(data, b"", end=True))
        assert await client.all_of(data, error) == (big.upper(), b"")


async def test_many_connections_and_pings_at_once() -> None:
    async with listener(shout, host="0.0.0.0") as port, forwarded() as client:
        opened = [await client.open(port, request=str(number)) for number in range(5)]
        await client.send(spdy.ping(1))
        assert await client.next() == (6, 1, b"")
        for number, (error, data) in reversed(list(enumerate(opened))):
            await client.send(spdy.data(data, f"n{number}".encode()))
            await client.send(spdy.data(data, b"", end=True))
            assert await client.all_of(data, error) == (f"N{number}".encode(), b"")


async def test_a_client_without_numbers_of_requests() -> None:
    async with listener(shout) as port, forwarded() as client:
        for _ in range(2):
            error, data = await client.open(port, request=None)
            await client.send(spdy.data(data, b"x", end=True))
            assert await client.all_of(data, error) == (b"X", b"")


async def test_a_client_that_gives_up_a_connection_keeps_the_others() -> None:
    reached: asyncio.Queue[bytes] = asyncio.Queue()

    async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        try:
            await reader.read(-1)
        except ConnectionError:
            pass
        reached.put_nowait(b"ended")

    async with listener(wait_for_the_end) as port, forwarded() as client:
        error, data = await client.open(port)
        assert await client.next() == (0, data, (b"hello", False))
        await client.send(spdy.reset(data, 5))
        # kubectl waits for the end of the stream for errors before it goes on.
        assert await client.all_of(data, error) == (b"", b"")
        async with asyncio.timeout(20):
            assert await reached.get() == b"ended"
        error, data = await client.open(port, request="1")
        assert await client.next() == (0, data, (b"hello", False))


async def test_the_listener_is_let_go_when_the_client_leaves() -> None:
    ended = asyncio.Event()

    async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"up")
        try:
            await reader.read(-1)
        except ConnectionError:
            pass
        ended.set()

    async with listener(wait_for_the_end) as port:
        async with forwarded() as client:
            _, data = await client.open(port)
            assert await client.next() == (0, data, (b"up", False))
        async with asyncio.timeout(20):
            await ended.wait()


async def test_a_module_that_does_not_read_blocks_nobody_for_good() -> None:
    enough = asyncio.Event()

    async def say_no(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no")
        await enough.wait()

    async with listener(say_no) as port, forwarded() as client:
        error, data = await client.open(port)
        assert await client.next() == (0, data, (b"no", False))

        async def insist() -> None:
            for _ in range(1000):  # more than all buffers in between can hold
                await client.send(spdy.data(data, b"x" * 32768))

        insisting = asyncio.create_task(insist())
        await asyncio.wait({insisting}, timeout=0.2)
        enough.set()
        assert await client.all_of(data, error) == (b"", b"")
        async with asyncio.timeout(20):
            await insisting
        assert (await client.open(port, request="1"))[0] > data


async def test_only_what_the_pods_own_processes_listen_on_is_reached() -> None:
    async with listener(shout) as port:
        async with forwarded(
            1 << 30
        ) as client:  # a pod whose process has gone, so that this listener is not its own
            error, data = await client.open(port)
            content, why = await client.all_of(data, error)
            assert content == b""
            assert why.decode() == (
                f"error forwarding port {port} to pod default/p: no module of this pod listens on port {port}, or on"
                " any other"
            )
        async with forwarded() as client:
            error, data = await client.open(1)
            _, why = await client.all_of(data, error)
            assert "listens on port 1; they listen on " in why.decode()
            assert str(port) in why.decode()


async def test_streams_that_make_no_sense_are_refused_one_by_one() -> None:
    async with listener(shout) as port, forwarded() as client:
        for stream, headers in (
            (1, {"streamtype": "data", "port": "0"}),
            (3, {"streamtype": "data", "port": "http"}),
            (5, {"streamtype": "other", "port": "80"}),
            (7, {}),
        ):
            await client.send(client.client.open(stream, **headers))
            assert await client.next() == (3, stream, spdy.REFUSED.to_bytes(4, "big"))
        client._last = 7
        error, data = await client.open(port)
        await client.send(client.client.open(data + 2, streamtype="data", port=str(port), requestid="0"))
        assert await client.next() == (3, data + 2, spdy.REFUSED.to_bytes(4, "big"))
        await client.send(spdy.data(data, b"a", end=True))
        assert await client.all_of(data, error) == (b"A", b"")


async def test_a_client_that_does_not_speak_spdy_is_told_to_go() -> None:
    async with forwarded() as client:
        await client._socket.send_bytes(b"\x80\x09\0\1\0\0\0\0")
        kind, _, _ = await client.next()
        assert kind == 7
        async with asyncio.timeout(20):
            await client._socket.receive()
        assert client._socket.closed


async def test_who_is_not_served_is_told_why() -> None:
    async with endpoint() as (session, base):
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "SPDY/3.1",
            "X-Stream-Protocol-Version": "v9.portforward.k8s.io",
        }
        async with session.post(f"{base}/p", headers=upgrade) as answer:
            assert (answer.status, "speaks portforward.k8s.io" in await answer.text()) == (403, True)
        async with session.post(f"{base}/p") as answer:
            assert (answer.status, "SPDY/3.1" in await answer.text()) == (400, True)
        for path, code in (("none", 404), ("p/other", 404)):
            async with session.get(f"{base}/{path}") as answer:
                assert answer.status == code
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Protocol": "v4.channel.k8s.io",
        }
        async with session.get(f"{base}/p", headers=headers) as answer:
            assert (answer.status, "not supported" in await answer.text()) == (403, True)
