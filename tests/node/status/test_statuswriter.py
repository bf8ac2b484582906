"""Statuses: coalesced, in order, until written, and never to another pod of the same name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.node.fakeapi import FakeApi, Handler, eventually, ok, status
from wasmlab.node.status.statuswriter import Gone, StatusWriter, Urgency

POD = {"metadata": {"name": "p", "namespace": "ns", "uid": "u-1"}}


class Rig:
    def __init__(self) -> None:
        self.phase = "Pending"
        self.written: list[str] = []
        self.fake: FakeApi
        self.writer: StatusWriter

    @property
    def bodies(self) -> list[Any]:
        return [body for _, _, body in self.fake.seen]

    @property
    def phases(self) -> list[str]:
        return [body["status"]["phase"] for body in self.bodies]


@contextlib.asynccontextmanager
async def rig(handler: Handler, hold_s: float = 0.05) -> AsyncIterator[Rig]:
    made = Rig()
    made.fake = FakeApi(handler)
    async with made.fake as api:
        made.writer = StatusWriter(
            api,
            POD,
            lambda: {"phase": made.phase},
            hold_s=lambda: hold_s,
            gate=asyncio.Semaphore(2),
            on_written=lambda s: made.written.append(s["phase"]),
        )
        task = asyncio.create_task(made.writer.run())
        try:
            yield made
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def accept(request: web.Request) -> web.Response:
    return ok({})


async def test_a_short_life_is_one_write() -> None:
    async with rig(accept) as r:
        r.writer.want(Urgency.LAZY)
        r.phase = "Running"
        r.writer.want(Urgency.HELD)
        await asyncio.sleep(0.01)
        r.phase = "Succeeded"
        r.writer.want(Urgency.NOW)
        await r.writer.flushed()
        assert r.phases == ["Succeeded"]
        assert r.fake.seen[0][:2] == ("PATCH", "/api/v1/namespaces/ns/pods/p/status")
        assert r.bodies[0]["metadata"] == {"uid": "u-1"}


async def test_a_longer_life_shows_running_first() -> None:
    async with rig(accept, hold_s=0.02) as r:
        r.phase = "Running"
        r.writer.want(Urgency.HELD)
        await eventually(lambda: r.written == ["Running"])
        r.phase = "Succeeded"
        r.writer.want(Urgency.NOW)
        await r.writer.flushed()
        assert r.phases == ["Running", "Succeeded"]


async def test_nothing_is_written_twice() -> None:
    async with rig(accept) as r:
        for _ in range(3):
            r.writer.want(Urgency.NOW)
            await r.writer.flushed()
        assert r.phases == ["Pending"]


async def test_never_an_old_status_after_a_new_one() -> None:
    """While a slow write is under way the status changes twice: one more write, with the last."""
    gate = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await gate.wait()
        return ok({})

    async with rig(slow) as r:
        r.phase = "Running"
        r.writer.want(Urgency.NOW)
        await eventually(lambda: len(r.fake.seen) == 1)
        r.phase = "Failed"
        r.writer.want(Urgency.NOW)
        r.phase = "Succeeded"
        r.writer.want(Urgency.NOW)
        await asyncio.sleep(0.05)
        assert r.phases == ["Running"]  # one in flight, never two
        gate.set()
        await r.writer.flushed()
        assert r.phases == ["Running", "Succeeded"]


@pytest.mark.parametrize("code", [500, 503, 429, 403, 422])
async def test_refusals_that_may_pass_are_tried_again(code: int) -> None:
    answers = [status(code, "Nope"), ok({})]

    async def handler(request: web.Request) -> web.Response:
        return answers.pop(0)

    async with rig(handler) as r:
        r.phase = "Succeeded"
        r.writer.want(Urgency.NOW)
        await r.writer.flushed()
        assert r.phases == ["Succeeded", "Succeeded"]
        assert r.written == ["Succeeded"]


@pytest.mark.parametrize(("code", "reason"), [(404, "NotFound"), (409, "Conflict")])
async def test_a_pod_that_is_gone_or_another_one_is_let_be(code: int, reason: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return status(code, reason)

    async with rig(handler) as r:
        r.writer.want(Urgency.NOW)
        with pytest.raises(Gone):
            await r.writer.flushed()
        assert len(r.fake.seen) == 1


async def test_an_api_server_that_is_away_gets_the_latest_when_it_is_back() -> None:
    async with rig(accept) as r:
        server = r.writer._api.server
        r.writer._api.server = "http://127.0.0.1:9"
        r.phase = "Running"
        r.writer.want(Urgency.NOW)
        await asyncio.sleep(0.1)
        r.phase = "Succeeded"
        r.writer.want(Urgency.NOW)
        r.writer._api.server = server
        await asyncio.wait_for(r.writer.flushed(), 5)
        assert r.phases == ["Succeeded"]
