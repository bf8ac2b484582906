"""One question to a gRPC server: is a service of it well? Over plaintext HTTP/2, as a gRPC probe asks.

The protocol is grpclib's: pure Python on the h2 library, and small enough for a node; its import is not, so this module
is imported when a probe first needs it.

References
----------
gRPC Health Checking Protocol (``grpc.health.v1``); ``k8s.io/kubernetes/pkg/probe/grpc/grpc.go``.
"""

from __future__ import annotations

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse


class CallFailed(Exception):
    """The server gave another answer than the state of a service."""


class Unimplemented(CallFailed):
    """The server does not know the question."""


async def check(host: str, port: int, service: str) -> str:
    """Return the state of a service: ``SERVING``, ``NOT_SERVING``, ...

    Parameters
    ----------
    service : str
        Its name; the server as a whole if empty.

    Raises
    ------
    CallFailed
        There is no such service, or the answer is none of gRPC's.
    OSError
        Nobody answers there.
    """
    async with Channel(host, port) as channel:
        try:
            answer = await HealthStub(channel).Check(HealthCheckRequest(service=service))
        except GRPCError as error:
            kind = Unimplemented if error.status is Status.UNIMPLEMENTED else CallFailed
            raise kind(error.message or error.status.name) from error
        except (ProtocolError, StreamTerminatedError) as error:
            raise CallFailed(str(error)) from error
    name: str = HealthCheckResponse.ServingStatus.Name(answer.status)
    return name
