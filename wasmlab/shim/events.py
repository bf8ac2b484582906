"""Task events to containerd, in order, through the ttrpc socket that it names in TTRPC_ADDRESS.

(`containerd publish`, the documented way, starts a process of 50 MB for each event.)
"""

from __future__ import annotations

import collections
import socket
import sys
import time
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from wasmlab.sandbox.loop import READ, WRITE, Loop
from wasmlab.shim.frames import REQUEST, RESPONSE, Decoder, encode
from wasmlab.shim.pb import events_pb2, ttrpc_pb2

_SERVICE, _METHOD = "containerd.services.events.ttrpc.v1.Events", "Forward"
# containerd that is restarted is back within seconds; whoever stays away longer asks for the state when it is back.
_RETRY_S = 0.5
_GIVE_UP_S = 60.0
_QUEUE_LIMIT = 2048

_TOPICS = {
    "TaskCreate": "/tasks/create",
    "TaskStart": "/tasks/start",
    "TaskExit": "/tasks/exit",
    "TaskDelete": "/tasks/delete",
    "TaskOOM": "/tasks/oom",
    "TaskExecAdded": "/tasks/exec-added",
    "TaskExecStarted": "/tasks/exec-started",
    "TaskPaused": "/tasks/paused",
    "TaskResumed": "/tasks/resumed",
}


def timestamp(unix_ns: int) -> Timestamp:
    """Return the protobuf form of a wall clock time in nanoseconds."""
    return Timestamp(seconds=unix_ns // 1_000_000_000, nanos=unix_ns % 1_000_000_000)


def envelope(namespace: str, event: Any) -> bytes:
    """Return a serialized ttrpc request that forwards `event`."""
    name = event.DESCRIPTOR.name
    forward = events_pb2.ForwardRequest(
        envelope=events_pb2.Envelope(
            timestamp=timestamp(time.time_ns()),
            namespace=namespace,
            topic=_TOPICS[name],
            # No "type.googleapis.com/" in front: containerd's typeurl looks the bare name up.
            event=AnyMessage(type_url=event.DESCRIPTOR.full_name, value=event.SerializeToString()),
        )
    )
    return bytes(
        ttrpc_pb2.Request(
            service=_SERVICE, method=_METHOD, payload=forward.SerializeToString(), timeout_nano=5_000_000_000
        ).SerializeToString()
    )


class Publisher:
    """Sends events one after the other, each when the one before is acknowledged, so that containerd cannot see them
    in another order; keeps them while containerd is away."""

    def __init__(self, loop: Loop, address: str, namespace: str) -> None:
        self._loop = loop
        self._address = address.removeprefix("unix://")
        self.namespace = namespace
        # Where the events go is beside containerd's own socket, unless somebody configured it elsewhere.
        self.containerd = self._address.removesuffix(".ttrpc")
        self._queue: collections.deque[bytes] = collections.deque()
        self._sock: socket.socket | None = None
        self._decoder = Decoder()
        self._outbox = b""
        self._stream = -1
        self._waiting = False
        self._retrying = False
        self._failing_since: float | None = None
        self.published = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return not self._queue

    def publish(self, event: Any) -> None:
        """Queue `event`."""
        if not self._address:
            return
        self._queue.append(envelope(self.namespace, event))
        if len(self._queue) > _QUEUE_LIMIT:
            self._queue.popleft()
            _say("containerd does not take events; the oldest one is dropped")
        if not self._waiting and not self._retrying:
            self._send()

    def _send(self) -> None:
        if not self._queue:
            return
        if self._sock is None and not self._connect():
            return
        self._stream += 2
        self._outbox = encode(self._stream, REQUEST, self._queue[0])
        self._waiting = True
        self._write()

    def _connect(self) -> bool:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            sock.connect(self._address)
        except OSError:
            sock.close()
            self._later()
            return False
        self._sock, self._decoder, self._stream = sock, Decoder(), -1
        self._loop.watch(sock.fileno(), self._ready)
        return True

    def _later(self) -> None:
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > _GIVE_UP_S:
            _say(f"containerd has not answered for {_GIVE_UP_S:g} s; {len(self._queue)} events are dropped")
            self._queue.clear()
            self._failing_since = None
            return
        if not self._retrying:
            self._retrying = True
            self._loop.after(_RETRY_S, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        if not self._waiting:
            self._send()

    def _ready(self, events: int) -> None:
        if events & WRITE and self._outbox:
            self._write()
        if events & ~WRITE:
            self._read()

    def _write(self) -> None:
        assert self._sock is not None
        try:
            self._outbox = self._outbox[self._sock.send(self._outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            self._lost()
            return
        self._loop.want(self._sock.fileno(), READ | WRITE if self._outbox else READ)

    def _read(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        for frame in self._decoder.feed(data):
            if frame.kind == RESPONSE and frame.stream == self._stream and self._waiting:
                status = ttrpc_pb2.Response.FromString(frame.payload).status
                if status.code:
                    _say(f"containerd refuses an event: {status.message}")
                self._queue.popleft()
                self._waiting = False
                self._failing_since = None
                self.published += 1
                self._send()

    def _lost(self) -> None:
        # What was sent but not acknowledged is sent again: twice is better than never.
        assert self._sock is not None
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._sock, self._waiting, self._outbox = None, False, b""
        if self._queue:
            self._later()


def _say(text: str) -> None:
    print(f"shim: {text}", file=sys.stderr, flush=True)
