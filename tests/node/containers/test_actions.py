"""What probes and hooks do: URLs, ports and instances, and the kubelet's words for what came of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from grpclib.const import Status

from tests.node.healthkit import Health, serving
from wasmlab.node.containers import actions, hooks, instances
from wasmlab.node.containers.actions import Failed, Result, Verdict
from wasmlab.sandbox import Outcome

NODE: Any = SimpleNamespace(config=SimpleNamespace(pod_address="127.0.0.1"), runtime=None)


def container(**spec: Any) -> Any:
    return SimpleNamespace(spec=spec, record=SimpleNamespace(name="c"))


async def probe(handler: dict[str, Any], timeout_s: float | None = 10.0, **spec: Any) -> Result:
    return await actions.perform(NODE, container(**spec), handler, purpose="probe", timeout_s=timeout_s)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server: /<code> answers with it, /to?<url> redirects, /slow takes for ever."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(60)
        if request.path == "/to":
            return web.Response(status=302, headers={"Location": request.query_string}, text="over there")
        return web.Response(status=int(request.path[1:]), text="x" * 20_000)

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
def closed() -> Any:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    ("path", "verdict", "output"),
    [
        ("/200", Verdict.SUCCESS, "x" * 10_240),  # so much of a body is kept, and no more
        ("/204", Verdict.SUCCESS, ""),
        ("/404", Verdict.FAILURE, "HTTP probe failed with statuscode: 404"),
        ("/500", Verdict.FAILURE, "HTTP probe failed with statuscode: 500"),
        ("/to?/503", Verdict.FAILURE, "HTTP probe failed with statuscode: 503"),
        (
            "/to?http://elsewhere.invalid/",
            Verdict.WARNING,
            "Probe terminated redirects, Response body: over there",
        ),
    ],
)
async def test_http(port: int, path: str, verdict: Verdict, output: str) -> None:
    assert await probe({"httpGet": {"port": port, "path": path}}) == Result(verdict, output)


async def test_http_that_goes_round_in_circles(port: int) -> None:
    result = await probe({"httpGet": {"port": port, "path": "/to?/to?/to"}})
    assert result.verdict is Verdict.FAILURE
    assert "stopped after 10 redirects" in result.output


async def test_http_where_nobody_answers_in_time(port: int, closed: int) -> None:
    slow = await probe({"httpGet": {"port": port, "path": "/slow"}}, 0.2)
    assert slow.verdict is Verdict.FAILURE
    assert "context deadline exceeded" in slow.output
    nobody = await probe({"httpGet": {"port": closed}})
    assert nobody.output == (
        f'Get "http://127.0.0.1:{closed}/": dial tcp 127.0.0.1:{closed}: connect: connection refused'
    )


async def test_https_that_is_none(port: int) -> None:
    result = await probe({"httpGet": {"port": port, "path": "/200", "scheme": "HTTPS"}})
    assert result.verdict is Verdict.FAILURE
    assert result.output.startswith(f'Get "https://127.0.0.1:{port}/200": ')


async def test_tcp(port: int, closed: int) -> None:
    assert await probe({"tcpSocket": {"port": port}}) == Result(Verdict.SUCCESS)
    refused = await probe({"tcpSocket": {"port": closed}})
    assert refused.output == f"dial tcp 127.0.0.1:{closed}: connect: connection refused"


async def test_grpc(port: int, closed: int) -> None:
    health = Health()
    health.states = {"": "SERVING", "ill": "NOT_SERVING", "slow": 60.0, "old": Status.UNIMPLEMENTED}
    with serving(health) as served:

        async def ask(service: str | None = None, timeout_s: float = 30.0) -> Result:
            return await probe({"grpc": {"port": served, "service": service}}, timeout_s)

        assert await ask() == await ask("") == Result(Verdict.SUCCESS, "service healthy")
        ill = Result(Verdict.FAILURE, 'service unhealthy (responded with "NOT_SERVING")')
        assert await ask("ill") == ill
        assert (await ask("none")).output == "error: health rpc probe failed: no none"
        assert (await ask("slow", 0.2)).output == "timeout: health rpc did not complete within 0.2s"
        unknown = (
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no old"
        )
        assert await ask("old") == Result(Verdict.FAILURE, unknown)
    refused = await probe({"grpc": {"port": closed}})
    said = f'error: failed to connect service at "127.0.0.1:{closed}": dial tcp 127.0.0.1:{closed}: connect: '
    assert refused == Result(Verdict.FAILURE, f"{said}connection refused")
    # A server of another protocol gives no answer, or one that means nothing.
    assert (await probe({"grpc": {"port": port}}, 2.0)).verdict is Verdict.FAILURE


async def test_what_cannot_be_tried_says_nothing_of_the_container() -> None:
    with pytest.raises(Failed, match='port "web" not found'):
        await probe({"httpGet": {"port": "web"}})
    with pytest.raises(Failed, match="invalid handler: sleep"):
        await probe({"sleep": {"seconds": 1}})
    with pytest.raises(Failed, match="invalid handler: tcpSocket"):  # a probe may, a hook may not
        await actions.perform(NODE, container(), {"tcpSocket": {"port": 1}}, purpose="lifecycle", timeout_s=1)


@pytest.mark.parametrize(
    ("outcome", "output", "expected"),
    [
        (Outcome(0), b"fine", Result(Verdict.SUCCESS, "fine")),
        (Outcome(1), b"no /v\n", Result(Verdict.FAILURE, "no /v\n")),
        (Outcome(1), b"", Result(Verdict.FAILURE, "exit code 1")),
        (Outcome(None, "unreachable", "it trapped"), b"", Result(Verdict.FAILURE, "it trapped")),
        (None, b"", Result(Verdict.FAILURE, 'command timed out: "a b" timed out after 10s')),
    ],
)
async def test_exec(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome | None, output: bytes, expected: Result
) -> None:
    async def run(*_: Any, **__: Any) -> instances.Answer:
        return instances.Answer(outcome, output)

    monkeypatch.setattr(instances, "run", run)
    assert await probe({"exec": {"command": ["a", "b"]}}) == expected


async def test_an_instance_that_could_not_begin_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*_: Any, **__: Any) -> instances.Answer:
        return instances.Answer(Outcome(None, "lost", "the zygote died"), b"")

    monkeypatch.setattr(instances, "run", run)
    with pytest.raises(Failed, match="the zygote died"):
        await probe({"exec": {"command": ["a"]}})


async def test_hooks_say_what_failed(monkeypatch: pytest.MonkeyPatch, port: int, closed: int) -> None:
    async def run(*_: Any, **__: Any) -> instances.Answer:
        return instances.Answer(Outcome(3), b"oh")

    monkeypatch.setattr(instances, "run", run)

    async def hook(handler: dict[str, Any]) -> str:
        return await hooks.run(NODE, container(), handler, "p_ns(uid)")

    assert await hook({"sleep": {"seconds": 0}}) == ""
    said = await hook({"exec": {"command": ["a", "b"]}})
    assert said.startswith('Exec lifecycle hook ([a b]) for Container "c" in Pod "p_ns(uid)" failed')
    assert said.endswith('message: "oh"')
    # That it answers is enough: the status code is the module's business.
    assert await hook({"httpGet": {"port": port, "path": "/500"}}) == ""
    said = await hook({"httpGet": {"port": closed, "path": "/x"}})
    assert said.startswith('HTTP lifecycle hook (/x) for Container "c"')
    assert "connection refused" in said
    assert "Cannot run handler: invalid handler: tcpSocket" in await hook({"tcpSocket": {"port": port}})


def test_where_hooks_are() -> None:
    spec = {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}
    assert hooks.of(spec, "preStop") == {"sleep": {"seconds": 1}}
    assert hooks.of(spec, "postStart") is None
    assert hooks.of({}, "postStart") is None
