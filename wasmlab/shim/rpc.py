"""A ttrpc server in a `Loop`: connections, requests, answers that may come later."""

from __future__ import annotations

import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from wasmlab.sandbox.loop import READ, WRITE, Loop
from wasmlab.shim.frames import REQUEST, RESPONSE, Decoder, encode
from wasmlab.shim.pb import ttrpc_pb2

# google.rpc.Code, as containerd's errdefs understand them.
UNKNOWN, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS = 2, 3, 5, 6
FAILED_PRECONDITION, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 9, 12, 13, 14


class RpcError(Exception):
    """An answer that says no."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Call:
    """A request that waits for its answer; answered exactly once."""

    __slots__ = ("_connection", "_stream", "done")

    def __init__(self, connection: Connection, stream: int) -> None:
        self._connection = connection
        self._stream = stream
        self.done = False

    @property
    def connected_ns(self) -> int:
        """When its client connected, on CLOCK_MONOTONIC."""
        return self._connection.since_ns

    def answer(self, message: Any) -> None:
        """Send the answer (a protobuf message)."""
        self._finish(ttrpc_pb2.Response(payload=message.SerializeToString()))

    def fail(self, code: int, text: str) -> None:
        """Send an error."""
        self._finish(ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=code, message=text)))

    def _finish(self, response: ttrpc_pb2.Response) -> None:
        if not self.done:
            self.done = True
            self._connection.send(encode(self._stream, RESPONSE, response.SerializeToString()))


class Connection:
    """One client: reads requests, queues what cannot be written yet."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.since_ns = time.monotonic_ns()
        self._decoder = Decoder()
        self._outbox = bytearray()
        sock.setblocking(False)
        server.loop.watch(sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & ~WRITE:
            self._read()

    def _read(self) -> None:
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        for frame in self._decoder.feed(data):
            if frame.kind != REQUEST:
                continue  # streams are not part of the Task service
            call = Call(self, frame.stream)
            if frame.oversized:
                call.fail(INVALID_ARGUMENT, "the message is longer than ttrpc allows")
                continue
            try:
                request = ttrpc_pb2.Request.FromString(frame.payload)
            except Exception:
                call.fail(INVALID_ARGUMENT, "the request cannot be parsed")
                continue
            self.server.handle(call, request)

    def send(self, frame: bytes) -> None:
        """Write a frame, now or when the peer takes it."""
        if self.sock.fileno() < 0:
            return
        if not self._outbox:
            try:
                sent = self.sock.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            frame = frame[sent:]
            if not frame:
                return
            self.server.loop.want(self.sock.fileno(), READ | WRITE)
        self._outbox += frame

    def _flush(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: self.sock.send(self._outbox)]
            self.server.loop.want(self.sock.fileno(), READ)
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    @property
    def unsent(self) -> bool:
        """Whether bytes wait to be written."""
        return bool(self._outbox)

    def close(self) -> None:
        """Drop the client."""
        if self.sock.fileno() >= 0:
            self.server.loop.unwatch(self.sock.fileno())
            self.sock.close()
        self.server.connections.discard(self)


class Server:
    """Accepts connections on a listening socket and hands each request to `methods`.

    Parameters
    ----------
    methods : mapping
        ``(service, method)`` -> ``(request class, function(call, request))``. The function answers the call, now or
        later, or raises `RpcError`.
    """

    def __init__(
        self, loop: Loop, listener: socket.socket, methods: dict[tuple[str, str], tuple[Any, Callable]]
    ) -> None:
        self.loop = loop
        self.listener = listener
        self.methods = methods
        self.connections: set[Connection] = set()
        listener.setblocking(False)
        loop.watch(listener.fileno(), self._accept)

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self.listener.accept()
        except OSError:
            return
        self.connections.add(Connection(self, sock))

    def handle(self, call: Call, request: ttrpc_pb2.Request) -> None:
        """Dispatch one request; every error becomes an answer."""
        found = self.methods.get((request.service, request.method))
        if found is None:
            call.fail(UNIMPLEMENTED, f"{request.service}/{request.method} is not implemented by this shim")
            return
        message_class, function = found
        try:
            function(call, message_class.FromString(request.payload))
        except RpcError as error:
            call.fail(error.code, error.message)
        except Exception as error:
            # Logged here and not passed on: other requests may have come in the same packet.
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            call.fail(UNKNOWN, f"{request.method}: {type(error).__name__}: {error}")

    def stop_listening(self) -> None:
        """Take no new connections."""
        if self.listener.fileno() >= 0:
            self.loop.unwatch(self.listener.fileno())
            self.listener.close()
