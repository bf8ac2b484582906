"""A sandbox, a registry and an API server that a test plays, and a node's pods between them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.node.fakeapi import FakeApi, ok
from wasmlab.node.api.events import Recorder
from wasmlab.node.config import Intervals, NodeConfig
from wasmlab.node.containers.services import Services
from wasmlab.node.pods.manager import PodManager
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.status.spans import SpanLog
from wasmlab.sandbox import Outcome

CODES = {signal.SIGTERM: 143, signal.SIGKILL: 137}


class FakeRun:
    def __init__(self, stubborn: bool = False) -> None:
        self.future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.stubborn = stubborn
        self.signals: list[int] = []

    @property
    def done(self) -> bool:
        return self.future.done()

    def end(self, code: int | None = 0, trap: str | None = None, message: str = "") -> None:
        now = time.time()
        self.future.set_result(Outcome(code, trap, message, started_at=now, finished_at=now))

    async def wait(self) -> Outcome:
        return await asyncio.shield(self.future)

    async def kill(self, number: int) -> None:
        self.signals.append(number)
        if not self.done and not (self.stubborn and number == signal.SIGTERM):
            self.end(CODES[signal.Signals(number)])


class FakeRuntime:
    """`gate` holds back starts; `records` are runs of an earlier agent."""

    names = ("wasmtime", "wasmer")

    def __init__(self) -> None:
        self.asked = 0  # for starts, those that the gate holds back included
        self.started: list[str] = []
        self.runs: dict[str, FakeRun] = {}
        self.forgotten: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.stubborn = False

    async def prepare(self, engine: str, spec: Any) -> Path:
        return Path("/artifact")

    async def start(
        self, engine: str, run_id: RunId, spec: Any, artifact: Path, log_path: Path, *, stdin: Any = ()
    ) -> FakeRun:
        self.asked += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        assert str(run_id) not in self.runs, "started twice"
        self.started.append(str(run_id))
        self.runs[str(run_id)] = FakeRun(self.stubborn)
        return self.runs[str(run_id)]

    def recorded_spec(self, run_id: RunId) -> Any:
        raise KeyError(run_id)

    async def attach(self, engine: str, run_id: RunId) -> FakeRun:
        return self.runs[str(run_id)]

    async def outcome(self, engine: str, run_id: RunId, run: FakeRun) -> Outcome:
        return await run.wait()

    def started_at(self, run_id: RunId) -> float | None:
        return None

    async def forget(self, engine: str, run_id: RunId) -> None:
        self.forgotten.append(str(run_id))


class FakeImages:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []

    async def ensure(self, pod: Any, container: Any, emit: Any) -> Any:
        from wasmlab.oci.store import StoredModule

        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return StoredModule(Path("/m.wasm"), "sha256:1", "sha256:2", False, 1, container["image"])


class Bench:
    def __init__(self, fake: FakeApi, services: Services, recorded: dict[RunId, str]) -> None:
        self.fake = fake
        self.runtime: Any = services.runtime
        self.images: Any = services.images
        self.manager = PodManager(services, recorded)

    def statuses(self) -> list[dict[str, Any]]:
        return [b["status"] for m, _, b in self.fake.seen if m == "PATCH" and b and "status" in b]

    def phase(self) -> str:
        found = self.statuses()
        return found[-1]["phase"] if found else ""

    def deleted(self) -> list[Any]:
        return [b for m, p, b in self.fake.seen if m == "DELETE"]

    @property
    def run(self) -> FakeRun:
        return list(self.runtime.runs.values())[-1]


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    @contextlib.asynccontextmanager
    async def make(recorded: dict[RunId, str] | None = None, **intervals: float) -> AsyncIterator[Bench]:
        async def accept(request: web.Request) -> web.Response:
            return ok({})

        config = NodeConfig(
            kubeconfig=tmp_path / "k",
            dir=tmp_path,
            node_name="n",
            intervals=Intervals(
                **{"backoff_base_s": 0.05, "backoff_cap_s": 0.2, "status_hold_s": 0.01, **intervals}
            ),
        )
        config.pods_dir.mkdir(exist_ok=True)
        fake = FakeApi(accept)
        async with fake as api:
            services = Services(
                config=config,
                api=api,
                images=FakeImages(),  # type: ignore[arg-type]
                runtime=FakeRuntime(),  # type: ignore[arg-type]
                recorder=Recorder(api, "n"),
                spans=SpanLog(tmp_path / "spans.jsonl"),
                gate=asyncio.Semaphore(4),
                hold_s=lambda: 0.01,
            )
            made = Bench(fake, services, recorded or {})
            yield made
            await made.manager.aclose(0.5)
            services.spans.close()

    return make


def pod(uid: str = "u", *, policy: str = "Never", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": uid, **more.pop("metadata", {})},
        "spec": {
            "restartPolicy": policy,
            "containers": [{"name": "c", "image": "r/x:1"}],
            **more.pop("spec", {}),
        },
        "status": {"phase": "Pending", **more.pop("status", {})},
    }


def leaving(made: dict[str, Any], grace_s: int = 1) -> dict[str, Any]:
    meta = {
        **made["metadata"],
        "deletionTimestamp": "2026-11-24T09:00:00Z",
        "deletionGracePeriodSeconds": grace_s,
    }
    return {**made, "metadata": meta}
