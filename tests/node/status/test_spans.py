"""What the node writes down of a pod's time, and how the bench reads it."""

from __future__ import annotations

import json
from pathlib import Path

from wasmlab.bench.phases import durations, moments
from wasmlab.bench.pods import SpansReader
from wasmlab.engines.spec import Span
from wasmlab.node.status.spans import PodSpans, SpanLog


def test_a_pods_moments_and_the_phases_of_its_first_run_are_read_back(tmp_path: Path) -> None:
    spans = PodSpans()
    zero = spans.seen_ns
    spans.mark("started", zero + 5)
    run = (
        Span("spawn", zero, zero + 5),
        Span("run", zero + 5, zero + 9),
        Span("first_byte", zero, zero + 7),
        Span("reaped", zero, zero + 10),
    )
    spans.ran(run)
    spans.ran((Span("spawn", zero, zero + 500),))  # it was restarted: another story
    path = tmp_path / "spans.jsonl"
    reader = SpansReader(path)
    log = SpanLog(path)
    log.write(uid="u", namespace="n", name="p", engine="wasmtime", spans=spans)
    log.close()
    found = reader.wait("u")
    assert durations(found) == {"spawn_ns": 5, "run_ns": 4}
    assert moments(found, zero) == {"seen_ns": 0, "started_ns": 5}


def test_a_pod_that_never_ran_has_no_phases(tmp_path: Path) -> None:
    log = SpanLog(tmp_path / "spans.jsonl")
    log.write(uid="u", namespace="n", name="p", engine="wasmtime", spans=PodSpans())
    log.close()
    assert json.loads((tmp_path / "spans.jsonl").read_text())["engine_spans"] == []
