"""One client of ``/portForward``: its connections, each of two streams, and the listeners that they go to.

References
----------
``k8s.io/cri-streaming/pkg/streaming/portforward/httpstream.go`` (streams, pairs and messages).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from wasmlab.node import log
from wasmlab.node.host import sockets
from wasmlab.node.pods.worker import PodWorker
from wasmlab.node.portforward import spdy
from wasmlab.node.spec import podspec

_CONNECT_S = 10.0
_PAIR_S = 30.0  # DefaultStreamCreationTimeout
_PORTION_BYTES = 32 << 10
_MOST_PAIRS = 256
_MOST_QUEUED = 16
_STREAM_TYPE, _PORT, _REQUEST = "streamtype", "port", "requestid"


class Refused(Exception):
    """A port cannot be reached; the message goes to the client."""


class Pair:
    """One connection of the client: its two streams, and what is on its way to the module."""

    def __init__(self, request: str, port: int) -> None:
        self.request = request
        self.port = port
        self.data = self.error = 0  # streams
        self.complete = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._over = False
        self._writer: asyncio.StreamWriter | None = None
        self._queue: asyncio.Queue[spdy.Data] = asyncio.Queue(_MOST_QUEUED)

    def add(self, kind: str, stream: int) -> bool:
        """Take in one of its streams; whether there was none of that kind."""
        if getattr(self, kind):
            return False
        setattr(self, kind, stream)
        if self.data and self.error:
            self.complete.set()
        return True

    async def put(self, frame: spdy.Data) -> None:
        """Bring bytes on their way, waiting for a slow module; those that come too late are dropped."""
        if not self._over:
            await self._queue.put(frame)

    async def write_to(self, writer: asyncio.StreamWriter) -> None:
        """Hand the module what comes, until the client's end."""
        self._writer = writer
        if self._over:
            writer.transport.abort()
        with contextlib.suppress(ConnectionError):  # a module that has gone is noticed where it is read
            while True:
                frame = await self._queue.get()
                writer.write(frame.data)
                await writer.drain()
                if frame.end:
                    writer.write_eof()
                    return

    def close(self) -> None:
        """Nothing goes to the module any more, or comes from it; who waits in `put` goes on."""
        self._over = True
        if self._writer is not None:
            self._writer.transport.abort()
        while not self._queue.empty():
            self._queue.get_nowait()


class Link(Protocol):
    """A connection that carries SPDY."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def send(self, data: bytes) -> None:
        """Send bytes, waiting for a slow client."""

    async def close(self) -> None:
        """End it."""


class Session:
    """One client.

    Parameters
    ----------
    link : Link
        Where its SPDY comes and goes.
    worker : PodWorker
        The pod.
    """

    def __init__(self, link: Link, worker: PodWorker) -> None:
        self._link = link
        self._worker = worker
        self._spdy = spdy.Connection()
        self._pairs: dict[str, Pair] = {}
        self._streams: dict[int, Pair] = {}
        self._last = 0

    async def run(self) -> None:
        """Serve until the client leaves."""
        try:
            async for portion in self._link:
                for event in self._spdy.feed(portion):
                    await self._take(event)
        except spdy.ProtocolError as error:
            log.warning("a client of portForward is at fault", pod=podspec.key(self._worker.pod), error=error)
            with contextlib.suppress(ConnectionError):
                await self._send(spdy.go_away(self._last, spdy.PROTOCOL_ERROR))
        except ConnectionError:
            pass
        finally:
            tasks = [pair.task for pair in self._pairs.values() if pair.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(ConnectionError):
                await self._link.close()

    async def _take(self, event: spdy.Event) -> None:
        if isinstance(event, spdy.Ping):
            await self._send(spdy.ping(event.number))
            return
        if isinstance(event, spdy.Opened):
            await self._opened(event)
            return
        pair = self._streams.get(event.stream)
        if pair is None:
            return  # of a connection that has ended
        if isinstance(event, spdy.Reset):
            pair.close()  # and `_serve` says on the other stream that it is over
        elif event.stream == pair.data:
            await pair.put(event)

    async def _opened(self, event: spdy.Opened) -> None:
        if event.stream <= self._last or not event.stream % 2:
            raise spdy.ProtocolError(f"stream {event.stream} after stream {self._last}")
        self._last = event.stream
        kind, port = event.headers.get(_STREAM_TYPE, ""), event.headers.get(_PORT, "")
        # A client older than the header gave each connection two streams in a row, that for errors first.
        request = event.headers.get(_REQUEST) or str(event.stream - 2 * (kind == "data"))
        if kind not in ("data", "error") or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            await self._send(spdy.reset(event.stream, spdy.REFUSED))
            return
        pair = self._pairs.get(request)
        if pair is None and len(self._pairs) < _MOST_PAIRS:
            pair = self._pairs[request] = Pair(request, int(port))
            pair.task = asyncio.create_task(self._serve(pair))
        if pair is None or not pair.add(kind, event.stream):
            await self._send(spdy.reset(event.stream, spdy.REFUSED))
            return
        self._streams[event.stream] = pair
        await self._send(self._spdy.reply(event.stream))

    async def _serve(self, pair: Pair) -> None:
        """One connection, from its streams to its end."""
        try:
            try:
                async with asyncio.timeout(_PAIR_S):
                    await pair.complete.wait()
                await self._forward(pair)
            except (TimeoutError, Refused) as error:
                why = str(error) or "timed out waiting for streams"
                message = f"error forwarding port {pair.port} to pod {podspec.key(self._worker.pod)}: {why}"
                log.info("cannot forward", pod=podspec.key(self._worker.pod), port=pair.port, why=why)
                if pair.error:
                    await self._send(spdy.data(pair.error, message.encode()))
            for stream in (pair.data, pair.error):
                if stream:
                    await self._send(spdy.data(stream, b"", end=True))
        except ConnectionError:
            pass  # the client has left, and the session ends with it
        finally:
            pair.close()
            del self._pairs[pair.request]
            for stream in (pair.data, pair.error):
                self._streams.pop(stream, None)

    async def _forward(self, pair: Pair) -> None:
        reader, writer = await self._connect(pair.port)
        to_module = asyncio.create_task(pair.write_to(writer))
        try:
            while True:
                try:
                    portion = await reader.read(_PORTION_BYTES)
                except ConnectionError:
                    return
                if not portion:
                    return
                await self._send(spdy.data(pair.data, portion))
        finally:
            to_module.cancel()
            writer.transport.abort()  # all that the module said has been read
            await asyncio.gather(to_module, return_exceptions=True)

    async def _connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        pids = [pid for container in self._worker.containers for pid in container.pids]
        found = await asyncio.to_thread(sockets.listening, pids)
        listener = next((one for one in found if one.port == port), None)
        if listener is None:
            ports = ", ".join(str(number) for number in sorted({one.port for one in found}))
            raise Refused(
                f"no module of this pod listens on port {port}"
                + (f"; they listen on {ports}" if ports else ", or on any other")
            )
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await asyncio.open_connection(listener.reachable, port)
        except TimeoutError:
            raise Refused(f"port {port} did not answer within {_CONNECT_S:g} s") from None
        except OSError as error:
            raise Refused(f"cannot connect to port {port}: {error.strerror or error}") from None

    async def _send(self, frame: bytes) -> None:
        await self._link.send(frame)
