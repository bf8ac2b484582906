"""The node's endpoint: the kubelet's paths over TLS, behind the `guard`.

There is one port, and no read-only one. Every path needs authentication and authorization, ``/healthz`` included.

References
----------
``k8s.io/kubernetes/pkg/kubelet/server/server.go`` (paths, query parameters, messages).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web

from wasmlab.node.api.kubeapi import Json
from wasmlab.node.config import NodeConfig
from wasmlab.node.containers.services import Services
from wasmlab.node.endpoint import configz
from wasmlab.node.endpoint.guard import Guard, user_name
from wasmlab.node.endpoint.logserver import LogServer
from wasmlab.node.endpoint.metrics import Requests
from wasmlab.node.endpoint.statserver import StatServer
from wasmlab.node.endpoint.streaming import StreamServer
from wasmlab.node.membership.certificates import Certificates
from wasmlab.node.pods.manager import PodManager
from wasmlab.node.portforward.server import PortForwardServer
from wasmlab.node.promtext import Family
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.spec import podspec

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_DISABLED = "logs endpoint is disabled.\n"
_NOT_HERE = {
    "run": "use exec: `/run` has no client any more",
    "checkpoint": "no engine here can write down a running module",
}


class Endpoint:
    """Serves this node's pods to the API server and to whoever else may.

    Parameters
    ----------
    config : NodeConfig
        For ``/configz``.
    manager : PodManager
        The pods.
    guard : Guard
        Who may come in.
    stats : StatServer
        Metrics and figures.
    streams : StreamServer
        exec and attach.
    forwarding : PortForwardServer
        portForward.
    requests : Requests
        Counts what is asked.
    checks : mapping
        Name -> callable, for ``/healthz``: why it is not well, or None.
    """

    def __init__(
        self,
        config: NodeConfig,
        manager: PodManager,
        guard: Guard,
        stats: StatServer,
        streams: StreamServer,
        forwarding: PortForwardServer,
        requests: Requests,
        checks: Mapping[str, Callable[[], str | None]],
    ) -> None:
        self._config = config
        self._manager = manager
        self._guard = guard
        self._stats = stats
        self._streams = streams
        self._forwarding = forwarding
        self._requests = requests
        self._checks = checks
        self._runner: web.AppRunner | None = None
        self._closing = asyncio.Event()

    @property
    def stats(self) -> StatServer:
        """Where the node and its pods are measured."""
        return self._stats

    @classmethod
    def of(
        cls, services: Services, manager: PodManager, certificates: Certificates, synced: asyncio.Event
    ) -> Endpoint:
        """Put the parts together.

        Parameters
        ----------
        synced : asyncio.Event
            Set once the pods have been listed.
        """
        config, runtime = services.config, services.runtime
        requests = Requests()

        def groups(run_id: RunId) -> Sequence[str]:
            group = services.groups.of(run_id)
            return group.directories if group is not None else ()

        def more() -> list[Family]:
            return [services.spans.phases.family(), *certificates.families()]

        stats = StatServer(config, manager, runtime, requests, more=more, groups=groups)
        checks: dict[str, Callable[[], str | None]] = {
            "syncloop": lambda: None if synced.is_set() else "the pods have not been listed yet",
            "sandbox": lambda: None if runtime.zygotes else "no engine's zygote is there",
        }
        guard = Guard(services.api, config.node_name)
        streams = StreamServer(services, manager)
        forwarding = PortForwardServer(manager, user_name)
        return cls(config, manager, guard, stats, streams, forwarding, requests, checks)

    async def start(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Serve on a listening socket."""
        app = web.Application(middlewares=[self._counted, self._guard.middleware])
        get = app.router.add_get
        for path in ("/healthz", "/healthz/{check}"):
            get(path, self._healthz)
        get("/pods", self._pods)
        get("/runningpods/", self._running_pods)
        get("/configz", self._configz)
        get("/containerLogs/{namespace}/{pod}/{container}", LogServer(self._manager, self._closing).handle)
        get("/metrics", self._stats.metrics)
        get("/metrics/resource", self._stats.resource_metrics)
        get("/stats/summary", self._stats.summary)
        for action, handler in (("exec", self._streams.exec), ("attach", self._streams.attach)):
            for path in ("{namespace}/{pod}/{container}", "{namespace}/{pod}/{uid}/{container}"):
                # POST is how SPDY clients come: the handler tells them.
                for method in ("GET", "POST"):
                    app.router.add_route(method, f"/{action}/{path}", handler)
        for path in ("{namespace}/{pod}", "{namespace}/{pod}/{uid}"):
            for method in ("GET", "POST"):
                app.router.add_route(method, f"/portForward/{path}", self._forwarding.handle)
        for action, why in _NOT_HERE.items():
            app.router.add_route("*", f"/{action}/{{rest:.*}}", _refuse(action, why))
        app.router.add_route("*", "/logs{rest:.*}", _logs)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, ssl_context=context).start()

    async def aclose(self) -> None:
        """Stop serving; followers are let go, and what was started for somebody is ended."""
        self._closing.set()
        await self._streams.aclose()
        await self._forwarding.aclose()
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        code = 500
        try:
            response = await handler(request)
            code = response.status
            return response
        except web.HTTPException as error:
            code = error.status
            raise
        except asyncio.CancelledError:
            code = 0
            raise
        finally:
            first = request.path.split("/", 2)[1] if "/" in request.path else ""
            self._requests.count(first, request.method, code, time.monotonic() - began)

    async def _healthz(self, request: web.Request) -> web.Response:
        wanted = request.match_info.get("check")
        if wanted is not None and wanted not in self._checks and wanted != "ping":
            return web.Response(status=404, text="404 page not found\n")
        names = [wanted] if wanted else ["ping", *self._checks]
        lines, well = [], True
        for name in names:
            problem = self._checks[name]() if name in self._checks else None
            well = well and problem is None
            lines.append(f"[+]{name} ok" if problem is None else f"[-]{name} failed: {problem}")
        if well and "verbose" not in request.query:
            return web.Response(text="ok")
        lines.append(f"healthz check {'passed' if well else 'failed'}")
        return web.Response(status=200 if well else 500, text="\n".join(lines) + "\n")

    async def _pods(self, _request: web.Request) -> web.Response:
        return _pod_list(self._manager.pods())

    async def _running_pods(self, _request: web.Request) -> web.Response:
        """What the sandbox runs, as opposed to what the API server wants: names only, as the kubelet's."""
        found = []
        for worker in self._manager.workers.values():
            running = [c.record for c in worker.containers if c.record.running]
            if running:
                meta = worker.pod["metadata"]
                found.append(
                    {
                        "metadata": {key: meta[key] for key in ("name", "namespace", "uid")},
                        "spec": {"containers": [{"name": c.name, "image": c.image} for c in running]},
                        "status": {},
                    }
                )
        return _pod_list(sorted(found, key=podspec.key))

    async def _configz(self, _request: web.Request) -> web.Response:
        return _json({"kubeletconfig": configz.of(self._config)})


def _pod_list(items: list[Json]) -> web.Response:
    return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})


def _json(body: Json) -> web.Response:
    import orjson

    return web.Response(body=orjson.dumps(body), content_type="application/json")


async def _logs(_request: web.Request) -> web.Response:
    return web.Response(status=405, text=_DISABLED)


def _refuse(what: str, why: str) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=501, text=f"{what} is not possible on this node: {why}\n")

    return handler
