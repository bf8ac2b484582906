"""An API server that does what a test tells it: for faults that a real one does not produce on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from wasmlab.node.api.kubeapi import KubeApi

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeApi:
    """Answers with `handler`; keeps every request as (method, path, body)."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.seen: list[tuple[str, str, Any]] = []

    async def __aenter__(self) -> KubeApi:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._api = KubeApi(f"http://127.0.0.1:{self.port}", None)
        return self._api

    async def __aexit__(self, *_: object) -> None:
        await self._api.aclose()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.seen.append((request.method, request.path_qs, orjson.loads(raw) if raw else None))
        return await self.handler(request)


def ok(body: Any) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def status(code: int, reason: str, message: str = "said so") -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.Response(status=code, body=orjson.dumps(body), content_type="application/json")


async def eventually(probe: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not probe():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.005)
