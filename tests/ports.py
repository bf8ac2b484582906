"""Ports for modules that serve: they cannot be asked for a free one, and no other test or connection should get it."""

from __future__ import annotations

import http.client
import os
import random
import socket
import time
from collections.abc import Callable

# Below what Linux gives to connections and the documentation uses (28080), above what anybody else listens on.
_FIRST, _LAST = 20_000, 28_000
_numbers = random.Random(os.getpid())


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    for _ in range(1000):
        port = _numbers.randrange(_FIRST, _LAST)
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def ask(address: str, port: int, path: str = "/") -> str | None:
    """Return what an HTTP server answers, None if there is none (yet)."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def answer(port: int, path: str = "/", *, unless: Callable[[], bool], timeout_s: float = 60.0) -> str | None:
    """Wait for what a server on this machine answers; None if it has not in time, or if `unless` came true."""
    deadline = time.monotonic() + timeout_s
    while (said := ask("127.0.0.1", port, path)) is None and not unless() and time.monotonic() < deadline:
        time.sleep(0.02)
    return said
