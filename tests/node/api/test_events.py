from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.node.fakeapi import FakeApi, eventually, ok, status
from wasmlab.node.api import events
from wasmlab.node.api.events import NORMAL, WARNING, Recorder, TokenBucket

POD = {"metadata": {"name": "p", "namespace": "ns", "uid": "u-1"}}


def test_the_bucket_lets_a_burst_through_and_then_a_rate() -> None:
    bucket = TokenBucket(rate=10, burst=3)
    assert [bucket.take(0.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(0.0) == pytest.approx(0.1)
    assert bucket.take(0.0) == pytest.approx(0.2)
    assert bucket.take(10.0) == 0


async def accept(request: web.Request) -> web.Response:
    return ok({})


@contextlib.asynccontextmanager
async def recording(handler: Any = accept, **options: Any) -> AsyncIterator[tuple[Recorder, FakeApi]]:
    fake = FakeApi(handler)
    async with fake as api:
        recorder = Recorder(api, "n1", **{"delay_s": 0.01, **options})
        task = asyncio.create_task(recorder.run())
        try:
            yield recorder, fake
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_an_event_says_who_what_and_where() -> None:
    async with recording() as (recorder, fake):
        recorder.pod(POD, NORMAL, "Pulled", "got it", "c")
        await eventually(lambda: len(fake.seen) == 1)
        method, path, body = fake.seen[0]
        assert (method, path) == ("POST", "/api/v1/namespaces/ns/events")
        assert body["involvedObject"]["uid"] == "u-1"
        assert body["involvedObject"]["fieldPath"] == "spec.containers{c}"
        assert (body["type"], body["reason"], body["message"]) == ("Normal", "Pulled", "got it")
        assert body["source"] == {"component": "wasmlab-node", "host": "n1"}


async def test_equal_events_are_folded_before_and_after_they_were_written() -> None:
    async with recording() as (recorder, fake):
        for _ in range(3):
            recorder.pod(POD, WARNING, "BackOff", "again", "c")
        await eventually(lambda: len(fake.seen) == 1)
        assert fake.seen[0][2]["count"] == 3
        recorder.pod(POD, WARNING, "BackOff", "again", "c")
        await eventually(lambda: len(fake.seen) == 2)
        assert fake.seen[1][0] == "PATCH"
        assert fake.seen[1][2]["count"] == 4


async def test_an_expired_event_is_written_anew() -> None:
    async def handler(request: web.Request) -> web.Response:
        return status(404, "NotFound") if request.method == "PATCH" else ok({})

    async with recording(handler) as (recorder, fake):
        recorder.pod(POD, NORMAL, "Pulled", "x")
        await eventually(lambda: len(fake.seen) == 1)
        recorder.pod(POD, NORMAL, "Pulled", "x")
        await eventually(lambda: len(fake.seen) == 3)
        assert [m for m, _, _ in fake.seen] == ["POST", "PATCH", "POST"]


async def test_the_queue_is_bounded_and_warnings_stay_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_QUEUE", 10)
    async with recording(delay_s=0.2) as (recorder, fake):
        recorder.pod(POD, WARNING, "Failed", "the one that matters")
        for i in range(50):
            recorder.pod(POD, NORMAL, "Pulled", f"{i}")
        await eventually(lambda: len(fake.seen) == 10)
        assert recorder.dropped == 41
        assert "the one that matters" in [body["message"] for _, _, body in fake.seen]


async def test_the_rate_is_kept() -> None:
    async with recording(rate=20, burst=2) as (recorder, fake):
        began = time.monotonic()
        for i in range(30):
            recorder.pod(POD, NORMAL, "Pulled", f"{i}")
        await eventually(lambda: len(fake.seen) >= 12)
        # Two at once, then twenty a second at most; how much slower is the machine's business.
        assert time.monotonic() - began >= 0.9 * (12 - 2) / 20


async def test_under_load_events_wait_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = True
    monkeypatch.setattr(events, "_PATIENCE_S", 0.5)
    async with recording(loaded=lambda: busy) as (recorder, fake):
        began = time.monotonic()
        recorder.pod(POD, NORMAL, "Pulled", "one")
        await eventually(lambda: len(fake.seen) == 1)
        assert time.monotonic() - began >= 0.5
        recorder.pod(POD, NORMAL, "Pulled", "two")
        busy = False
        await eventually(lambda: len(fake.seen) == 2)


async def test_a_long_message_is_cut_to_what_the_api_takes() -> None:
    async with recording() as (recorder, fake):
        recorder.pod(POD, NORMAL, "Pulled", "ä" * 2000)
        await eventually(lambda: len(fake.seen) == 1)
        assert len(fake.seen[0][2]["message"].encode()) <= 1024


async def test_events_wait_for_an_api_server_that_is_away() -> None:
    async with recording() as (recorder, fake):
        server = recorder._api.server
        recorder._api.server = "http://127.0.0.1:9"
        recorder.pod(POD, NORMAL, "Pulled", "kept")
        await asyncio.sleep(0.1)
        recorder._api.server = server
        await eventually(lambda: len(fake.seen) == 1)


async def test_warnings_go_first_and_do_not_wait_for_load() -> None:
    async with recording(loaded=lambda: True, delay_s=0.05) as (recorder, fake):
        recorder.pod(POD, NORMAL, "Pulled", "one")
        recorder.pod(POD, WARNING, "Failed", "two")
        await eventually(lambda: len(fake.seen) == 1)
        assert fake.seen[0][2]["message"] == "two"


async def test_a_namespace_that_goes_takes_its_events_along() -> None:
    async with recording(delay_s=0.1) as (recorder, fake):

        async def refuse(request: web.Request) -> web.Response:
            return status(404, "NotFound")

        fake.handler = refuse
        for i in range(20):
            recorder.pod(POD, NORMAL, "Pulled", f"{i}")
        await eventually(lambda: len(fake.seen) == 1)
        other = {"metadata": {**POD["metadata"], "namespace": "other"}}
        recorder.pod(other, NORMAL, "Pulled", "mine")
        await eventually(lambda: len(fake.seen) == 2)
        assert "/namespaces/other/" in fake.seen[1][1]
