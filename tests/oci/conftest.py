"""The registry in memory, and one harness for both faces of the client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oci.fake_registry import FakeRegistry
from wasmlab.oci.client import AsyncClient, Client
from wasmlab.oci.protocol import Timeouts

OLD = b"\0asm\x01\0\0\0 the old one"
QUICK = Timeouts(connect_s=0.5, read_s=0.5, total_s=10.0)
MODULE = b"\0asm\x01\0\0\0" + bytes(range(256)) * 40


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry().start()
    yield fake
    fake.stop()


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "module.wasm"
    path.write_bytes(MODULE)
    return path


class Face:
    """Calls a client method by name, through the synchronous or the asynchronous face."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, method: str, *args: Any, timeout: Timeouts | None = None, **options: Any) -> Any:
        client_options = {
            key: options.pop(key)
            for key in ("credentials", "plain_http", "insecure", "ca_file")
            if key in options
        }
        client_options["timeout"] = timeout
        if self.kind == "sync":
            return getattr(Client(**client_options), method)(*args, **options)

        async def main() -> Any:
            async with AsyncClient(**client_options) as client:
                return await getattr(client, method)(*args, **options)

        return asyncio.run(main())


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts; the real ones add up to seconds per case."""
    monkeypatch.setattr("wasmlab.oci.answers._BACKOFF_S", (0.02, 0.03))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "target" / "out.wasm"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def untouched(out: Path) -> bool:
    """The old file is as it was, and nothing lies beside it."""
    return out.read_bytes() == OLD and os.listdir(out.parent) == [out.name]


def failing(times: int, answer: Any) -> Any:
    left = [times]

    def before(handler: Any) -> bool:
        if left[0] <= 0:
            return False
        left[0] -= 1
        answer(handler)
        return True

    return before
