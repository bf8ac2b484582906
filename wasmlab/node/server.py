"""The node's TLS endpoint: what ``kubectl logs`` reaches through the API server.

Who may come in: nobody without a client certificate of the cluster's authority (the TLS handshake refuses), and of
those only the API server itself (403 for the rest, among them every node and every user): the API server has already
asked whether its caller may read these logs, and this node does not ask again.

References
----------
``k8s.io/kubernetes/pkg/kubelet/server/server.go`` (paths, query parameters, messages).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from wasmlab.errors import PrerequisiteError
from wasmlab.node import log
from wasmlab.node.container import ContainerTask
from wasmlab.node.logview import Options, Tail, choose, has_ended
from wasmlab.node.manager import PodManager
from wasmlab.node.worker import PodWorker

_FOLLOW_POLL_S = (0.02, 0.25)  # quick while lines come, slower when it is quiet
_NO_PROCESS = "a WASM module has no shell and no process to enter: {what} is not possible on this node"


def ssl_context(certificate: Path, key: Path, client_ca_pem: str) -> ssl.SSLContext:
    """TLS that lets in nobody without a certificate of the cluster's authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=client_ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    context.load_cert_chain(certificate, key)
    return context


def bind(address: str, port: int, remembered: Path) -> socket.socket:
    """A listening socket; for port 0 the port of last time if it is free, so that a restart is not seen from outside.

    Raises
    ------
    PrerequisiteError
        The address cannot be bound.
    """
    wanted = [port]
    if port == 0:
        with contextlib.suppress(OSError, ValueError):
            wanted = [int(remembered.read_text()), 0]
    for attempt, one in enumerate(wanted):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, one))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if attempt == len(wanted) - 1:
                raise PrerequisiteError(
                    f"the endpoint cannot listen on {address} port {one}: {error.strerror}",
                    remedy="another program may use the port; choose one with --port, or --port 0 for any",
                ) from error
            continue
        listener.setblocking(False)
        if port == 0:
            remembered.write_text(str(listener.getsockname()[1]))
        return listener
    raise AssertionError("unreachable")


class Endpoint:
    """Serves this node's pods to the API server.

    Parameters
    ----------
    manager : PodManager
        The pods.
    api_client : str
        Common name of the only client let in.
    """

    def __init__(self, manager: PodManager, api_client: str) -> None:
        self._manager = manager
        self._api_client = api_client
        self._runner: web.AppRunner | None = None
        self._closing = asyncio.Event()

    async def start(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Serve on a listening socket."""
        app = web.Application(middlewares=[self._only_the_api_server])
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/runningpods/", self._pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for action in ("exec", "attach", "portForward", "run"):
            app.router.add_route("*", f"/{action}/{{rest:.*}}", _refuse(action))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, ssl_context=context).start()

    async def aclose(self) -> None:
        """Stop serving; followers are let go."""
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _only_the_api_server(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        certificate = request.get_extra_info("peercert") or {}
        names = [
            value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"
        ]
        if names != [self._api_client]:
            log.warning("refused a client", peer=request.remote, names=",".join(names), path=request.path)
            return web.Response(status=403, text=f"only {self._api_client} may come in here\n")
        return await handler(request)

    async def _pods(self, _request: web.Request) -> web.Response:
        import orjson

        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._manager.pods()}
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        namespace, name, container = (request.match_info[k] for k in ("namespace", "pod", "container"))
        worker = self._manager.by_name(namespace, name)
        if worker is None:
            return web.Response(
                status=404, text=f'pod "{name}" not found in namespace "{namespace}" on this node\n'
            )
        found = worker.find(container)
        if found is None:
            return web.Response(
                status=404, text=f"container {container} not found in pod {name}_{namespace}\n"
            )
        try:
            options = Options(request.query)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        path, problem = choose(worker, found, options.previous)
        if path is None:
            return web.Response(status=400, text=f'container "{container}" in pod "{name}" is {problem}')
        return await self._send(request, worker, found, path, options)

    async def _send(
        self, request: web.Request, worker: PodWorker, container: ContainerTask, path: Path, options: Options
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        view = options.filter()
        run_id = container.record.run_id
        with Tail(path) as file:
            if options.tail is not None:
                file.skip_to_last(options.tail)
            pause_s = _FOLLOW_POLL_S[0]
            while True:
                # In this order: once the end is known, one more read sees all there will ever be.
                ended = has_ended(worker, container, run_id)
                data = file.read()
                if data:
                    pause_s = _FOLLOW_POLL_S[0]
                    if shown := view.feed(data):
                        await response.write(shown)
                    if view.exhausted:
                        break
                    continue
                if not options.follow or ended or self._closing.is_set() or request.transport is None:
                    break
                await asyncio.sleep(pause_s)
                pause_s = min(_FOLLOW_POLL_S[1], pause_s * 1.5)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


def _refuse(what: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=501, text=_NO_PROCESS.format(what=what) + "\n")

    return handler
