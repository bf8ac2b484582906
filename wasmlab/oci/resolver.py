"""Name resolution for aiohttp that cannot hold up the end of a call or of the process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any


def daemon_resolver() -> Any:
    """Return an aiohttp resolver. A function, so that aiohttp is imported only when it is needed."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class DaemonResolver(AbstractResolver):
        """Resolves in daemon threads: a hanging name server must not delay the end of the process."""

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            infos = await _in_daemon_thread(
                lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
            )
            return [
                ResolveResult(
                    hostname=host,
                    host=address[0],
                    port=address[1],
                    family=found,
                    proto=proto,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
                for found, _, proto, _, address in infos
            ]

        async def close(self) -> None:
            return None

    return DaemonResolver()


async def _in_daemon_thread(work: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def deliver(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=run, name="wasmlab-resolve", daemon=True).start()
    return await future
