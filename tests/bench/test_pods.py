"""What the node path does without a cluster: reading spans, watching, refusing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wasmlab.bench.api import Api, PodWatch
from wasmlab.bench.phases import Span
from wasmlab.bench.pods import SpansReader, engine_of
from wasmlab.errors import BenchmarkError, NotReady


def line(uid: str) -> bytes:
    return json.dumps({"uid": uid, "spans": [["seen", 5, 9]]}).encode() + b"\n"


def test_spans_are_joined_by_uid(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_bytes(line("old"))
    reader = SpansReader(path)
    with path.open("ab") as stream:
        stream.write(line("a") + line("b")[:10])
    assert reader.wait("a", 1) == (Span("seen", 5, 9),)
    # Half a line is not read before it is whole.
    assert reader.wait("b", 0.02) == ()
    with path.open("ab") as stream:
        stream.write(line("b")[10:])
    assert reader.wait("b", 1) == (Span("seen", 5, 9),)
    assert reader.wait("old", 0.02) == ()  # written before the measurement began


def test_spans_survive_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    reader = SpansReader(path)
    assert reader.wait("a", 0.02) == ()
    path.write_bytes(line("x") * 20)
    reader.poll()
    path.write_bytes(line("a"))
    assert reader.wait("a", 1)


def test_waiting_for_spans_has_an_end(tmp_path: Path) -> None:
    assert SpansReader(tmp_path / "none").wait("a", 0.05) == ()


class Recorded(PodWatch):
    """A watch that is fed by hand."""

    def __init__(self) -> None:
        super().__init__(api=None, namespace="x")  # type: ignore[arg-type]

    def feed(self, name: str, phase: str, *, node: str = "", waiting: str = "", now: int = 0) -> None:
        status: dict = {"phase": phase}
        if waiting:
            status["containerStatuses"] = [{"state": {"waiting": {"reason": waiting, "message": "because"}}}]
        elif phase != "Pending":
            status["containerStatuses"] = [{"state": {}}]
        self._note(
            {"metadata": {"name": name}, "spec": {"nodeName": node} if node else {}, "status": status}, now
        )


def test_moments_are_those_of_the_first_sight() -> None:
    watch = Recorded()
    watch.feed("a", "Pending", now=1)
    watch.feed("a", "Pending", node="n", now=2)
    watch.feed("a", "Running", node="n", now=3)
    watch.feed("a", "Running", node="n", now=4)
    watch.feed("a", "Succeeded", node="n", now=5)
    watch.feed("a", "Succeeded", node="n", now=6)
    assert watch.wait_done("a", 1) == {"scheduled": 2, "running": 3, "done": 5}
    assert watch.ended == 1


def test_a_pod_that_does_not_end_says_why() -> None:
    watch = Recorded()
    watch.feed("a", "Pending", node="n", waiting="ImagePullBackOff")
    with pytest.raises(NotReady, match="ImagePullBackOff: because"):
        watch.wait_done("a", 0.05)
    with pytest.raises(NotReady, match="phase unknown"):
        watch.wait_done("b", 0.05)


def test_a_cluster_without_tls_is_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    with pytest.raises(BenchmarkError, match="https"):
        Api(path)


def test_engine_of_a_process_that_is_none() -> None:
    assert engine_of(1 << 30) is None
