"""The zygote's clients: their connections and messages."""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.sandbox.loop import READ, WRITE
from wasmlab.sandbox.protocol import pack, receive, send, short_path

if TYPE_CHECKING:
    from wasmlab.sandbox.loop import Loop

# A client that does not read so many messages is cut off; its recorded runs go on.
_OUTBOX_LIMIT = 10_000


class Peer:
    """A client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.outbox: collections.deque[bytes] = collections.deque()


class Peers:
    """All connections.

    Parameters
    ----------
    on_message, on_leave : callable
        ``on_message(peer, message, fds)`` owns the descriptors; ``on_leave(peer)`` follows the end of a connection.
    say : callable
        Writes a line to the zygote's log.
    """

    def __init__(
        self,
        loop: Loop,
        on_message: Callable[[Peer, dict[str, Any], list[int]], None],
        on_leave: Callable[[Peer], None],
        say: Callable[[str], None],
    ) -> None:
        self.connected: set[Peer] = set()
        self._loop = loop
        self._on_message = on_message
        self._on_leave = on_leave
        self._say = say

    def listen(self, directory: Path, name: str) -> None:
        """Open the socket. A file of that name is a dead zygote's: the caller holds the directory's lock."""
        self._path = directory / name
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        with short_path(directory, name) as path:
            self._listener.bind(path)
        os.chmod(self._path, 0o600)
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._loop.watch(self._listener.fileno(), lambda _: self._accept())

    def refuse(self) -> None:
        """Take no more clients: the socket is closed and its file removed."""
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def tell(self, peer: Peer | None, message: dict[str, Any]) -> None:
        """Send a message, now or when the client reads again; nothing if it is gone."""
        if peer is None or peer not in self.connected:
            return
        raw = pack(message)
        if not peer.outbox:
            try:
                send(peer.sock, raw)
                return
            except BlockingIOError:
                self._loop.want(peer.sock.fileno(), READ | WRITE)
            except OSError:
                return  # it left; the hang-up follows
        peer.outbox.append(raw)
        if len(peer.outbox) > _OUTBOX_LIMIT:
            self._say("a client does not read its messages; it is cut off")
            self._drop(peer)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._say(f"cannot take a client: {error.strerror}")
            time.sleep(
                0.01
            )  # out of descriptors: it will be asked again at once, and for as long as that lasts
            return
        sock.setblocking(False)
        peer = Peer(sock)
        self.connected.add(peer)
        self._loop.watch(sock.fileno(), lambda event: self._event(peer, event))

    def _event(self, peer: Peer, event: int) -> None:
        if event & WRITE:
            self._flush(peer)
        if peer not in self.connected or not event & ~WRITE:
            return
        try:
            message, fds = receive(peer.sock)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            self._say(f"a client sent what is not a message: {error}")
            self._drop(peer)
            return
        if message is None:
            self._drop(peer)
        else:
            self._on_message(peer, message, fds)

    def _flush(self, peer: Peer) -> None:
        try:
            while peer.outbox:
                send(peer.sock, peer.outbox[0])
                peer.outbox.popleft()
            self._loop.want(peer.sock.fileno(), READ)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(peer)

    def _drop(self, peer: Peer) -> None:
        self.connected.discard(peer)
        self._loop.unwatch(peer.sock.fileno())
        peer.sock.close()
        self._on_leave(peer)
