"""What the node says of itself when the sandbox stops working, comes back, or the node leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.node.fakeapi import FakeApi, ok
from wasmlab.node.config import NodeConfig
from wasmlab.node.membership import registration


class Node:
    def __init__(self, path: Path) -> None:
        self.config = NodeConfig(
            kubeconfig=path / "k", dir=path, node_name="n", eviction_hard="memory.available<1Ki"
        )
        self.problem = ""
        self.pressed: list[Mapping[str, str]] = []
        self.status: dict[str, Any] = {}
        self.api = FakeApi(self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        _, _, body = self.api.seen[-1]
        if body and "status" in body:
            self.status = body["status"]
        return ok({"metadata": {"uid": "u"}, "status": self.status})

    async def probe(self) -> str:
        return self.problem

    def ready(self) -> tuple[str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == "Ready")
        return found["status"], found["message"]

    def reports(self) -> int:
        return sum(path.endswith("/status") for _, path, _ in self.api.seen)


async def test_readiness_follows_the_sandbox_at_once_and_only_then(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.api as api:
        facts = registration.facts(node.config, 1, ("wasmtime",))
        one = registration.Registration(
            node.config, api, facts, probe=node.probe, pressed=node.pressed.append
        )
        await one.register()
        assert node.ready()[0] == "True"
        told = node.reports()
        await one._check()
        assert node.reports() == told  # nothing has changed: no write
        node.problem = "no zygote"
        await one._check()
        assert node.ready() == ("False", "no zygote")
        await one._check()
        assert node.reports() == told + 1
        node.problem = ""
        await one._check()
        assert node.ready()[0] == "True"
        assert node.pressed == [{}] * 4
        # Who says otherwise in our name (the controller, while we were away) is corrected.
        node.status["conditions"][-1]["status"] = "Unknown"
        await one._check()
        assert node.ready()[0] == "True"


async def test_a_node_that_leaves_stays_not_ready(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.api as api:
        one = registration.Registration(
            node.config, api, registration.facts(node.config, 1, ()), probe=node.probe
        )
        await one.register()
        await one.leave("node is shutting down")
        assert node.ready() == ("False", "node is shutting down")
        await one._check()
        assert node.ready() == ("False", "node is shutting down")
