"""``/containerLogs``: what ``kubectl logs`` reads through the API server.

References
----------
``k8s.io/kubernetes/pkg/kubelet/server/server.go`` (``getContainerLogs``), ``pkg/kubelet/kubelet_pods.go``
(``validateContainerLogStatus``): codes and messages.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from aiohttp import web

from wasmlab.node.containers.container import ContainerTask
from wasmlab.node.endpoint.logview import Options, Tail, choose, has_ended
from wasmlab.node.pods.manager import PodManager
from wasmlab.node.pods.worker import PodWorker

FOLLOW_POLL_S = (0.02, 0.25)  # quick while lines come, slower when it is quiet


class LogServer:
    """Shows containers' logs.

    Parameters
    ----------
    manager : PodManager
        The pods.
    closing : asyncio.Event
        Set when the endpoint ends: followers are let go.
    """

    def __init__(self, manager: PodManager, closing: asyncio.Event) -> None:
        self._manager = manager
        self._closing = closing

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """GET /containerLogs/{namespace}/{pod}/{container}."""
        namespace, name, container = (request.match_info[k] for k in ("namespace", "pod", "container"))
        try:
            options = Options(request.query)
        except ValueError as error:
            return web.Response(status=422, text=f"Invalid request: {error}\n")
        worker = self._manager.by_name(namespace, name)
        if worker is None:
            return web.Response(status=404, text=f'pod "{name}" does not exist\n')
        found = worker.find(container)
        if found is None:
            return web.Response(status=404, text=f'container "{container}" not found in pod "{name}"\n')
        path, problem = choose(worker, found, options.previous)
        if path is None:
            return web.Response(status=400, text=problem)
        return await self._send(request, worker, found, path, options)

    async def _send(
        self, request: web.Request, worker: PodWorker, container: ContainerTask, path: Path, options: Options
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        with contextlib.suppress(ConnectionError):  # the reader has gone
            await response.prepare(request)
            await self._copy(request, response, worker, container, path, options)
            await response.write_eof()
        return response

    async def _copy(
        self,
        request: web.Request,
        response: web.StreamResponse,
        worker: PodWorker,
        container: ContainerTask,
        path: Path,
        options: Options,
    ) -> None:
        view = options.filter()
        run_id = container.record.run_id
        with Tail(path) as file:
            if options.tail is not None:
                file.skip_to_last(options.tail)
            pause_s = FOLLOW_POLL_S[0]
            while True:
                # In this order: once the end is known, one more read sees all there will ever be.
                ended = has_ended(worker, container, run_id)
                data = file.read()
                if data:
                    pause_s = FOLLOW_POLL_S[0]
                    if shown := view.feed(data):
                        await response.write(shown)
                    if view.exhausted:
                        break
                    continue
                if not options.follow or ended or self._closing.is_set() or request.transport is None:
                    break
                await asyncio.sleep(pause_s)
                pause_s = min(FOLLOW_POLL_S[1], pause_s * 1.5)
