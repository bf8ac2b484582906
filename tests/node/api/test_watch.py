"""The reflector against an API server that closes, expires, breaks, refuses and comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import yaml
from aiohttp import web

from tests.node.fakeapi import FakeApi, eventually, ok, status
from wasmlab.node.api.watch import Reflector


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}}


def line(kind: str, item: dict[str, Any]) -> bytes:
    return orjson.dumps({"type": kind, "object": item}) + b"\n"


class Script:
    """Plays one list answer and one watch answer after the other; the last ones again and again."""

    def __init__(self, lists: list[Any], watches: list[Any]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[dict[str, str]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            step = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
            return step if isinstance(step, web.Response) else ok(step)
        self.asked.append(dict(request.query))
        step = self.watches.pop(0) if len(self.watches) > 1 else self.watches[0]
        if isinstance(step, web.Response):
            return step
        response = web.StreamResponse()
        await response.prepare(request)
        for part in step:
            if part == "break":
                request.transport.abort()  # type: ignore[union-attr]
                return response
            if part == "hang":
                await asyncio.sleep(30)
            else:
                await response.write(part)
                await asyncio.sleep(0.01)
        return response


@contextlib.asynccontextmanager
async def following(script: Script) -> AsyncIterator[tuple[Reflector, list[Any]]]:
    seen: list[Any] = []
    async with FakeApi(script) as api:
        reflector = Reflector(
            api,
            "/api/v1/pods",
            "spec.nodeName=n",
            lambda items: seen.append(sorted(i["metadata"]["name"] for i in items)),
            lambda kind, item: seen.append((kind, item["metadata"]["name"])),
        )
        task = asyncio.create_task(reflector.run())
        try:
            yield reflector, seen
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def listing(version: int, *names: str) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version)}, "items": [pod(n, 1) for n in names]}


async def test_a_closed_watch_goes_on_where_it_was_without_a_new_list() -> None:
    script = Script(
        [listing(5, "a")], [[line("ADDED", pod("b", 6))], [line("MODIFIED", pod("b", 9)), "hang"]]
    )
    async with following(script) as (reflector, seen):
        await eventually(lambda: ("MODIFIED", "b") in seen)
        assert seen == [["a"], ("ADDED", "b"), ("MODIFIED", "b")]
        assert [q["resourceVersion"] for q in script.asked] == ["5", "6"]
        assert script.asked[0]["fieldSelector"] == "spec.nodeName=n"
        assert reflector.lists == 1


async def test_bookmarks_move_the_place_and_are_not_shown() -> None:
    script = Script([listing(5)], [[line("BOOKMARK", pod("", 50))], ["hang"]])
    async with following(script) as (_, seen):
        await eventually(lambda: len(script.asked) == 2)
        assert script.asked[1]["resourceVersion"] == "50"
        assert seen == [[]]


async def test_410_lists_again_and_tells_what_is_gone() -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    script = Script([listing(5, "a", "b"), listing(90, "b")], [[line("ERROR", gone)], ["hang"]])
    async with following(script) as (reflector, seen):
        await eventually(lambda: len(script.asked) == 2)
        assert seen == [["a", "b"], ["b"]]
        assert script.asked[1]["resourceVersion"] == "90"
        assert reflector.lists == 2


async def test_410_as_the_answer_itself() -> None:
    script = Script([listing(5), listing(7)], [status(410, "Expired"), ["hang"]])
    async with following(script) as (reflector, _):
        await eventually(lambda: len(script.asked) == 2)
        assert reflector.lists == 2


async def test_a_broken_connection_in_the_middle_of_an_event_loses_nothing() -> None:
    whole = line("ADDED", pod("b", 6))
    script = Script([listing(5)], [[whole[:20], "break"], [whole, "hang"]])
    async with following(script) as (reflector, seen):
        await eventually(lambda: ("ADDED", "b") in seen)
        assert seen.count(("ADDED", "b")) == 1
        assert [q["resourceVersion"] for q in script.asked] == ["5", "5"]
        assert reflector.lists == 1


async def test_events_split_over_reads_and_many_in_one() -> None:
    one = line("ADDED", pod("b", 6)) + line("ADDED", pod("c", 7)) + line("DELETED", pod("b", 8))
    script = Script([listing(5)], [[one[:5], one[5:60], one[60:], "hang"]])
    async with following(script) as (_, seen):
        await eventually(lambda: len(seen) == 4)
        assert seen[1:] == [("ADDED", "b"), ("ADDED", "c"), ("DELETED", "b")]


async def test_a_very_long_event() -> None:
    big = pod("big", 6)
    big["data"] = "x" * 1_000_000
    script = Script([listing(5)], [[line("ADDED", big), "hang"]])
    async with following(script) as (_, seen):
        await eventually(lambda: ("ADDED", "big") in seen)


async def test_an_api_server_that_refuses_at_first() -> None:
    script = Script([status(403, "Forbidden"), status(500, "InternalError"), listing(5, "a")], [["hang"]])
    async with following(script) as (reflector, seen):
        await eventually(reflector.synced.is_set)
        assert seen == [["a"]]


async def test_a_consumer_that_fails_does_not_end_the_hearing() -> None:
    script = Script([listing(5)], [[line("ADDED", pod("bad", 6)), line("ADDED", pod("good", 7)), "hang"]])
    async with following(script) as (reflector, seen):
        real = reflector.on_event

        def picky(kind: str, item: dict[str, Any]) -> None:
            if item["metadata"]["name"] == "bad":
                reflector.on_event = real
                raise ValueError("a bug")
            real(kind, item)

        reflector.on_event = picky
        await eventually(lambda: ("ADDED", "good") in seen)


async def test_an_api_server_that_moved_is_found_where_the_kubeconfig_says(tmp_path: Path) -> None:
    script = Script([{"metadata": {"resourceVersion": "7"}, "items": [pod("a", 5)]}], [["hang"]])
    async with following(script) as (reflector, seen):
        await eventually(lambda: seen != [])
        real = reflector.api.server
        kubeconfig = tmp_path / "kubeconfig"
        reflector.api.kubeconfig = kubeconfig
        assert not reflector.api.follow()  # there is no such file: nothing to go by
        reflector.api.server = "http://127.0.0.1:9"
        reflector.version = None
        lists = reflector.lists
        content = {
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": f"{real}/"}}],
            "current-context": "c",
        }
        kubeconfig.write_text(yaml.safe_dump(content))
        other = asyncio.create_task(reflector.run())  # the watch of the first one hangs
        try:
            await eventually(lambda: reflector.lists > lists)
            assert reflector.api.server == real
        finally:
            other.cancel()
