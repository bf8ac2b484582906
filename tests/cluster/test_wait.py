"""Waiting: closed watches, lost versions, restarts of the server, and always a deadline."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from wasmlab.cluster.rest import Unreachable
from wasmlab.cluster.wait import wait_for
from wasmlab.errors import ClusterError, NotReady


def pod(phase: str) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": {"phase": phase}}


class Server:
    """An API server by script: each listing and each watch is the next entry; exceptions are raised."""

    def __init__(self, listings: list[Any], watches: list[Any]) -> None:
        self.listings = iter(listings)
        self.watches = iter(watches)
        self.lists = 0

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        self.lists += 1
        answer = next(self.listings)
        if isinstance(answer, Exception):
            raise answer
        return {"items": [] if answer is None else [answer], "metadata": {"resourceVersion": "1"}}

    def watch(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        for event in next(self.watches):
            if isinstance(event, Exception):
                raise event
            if isinstance(event, float):
                time.sleep(event)
            else:
                yield event


def succeeded(one: dict[str, Any] | None) -> bool:
    return one is not None and one["status"]["phase"] == "Succeeded"


def wait(server: Server, timeout_s: float = 60.0, **more: Any) -> Any:
    return wait_for(server, "/pods", "p", succeeded, timeout_s, what="pod p", **more)  # type: ignore[arg-type]


DONE = {"type": "MODIFIED", "object": pod("Succeeded")}


def test_the_listing_may_be_enough() -> None:
    server = Server([pod("Succeeded")], [])
    assert wait(server)["status"]["phase"] == "Succeeded"


def test_an_event_is_seen() -> None:
    server = Server(
        [None], [[{"type": "BOOKMARK", "object": {}}, {"type": "ADDED", "object": pod("Pending")}, DONE]]
    )
    assert wait(server) == pod("Succeeded")


def test_a_closed_watch_is_opened_again_and_what_happened_between_is_seen() -> None:
    server = Server([pod("Pending"), pod("Succeeded")], [[]])
    wait(server)
    assert server.lists == 2


def test_a_version_too_old_is_listed_anew() -> None:
    gone = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}
    server = Server([pod("Pending"), pod("Pending")], [[gone], [DONE]])
    wait(server)
    assert server.lists == 2


def test_a_restart_of_the_server_is_survived() -> None:
    server = Server(
        [pod("Pending"), Unreachable("refused"), pod("Pending")], [[Unreachable("reset")], [DONE]]
    )
    wait(server)
    assert server.lists == 3


def test_a_refusal_for_good_is_not_waited_out() -> None:
    server = Server([ClusterError("forbidden", status=403)], [])
    with pytest.raises(ClusterError, match="forbidden"):
        wait(server)
    assert server.lists == 1


def test_the_deadline_holds_and_says_what_was_seen() -> None:
    server = Server(itertools.repeat(pod("Pending")), itertools.repeat([0.05]))  # type: ignore[arg-type]
    started = time.monotonic()
    with pytest.raises(NotReady, match="BackOff: no such image") as caught:
        wait(server, 0.3, events=lambda: ["BackOff: no such image"])  # the server alone would go on for ever
    assert time.monotonic() - started >= 0.3
    assert caught.value.events == ["BackOff: no such image"]
    assert caught.value.last == pod("Pending")
    assert isinstance(caught.value, TimeoutError)


def test_deletion_is_seen() -> None:
    server = Server([pod("Running")], [[{"type": "DELETED", "object": pod("Running")}]])
    assert wait_for(server, "/pods", "p", lambda one: one is None, 5, what="gone") is None  # type: ignore[arg-type]
