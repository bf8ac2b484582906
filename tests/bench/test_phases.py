from __future__ import annotations

import math

import pytest

from wasmlab.bench import phases
from wasmlab.bench.phases import Span


def test_every_phase_has_a_label() -> None:
    assert set(phases.LABELS) == {*phases.ENGINE_PHASES, *phases.POD_MOMENTS}


def test_spans_from_json_lists() -> None:
    (span,) = phases.as_spans([["seen", 10, 25]])
    assert span == Span("seen", 10, 25) and span.duration_ns == 15


def test_a_span_from_another_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="before it starts"):
        phases.as_spans([["seen", 25, 10]])


def test_durations_add_up_and_leave_moments_out() -> None:
    spans = phases.as_spans([["compile", 0, 5], ["compile", 7, 9], ["run", 9, 10], ["seen", 0, 99]])
    assert phases.durations(spans) == {"compile_ns": 7, "run_ns": 1}


def test_moments_count_from_zero_and_the_first_counts() -> None:
    spans = phases.as_spans([["started", 100, 150], ["started", 100, 190], ["run", 1, 2]])
    assert phases.moments(spans, 100) == {"started_ns": 50}


def test_waterfall_has_no_gaps() -> None:
    stages = phases.waterfall(
        {
            "api_write_ns": 3,
            "scheduled_ns": 4,
            "seen_ns": 9,
            "pulled_ns": None,
            "compiled_ns": math.nan,
            "status_observed_ns": 20,
            "total_ns": 21,
        }
    )
    assert [(stage.phase, stage.start_ns, stage.end_ns) for stage in stages] == [
        ("api_write", 0, 3),
        ("scheduled", 3, 4),
        ("seen", 4, 9),
        ("status_observed", 9, 20),
    ]
    assert sum(stage.duration_ns for stage in stages) == 20


def test_what_was_noted_late_is_joined_with_what_follows_from_it() -> None:
    stages = phases.waterfall(
        {
            "api_write_ns": 3,
            "scheduled_ns": 8,  # the client's watch told of the binding after the node had the pod
            "seen_ns": 6,
            "started_ns": 7,
            "status_written_ns": 21,  # the node's write returned after the client had seen its effect
            "status_observed_ns": 20,
        }
    )
    assert [(stage.label, stage.start_ns, stage.end_ns) for stage in stages] == [
        ("API server stores the Pod", 0, 3),
        ("scheduler binds it, node hears of it", 3, 6),
        ("worker has it", 6, 7),
        ("node writes the status, client sees Succeeded", 7, 20),
    ]


def test_waterfall_of_nothing() -> None:
    assert phases.waterfall({}) == []


def test_engine_waterfall_stacks_durations() -> None:
    stages = phases.engine_waterfall({"run_ns": 5, "spawn_ns": 2, "load_ns": None})
    assert [(stage.phase, stage.start_ns, stage.end_ns) for stage in stages] == [
        ("spawn", 0, 2),
        ("run", 2, 7),
    ]
