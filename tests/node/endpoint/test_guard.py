"""The guard before an API server that says what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.node.fakeapi import FakeApi, ok, status
from wasmlab.node.endpoint import guard
from wasmlab.node.endpoint.guard import Guard, Remembered

BEARER = {"Authorization": "Bearer good"}


class Authority:
    """Knows one token; allows what is in `allowed`."""

    def __init__(self) -> None:
        self.allowed = {"metrics"}
        self.down = False
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.down:
            return status(500, "InternalError")
        body = await request.json()
        self.asked.append(body["kind"])
        if body["kind"] == "TokenReview":
            good = body["spec"]["token"] == "good"
            return ok({"status": {"authenticated": good, "user": {"username": "jane"} if good else {}}})
        return ok({"status": {"allowed": body["spec"]["resourceAttributes"]["subresource"] in self.allowed}})


class Lab:
    def __init__(self, client: Any, authority: Authority) -> None:
        self.client, self.authority, self.now = client, authority, 0.0

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        answer = await self.client.get(path, headers=BEARER if headers is None else headers)
        return answer.status, await answer.text()


@pytest.fixture
async def lab(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setattr(guard, "_RETRIES_S", (0.0, 0.0))
    authority = Authority()

    async def in_(_request: web.Request) -> web.Response:
        return web.Response(text="in")

    async with FakeApi(authority.handle) as api:
        one = Lab(None, authority)
        app = web.Application(middlewares=[Guard(api, "n1", now=lambda: one.now).middleware])
        app.router.add_get("/{rest:.*}", in_)
        async with TestClient(TestServer(app)) as client:
            one.client = client
            yield one


async def test_who_may_comes_in_and_the_answers_are_remembered(lab: Lab) -> None:
    for _ in range(3):
        assert await lab.get("/metrics") == (200, "in")
    assert lab.authority.asked == ["TokenReview", "SubjectAccessReview"]
    lab.now = guard.TOKEN_TTL_S + 1  # the permission is good for longer than the token
    assert (await lab.get("/metrics"))[0] == 200
    assert lab.authority.asked == ["TokenReview", "SubjectAccessReview", "TokenReview"]
    lab.now = guard.ALLOWED_TTL_S + 1
    lab.authority.allowed = set()
    assert (await lab.get("/metrics"))[0] == 403


async def test_a_refusal_is_remembered_for_less_long(lab: Lab) -> None:
    assert (await lab.get("/stats/summary"))[0] == 403
    lab.authority.allowed.add("stats")
    lab.now = guard.DENIED_TTL_S - 1
    assert (await lab.get("/stats/summary"))[0] == 403
    lab.now = guard.DENIED_TTL_S + 1
    assert (await lab.get("/stats/summary"))[0] == 200


async def test_any_one_of_the_subresources_is_enough(lab: Lab) -> None:
    lab.authority.allowed = {"proxy"}
    assert (await lab.get("/pods"))[0] == 200
    lab.authority.allowed = {"pods"}
    lab.now = guard.ALLOWED_TTL_S + 1
    assert (await lab.get("/pods"))[0] == 200
    assert (await lab.get("/containerLogs/a/b/c"))[0] == 403


async def test_nobody_is_asked_about_nobody(lab: Lab) -> None:
    assert await lab.get("/metrics", {}) == (401, "Unauthorized")
    assert lab.authority.asked == []
    assert await lab.get("/metrics", {"Authorization": "Bearer bad"}) == (401, "Unauthorized")
    assert await lab.get("/metrics", {"Authorization": "Bearer bad"}) == (401, "Unauthorized")
    assert lab.authority.asked == ["TokenReview"]


async def test_an_api_server_that_is_down_lets_nobody_in_and_is_asked_again(lab: Lab) -> None:
    lab.authority.down = True
    assert await lab.get("/metrics") == (401, "Unauthorized")
    lab.authority.down = False
    assert (await lab.get("/metrics"))[0] == 200
    lab.now = guard.ALLOWED_TTL_S - 1
    assert (await lab.get("/metrics"))[0] == 200  # the token is asked for anew, the permission is known
    lab.authority.down = True
    code, text = await lab.get("/stats/summary")
    assert (code, text) == (
        500,
        "Authorization error (user=jane, verb=get, resource=nodes, subresource=stats)\n",
    )


async def test_those_who_ask_at_once_share_one_question() -> None:
    asked = []
    go = asyncio.Event()

    async def ask(key: str) -> str:
        asked.append(key)
        await go.wait()
        return key.upper()

    answers: Remembered[str, str] = Remembered(ask, lambda _: 10.0)
    tasks = [asyncio.create_task(answers.get("a")) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # who asked first may leave
    go.set()
    assert await asyncio.gather(*tasks[1:]) == ["A"] * 4
    assert asked == ["a"]


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_CACHED", 3)
    asked = []

    async def ask(key: int) -> int:
        asked.append(key)
        return key

    answers: Remembered[int, int] = Remembered(ask, lambda _: 10.0)
    for key in (1, 2, 3, 1, 4):  # 2 is the one not used for longest
        await answers.get(key)
    for key in (1, 3, 4, 2):
        await answers.get(key)
    assert asked == [1, 2, 3, 4, 2]
