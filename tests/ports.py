"""Ports for modules that serve: they cannot be asked for a free one, and no other test or connection should get it."""

from __future__ import annotations

import os
import random
import socket

# Below what Linux gives to connections, above what anybody listens on.
_FIRST, _LAST = 20_000, 32_000
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
    import http.client

    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
