"""Connections that are kept open for hours: how the death of the machine at the other end is noticed."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web

_ESTABLISHED = 1  # TCP_ESTABLISHED of linux/tcp_states.h
_IDLE_S, _EVERY_S, _PROBES = 30, 10, 3


def is_connected(transport: asyncio.BaseTransport | None) -> bool:
    """Whether the kernel still has the connection; True where it does not say."""
    if transport is None or transport.is_closing():
        return False
    connection: Any = transport.get_extra_info("socket")
    try:
        return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED)
    except (OSError, AttributeError):
        return True


def keep_alive(request: web.Request) -> None:
    """Have the kernel ask whether the client's machine is still there."""
    connection: Any = request.transport.get_extra_info("socket") if request.transport is not None else None
    with contextlib.suppress(OSError, AttributeError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _EVERY_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
