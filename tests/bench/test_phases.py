from __future__ import annotations

import math
import re

import pytest

from wasmlab.bench import phases
from wasmlab.bench.phases import Span


def test_every_phase_has_a_label_and_a_name_of_its_own() -> None:
    assert set(phases.LABELS) == {*phases.ENGINE_PHASES, *phases.POD_MOMENTS}
    assert len(phases.LABELS) == len(phases.ENGINE) + len(phases.POD)


def test_the_docstring_defines_every_engine_phase_in_order() -> None:
    text = phases.__doc__ or ""
    defined = re.findall(r"^    (\w+) {2,}(\S.*)$", text, flags=re.MULTILINE)
    assert defined == [(phase.name, phase.meaning) for phase in phases.ENGINE]
    for place in ("zygote", "compiler", "worker"):
        names = [phase.name for phase in phases.ENGINE if phase.place == place and phase.name != "confine"]
        assert re.search(rf"^ +{place} +{', '.join(names)}$", text, flags=re.MULTILINE), place


def test_the_docstring_shows_every_moment() -> None:
    text = phases.__doc__ or ""
    for moment in phases.POD:
        assert moment.name in text.partition("pod moments")[2]
    assert set(phases.CONTAINERD_ONLY) < set(phases.POD_MOMENTS)


def test_what_is_declared_is_in_the_order_in_which_it_happens() -> None:
    for mode, names in phases.LOCAL.items():
        assert [name for name in phases.ENGINE_PHASES if name in names] == list(names), mode
    # A cold run in a sandbox compiles in the worker, so handing over comes first.
    assert phases.WORKER["cold"][0] == "spawn" and set(phases.WORKER["cold"]) < set(phases.LOCAL["cold"])


def test_what_a_binding_hides_is_not_declared() -> None:
    hidden = {"validate": "why", "compile": "why", "serialize": "why", "instantiate": "why"}
    assert phases.declared("cached", hidden, within="worker") == ("spawn", "load", "run", "teardown")
    assert phases.declared("cold", hidden, within="worker") == ("spawn", "read", "load", "run", "teardown")
    local = phases.declared("cold", hidden)
    assert "compile" in local and "validate" not in local
    assert phases.declared("warm") == phases.LOCAL["warm"]


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
    stages = phases.engine_waterfall({"run_ns": 5, "spawn_ns": 2, "load_ns": None, "confine_ns": math.nan})
    assert [(stage.phase, stage.start_ns, stage.end_ns) for stage in stages] == [
        ("spawn", 0, 2),
        ("run", 2, 7),
    ]
