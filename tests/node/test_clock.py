"""The wall clock may be stepped, and the disk may be full: nothing that a pod waits for hangs on either."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from wasmlab.node.api.events import Recorder
from wasmlab.node.runtime import rotation
from wasmlab.node.runtime.rotation import rotate, rotated
from wasmlab.node.status.spans import PodSpans, SpanLog


@pytest.mark.parametrize("step_s", [-3600, -1, 3600])
async def test_the_youngest_log_stays_the_youngest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    path = tmp_path / "c.0.log"
    now = time.time()

    async def reopen() -> None:
        path.write_text("")

    for number in range(8):
        monkeypatch.setattr(rotation.time, "time", lambda n=number: now + n + (step_s if n >= 5 else 0))
        path.write_text(f"{number}")
        await rotate(path, reopen)
    kept = [one.read_text() for one in rotated(path)]
    # Within one second there is no second rotation; what was rotated is kept in its order, the youngest of it.
    written = [text for text in kept if text]
    assert written == sorted(written)
    assert written[-1] in ("6", "7")
    assert len(kept) == 4


def test_a_full_disk_drops_spans_and_nothing_else(tmp_path: Path) -> None:
    spans = SpanLog(tmp_path / "spans.jsonl")
    full = os.open("/dev/full", os.O_WRONLY)
    kept = os.dup(spans._file.fileno())
    try:
        os.dup2(full, spans._file.fileno())
        spans.write(uid="u", namespace="n", name="p", engine="wasmtime", spans=PodSpans())
        assert spans.dropped == 1
        os.dup2(kept, spans._file.fileno())
        spans.write(uid="v", namespace="n", name="p", engine="wasmtime", spans=PodSpans())
    finally:
        os.close(full)
        os.close(kept)
        spans.close()
    lines = (tmp_path / "spans.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert '"uid":"v"' in lines[0]


async def test_events_wait_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []

    class Api:
        async def create(self, path: str, body: Any) -> None:
            written.append(body)

    recorder = Recorder(Api(), "n", delay_s=0.0, loaded=lambda: True)  # type: ignore[arg-type]
    monkeypatch.setattr("wasmlab.node.api.events._PATIENCE_S", 0.2)
    real = time.time
    monkeypatch.setattr("wasmlab.node.api.events.time.time", lambda: real() + 86400)
    recorder.node("Normal", "Reason", "message")
    monkeypatch.setattr("wasmlab.node.api.events.time.time", real)  # the clock was set back by a day
    running = asyncio.create_task(recorder.run())
    try:
        async with asyncio.timeout(10):
            while not written:  # noqa: ASYNC110 (what is waited for has no event)
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
