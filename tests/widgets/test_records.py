"""What may be said of the pods of a launch."""

from __future__ import annotations

import random

import pytest

from wasmlab.bench import stats
from wasmlab.widgets import records
from wasmlab.widgets.records import Ending, PodRecord


def pods(engine: str, times_ms: list[float], **more: object) -> list[PodRecord]:
    return [
        PodRecord(engine, {"first_byte_ns": round(time * 1e6)}, block=block, **more)  # type: ignore[arg-type]
        for block, time in enumerate(times_ms)
    ]


def times(middle: float, count: int, seed: int) -> list[float]:
    dice = random.Random(seed)
    return [middle * dice.uniform(0.9, 1.1) for _ in range(count)]


def test_a_standing_is_the_bench_s_median_and_says_what_is_not_in_it() -> None:
    values = times(10, 30, 1)
    own = [
        *pods("wasmtime", values),
        PodRecord("wasmtime", {}, ok=False, error="broke"),
        *pods("wasmer", [99.0]),
    ]
    own += pods("wasmtime", [1000.0], warmup=True)
    one = records.standing(own, "wasmtime", "first_byte", independent=True)
    assert one.interval == stats.median(
        [round(value * 1e6) * 1e-6 for value in values], blocks=list(range(30))
    )
    assert (one.n, one.failed, one.warmup, one.has_interval) == (30, 1, 1, True)


@pytest.mark.parametrize(("count", "independent"), [(stats.FEWEST - 1, True), (100, False)])
def test_an_interval_is_claimed_only_of_enough_independent_pods(count: int, independent: bool) -> None:
    own = pods("wasmtime", times(10, count, 1))
    assert not records.standing(own, "wasmtime", "first_byte", independent=independent).has_interval


def test_an_engine_without_pods_has_no_median() -> None:
    assert records.standing([], "wasmer", "first_byte", independent=True).interval is None


def test_a_verdict_needs_pods_and_an_interval_that_leaves_out_one() -> None:
    few = pods("wasmer", [1.0]) + pods("wasmtime", [1.0])
    assert "Too few" in records.verdict(few, "wasmer", "wasmtime", "first_byte")
    alike = pods("wasmer", times(10, 30, 1)) + pods("wasmtime", times(10, 30, 2))
    assert "No difference can be told" in records.verdict(alike, "wasmer", "wasmtime", "first_byte")
    apart = pods("wasmer", times(20, 30, 1)) + pods("wasmtime", times(10, 30, 2))
    said = records.verdict(apart, "wasmer", "wasmtime", "first_byte")
    assert said.startswith("wasmer takes ") and "n = 30" in said


def test_a_row_becomes_a_record() -> None:
    row = {
        "engine": "wasmer",
        "ok": False,
        "error": "x",
        "block": 3,
        "warmup": True,
        "exited_ns": 5.0,
        "seen_ns": None,
    }
    one = records.of_row(row | {"first_byte_ns": float("nan")})
    assert one == PodRecord("wasmer", {"exited_ns": 5}, 0, False, "x", 3, True)


def test_an_ending_counts_every_pod() -> None:
    cancelled = Ending(10, 4, 1, 2, False, 1.0, cancelled=True)
    said = str(cancelled)
    assert (
        "of 10 pods 4 had ended (1 failed), 2 were removed" in said
        and "4 were not started. None is left" in said
    )
    assert "still being removed" in str(cancelled._replace(is_clean=False))
    assert str(Ending(10, 10, 0, 0, True, 2.0)) == "done: 10 pods in 2.0 s, 5 pods per second, 0 failed"
    assert "per second" not in str(Ending(10, 10, 0, 0, False, 2.0))


def test_failures_say_why() -> None:
    assert records.failures(pods("wasmtime", [1.0])) == ""
    assert "1 of 1 pods failed; the first, on a: why" in records.failures(
        [PodRecord("a", {}, ok=False, error="why")]
    )


@pytest.mark.parametrize(("value", "says"), [(1.234, "1.2 ms"), (123.4, "123 ms"), (1234.0, "1.23 s")])
def test_durations(value: float, says: str) -> None:
    assert records.duration(value) == says
