"""Events reach a containerd that is there, slow, restarted or gone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.shim.pod import Events
from wasmlab.sandbox.loop import Loop
from wasmlab.shim import events
from wasmlab.shim.events import Publisher, timestamp
from wasmlab.shim.pb import events_pb2


def until(loop: Loop, check, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline
        loop.ending = False
        loop.after(0.02, lambda: setattr(loop, "ending", True))
        loop.run()


def publish(publisher: Publisher, *pids: int) -> None:
    for pid in pids:
        publisher.publish(events_pb2.TaskStart(container_id="box", pid=pid))


def pids(listener: Events) -> list[int]:
    return [event.pid for _, event in listener.seen]


def test_in_order(tmp_path: Path):
    loop, listener = Loop(tolerant=True), Events(tmp_path / "s")
    publisher = Publisher(loop, f"unix://{tmp_path}/s", "ns")
    publish(publisher, *range(50))
    until(loop, lambda: publisher.idle)
    assert pids(listener) == list(range(50))
    assert {topic for topic, _ in listener.seen} == {"/tasks/start"}
    listener.close()


def test_what_happens_while_containerd_is_away_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "_RETRY_S", 0.05)
    loop = Loop(tolerant=True)
    publisher = Publisher(loop, f"{tmp_path}/s", "ns")
    publish(publisher, 1, 2)
    until(loop, lambda: time.monotonic() and not publisher.idle)
    listener = Events(tmp_path / "s")
    publish(publisher, 3)
    until(loop, lambda: publisher.idle)
    assert pids(listener) == [1, 2, 3]
    # It is restarted.
    listener.close()
    os.unlink(tmp_path / "s")
    listener = Events(tmp_path / "s")
    publish(publisher, 4)
    until(loop, lambda: publisher.idle)
    assert pids(listener) in ([], [4])  # the old connection may have taken it
    listener.close()


def test_a_containerd_that_never_comes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(events, "_RETRY_S", 0.01)
    monkeypatch.setattr(events, "_GIVE_UP_S", 0.1)
    loop = Loop(tolerant=True)
    publisher = Publisher(loop, f"{tmp_path}/s", "ns")
    publish(publisher, 1)
    until(loop, lambda: publisher.idle)
    assert "dropped" in capsys.readouterr().err


def test_without_an_address_nothing_waits():
    publisher = Publisher(Loop(tolerant=True), "", "ns")
    publish(publisher, 1)
    assert publisher.idle


def test_times_are_exact():
    stamp = timestamp(1_790_000_000_123_456_789)
    assert (stamp.seconds, stamp.nanos) == (1_790_000_000, 123_456_789)
