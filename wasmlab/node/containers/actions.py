"""What probes and lifecycle hooks do: run an instance of the module, ask a URL or a gRPC service, open a connection.

Each gives a `Result` and raises only `Failed`, for what could not even be tried. Addresses are the pod's, which is the
node's: this node has no pod network, so a module that listens does so on the host's.

References
----------
``k8s.io/kubernetes/pkg/probe/{exec,http,tcp,grpc}`` and ``pkg/kubelet/lifecycle/handlers.go``; the messages follow
Go's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from wasmlab.errors import WasmlabError
from wasmlab.node.containers import instances
from wasmlab.node.spec import probes
from wasmlab.node.spec.probes import BadTarget

if TYPE_CHECKING:
    import aiohttp

Json = dict[str, Any]

_BODY_BYTES = 10 << 10
_REDIRECTS = 10


class Failed(Exception):
    """The action could not be tried: that says nothing of the container."""


class Verdict(Enum):
    """What came of it."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Result:
    """What an action found, and what there is to say of it."""

    verdict: Verdict
    output: str = ""

    @property
    def good(self) -> bool:
        """Whether it counts as a success."""
        return self.verdict is not Verdict.FAILURE


class Node(instances.Node, Protocol):
    """What is needed of the node."""

    config: Any


class Container(instances.Container, Protocol):
    """What is needed of the container."""

    spec: Json


async def perform(
    node: Node, container: Container, handler: Any, *, purpose: str, timeout_s: float | None
) -> Result:
    """Do what a v1.ProbeHandler or v1.LifecycleHandler says.

    Parameters
    ----------
    purpose : str
        ``probe`` or ``lifecycle``.
    timeout_s : float or None
        It has failed when it has not succeeded by then.

    Raises
    ------
    Failed
        It could not be tried.
    """
    spec = container.spec
    try:
        if handler.get("exec"):
            command = handler["exec"].get("command") or []
            if purpose == "probe":  # the kubelet expands a probe's command, and a hook's not
                command = probes.command_of(handler["exec"], spec)
            return await _exec(node, container, command, timeout_s)
        if handler.get("httpGet"):
            action = handler["httpGet"]
            url = probes.url_of(action, spec, node.config.pod_address)
            return await _http(url, probes.headers_of(action, purpose), timeout_s)
        if handler.get("tcpSocket") and purpose == "probe":
            action = handler["tcpSocket"]
            host = action.get("host") or node.config.pod_address
            return await _tcp(host, probes.port_of(action, spec), timeout_s)
        if handler.get("grpc") and purpose == "probe":
            action = handler["grpc"]
            port, service = probes.port_of(action, spec), action.get("service") or ""
            return await _grpc(node.config.pod_address, port, service, timeout_s)
    except BadTarget as error:
        raise Failed(str(error)) from error
    kinds = ", ".join(key for key in handler if isinstance(handler[key], dict)) or "nothing"
    raise Failed(f"invalid handler: {kinds}")


async def _exec(node: Node, container: Container, command: Sequence[str], timeout_s: float | None) -> Result:
    try:
        answer = await instances.run(node, container, command, timeout_s=timeout_s, most_bytes=_BODY_BYTES)
    except (WasmlabError, OSError) as error:
        raise Failed(str(getattr(error, "message", None) or error)) from error
    output = answer.output.decode(errors="replace")
    outcome = answer.outcome
    if outcome is None:
        said = f'"{" ".join(command)}" timed out after {timeout_s:g}s'
        return Result(Verdict.FAILURE, f"command timed out: {said}")
    if outcome.ok:
        return Result(Verdict.SUCCESS, output)
    if outcome.trap in ("failed", "lost"):
        raise Failed(outcome.message)
    return Result(Verdict.FAILURE, output or outcome.message or f"exit code {outcome.exit_code}")


async def _tcp(host: str, port: int, timeout_s: float | None) -> Result:
    where = probes.address(host, port)
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Result(Verdict.FAILURE, f"dial tcp {where}: i/o timeout")
    except OSError as error:
        return Result(Verdict.FAILURE, f"dial tcp {where}: connect: {_reason(error)}")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Result(Verdict.SUCCESS)


async def _grpc(host: str, port: int, service: str, timeout_s: float | None) -> Result:
    # The first import takes longer than the loop may stand still.
    grpc = await asyncio.to_thread(importlib.import_module, "wasmlab.node.api.grpchealth")
    where = probes.address(host, port)
    try:
        async with asyncio.timeout(timeout_s):
            status: str = await grpc.check(host, port, service)
    except TimeoutError:
        return Result(Verdict.FAILURE, f"timeout: health rpc did not complete within {timeout_s:g}s")
    except grpc.Unimplemented as error:
        said = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        return Result(Verdict.FAILURE, f"{said}: {error}")
    except grpc.CallFailed as error:
        return Result(Verdict.FAILURE, f"error: health rpc probe failed: {error}")
    except OSError as error:
        said = f"dial tcp {where}: connect: {_reason(error)}"
        return Result(Verdict.FAILURE, f'error: failed to connect service at "{where}": {said}')
    if status != "SERVING":
        return Result(Verdict.FAILURE, f'service unhealthy (responded with "{status}")')
    return Result(Verdict.SUCCESS, "service healthy")


def _reason(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return "connection refused"
    return (error.strerror or str(error)).lower()


async def _http(url: str, headers: list[tuple[str, str]], timeout_s: float | None) -> Result:
    import aiohttp

    # Nothing is verified and nothing is kept: a probe asks whether something answers there.
    connector = aiohttp.TCPConnector(force_close=True, ssl=False)
    try:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(
                connector=connector, auto_decompress=False, skip_auto_headers=("Accept-Encoding", "Accept")
            ) as session,
        ):
            return await _follow(session, url, headers)
    except TimeoutError:
        said = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Result(Verdict.FAILURE, f'Get "{url}": {said}')
    except aiohttp.ClientConnectorError as error:
        where = probes.address(error.host, error.port or 0)
        return Result(Verdict.FAILURE, f'Get "{url}": dial tcp {where}: connect: {_reason(error.os_error)}')
    except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
        return Result(Verdict.FAILURE, f'Get "{url}": {str(error) or type(error).__name__}')


async def _follow(session: aiohttp.ClientSession, url: str, headers: list[tuple[str, str]]) -> Result:
    """Ask, and go after redirects for as long as they stay on the same host."""
    from yarl import URL

    target = URL(url)
    for _ in range(_REDIRECTS + 1):
        async with session.get(target, headers=headers, allow_redirects=False) as answer:
            body = (await answer.content.read(_BODY_BYTES)).decode(errors="replace")
            if 300 <= answer.status < 400 and "Location" in answer.headers:
                there = target.join(URL(answer.headers["Location"]))
                if there.host == target.host:
                    target = there
                    continue
            if 300 <= answer.status < 400:
                return Result(Verdict.WARNING, f"Probe terminated redirects, Response body: {body}")
            if 200 <= answer.status < 300:
                return Result(Verdict.SUCCESS, body)
            # Not the body: it goes into an event that more people may read than may read the pod's answers.
            return Result(Verdict.FAILURE, f"HTTP probe failed with statuscode: {answer.status}")
    return Result(Verdict.FAILURE, f'Get "{url}": stopped after {_REDIRECTS} redirects')
