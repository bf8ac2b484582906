"""A gRPC server whose services are as well as a test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.v1.health_grpc import HealthBase
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.server import Server, Stream

Call = Stream[HealthCheckRequest, HealthCheckResponse]


class Health(HealthBase):
    """``grpc.health.v1.Health``.

    Attributes
    ----------
    states : dict
        Name of a service -> SERVING, NOT_SERVING, ..., or a status of gRPC to fail with, or for how many seconds not to
        answer.
    """

    def __init__(self) -> None:
        self.states: dict[str, str | Status | float] = {}

    async def Check(self, stream: Call) -> None:
        request = await stream.recv_message()
        assert request is not None
        state = self.states.get(request.service, Status.NOT_FOUND)
        if isinstance(state, float):
            await asyncio.sleep(state)
        elif isinstance(state, Status):
            raise GRPCError(state, f"no {request.service}")
        else:
            await stream.send_message(HealthCheckResponse(status=state))

    async def Watch(self, stream: Call) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)


@contextmanager
def serving(health: Health, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve in a thread; yields the port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[Server, int]:
        server = Server([health])
        await server.start(host, 0)
        return server, server._server.sockets[0].getsockname()[1]

    async def stop(server: Server) -> None:
        server.close()
        await server.wait_closed()

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
