"""How the processes of a sandbox talk: JSON objects in SOCK_SEQPACKET messages, descriptors beside them.

A message that is too long for a packet travels in a memfd. Sockets are named through ``/proc/self/fd``, because a
socket's path may have 107 bytes and state directories may be deeper.

Client to zygote: ``hello run kill attach list forget reopen close_stdin stats shutdown``; each carries ``seq`` and is
answered by one message with the same ``seq``. Unasked, the zygote sends ``{"op": "ended", "id": ..., "outcome": ...}``.
Zygote to worker: one request, with the stdio descriptors. Worker to zygote: ``{"ready": true}``, then one result.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Raised whenever old clients and new zygotes (or the reverse) would misunderstand each other.
PROTOCOL = 1

_INLINE_BYTES = 48 * 1024
_MAX_FDS = 4
_IN_MEMFD = b"@"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


def valid_id(run_id: object) -> bool:
    """Whether `run_id` may name a run (and its directory)."""
    return isinstance(run_id, str) and _ID.fullmatch(run_id) is not None


def pack(message: dict[str, Any]) -> bytes:
    """Return the message as it travels."""
    return json.dumps(message, separators=(",", ":")).encode()


def send(sock: socket.socket, raw: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packed message; as a memfd if it is long."""
    if len(raw) <= _INLINE_BYTES:
        if fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            sock.sendmsg([raw], ancillary)
        else:
            sock.send(raw)
        return
    fd = os.memfd_create("wasmlab-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(raw)
        while view:
            view = view[os.write(fd, view) :]
        rights = array.array("i", [fd, *fds])
        sock.sendmsg([_IN_MEMFD], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    finally:
        os.close(fd)


def receive_raw(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one message and its descriptors; ``(b"", [])`` when the peer is gone.

    Raises
    ------
    BlockingIOError
        If the socket does not block and nothing is there.
    """
    try:
        raw, ancillary, _, _ = sock.recvmsg(
            _INLINE_BYTES, socket.CMSG_SPACE(4 * _MAX_FDS), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return b"", []
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
            fds.extend(received)
    if raw == _IN_MEMFD and fds:
        memfd = fds.pop(0)
        try:
            size = os.fstat(memfd).st_size
            parts, at = [], 0
            while at < size:
                part = os.pread(memfd, size - at, at)
                if not part:
                    break
                parts.append(part)
                at += len(part)
            raw = b"".join(parts)
        finally:
            os.close(memfd)
    return raw, fds


def receive(sock: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Like `receive_raw`, with the message parsed; None when the peer is gone."""
    raw, fds = receive_raw(sock)
    return (json.loads(raw) if raw else None), fds


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors, quietly."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


@contextlib.contextmanager
def short_path(directory: Path, name: str) -> Any:
    """Give a path for a socket in `directory` that is short whatever the directory's own length."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def socket_name(engine: str) -> str:
    """Return the file name of an engine's socket."""
    return f"{engine}.sock"


def connect(directory: Path, engine: str, timeout_s: float = 10.0) -> socket.socket:
    """Connect to the zygote of `engine` in `directory`.

    Raises
    ------
    OSError
        If nobody answers there (FileNotFoundError, ConnectionRefusedError).
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout_s)
        with short_path(directory, socket_name(engine)) as path:
            sock.connect(path)
        return sock
    except BaseException:
        sock.close()
        raise
