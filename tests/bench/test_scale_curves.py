"""From rows to points to curves: known knees come out where they were put, broken bursts do not count."""

from __future__ import annotations

import pytest

from tests.bench import synthetic_scale
from wasmlab.bench import scale_curves
from wasmlab.bench.scale_rows import Rows
from wasmlab.bench.store import COLUMNS, Results


@pytest.fixture(scope="module")
def results() -> Results:
    return synthetic_scale.results()


@pytest.fixture(scope="module")
def curves(results):
    return scale_curves.curves(results.frame)


def test_every_row_has_its_arm_and_its_size(results) -> None:
    assert set().union(*results.rows) <= set(COLUMNS)
    assert all(row["mode"].startswith(row["experiment"] + "-") for row in results.rows)
    assert len({row["run_id"] for row in results.rows}) == len(results.rows)


def test_a_point_is_one_block(results) -> None:
    points = scale_curves.bursts(results.frame)
    assert len(points) == 3 * 2 * len(synthetic_scale.BURST)
    fifty = points[points["load"] == 50]
    assert fifty["seconds"].to_numpy() == pytest.approx(0.6, rel=0.1)
    assert fifty["per_second"].to_numpy() == pytest.approx(83, rel=0.1)


def test_bursts_have_the_knee_they_were_given(curves) -> None:
    for engine in ("wasmtime", "wasmer"):
        one = curves[f"burst {engine}, seconds"]
        assert 40 <= one.knee.value <= 65 and one.knee.low <= one.knee.value <= one.knee.high
        assert one.slope.value == pytest.approx(0.010, rel=0.15)
        assert one.slope_after.value == pytest.approx(0.020, rel=0.15)


def test_memory_grows_by_line_and_starts_by_knee(curves) -> None:
    memory = curves["density wasmtime, node_uss_mb"]
    assert memory.knee is None and memory.why_not == "no knee found up to 200"
    assert memory.slope.value == pytest.approx(4, rel=0.1)
    assert curves["density wasmtime, plane_uss_mb"].slope.value == pytest.approx(0.05, abs=0.1)
    starts = curves["density wasmtime, latency_ms"]
    assert 75 <= starts.knee.value <= 125


def test_throughput_saturates_at_the_cores(curves) -> None:
    for path, engine in (("local", "wasmtime"), ("node", "wasmer"), ("control", "native")):
        one = curves[f"concurrency {path} {engine}, per_second"]
        assert 1.8 <= one.knee.value <= 2.6
        assert one.slope_after.low <= 0.02 * one.slope.value


def test_throughput_is_that_of_the_time_when_all_were_in_flight() -> None:
    # Two in flight, each takes a second; the last one takes five, and nobody waits for it any more.
    rows = Rows("x")
    for begun, took in ((0, 1), (0, 1), (1, 1), (1, 1), (2, 1), (2, 5)):
        rows.add(
            "concurrency", 2, 0, ("local", "wasmtime", "hello"), begun_ns=begun * 10**9, total_ns=took * 10**9
        )
    (point,) = scale_curves.in_flight(Results(rows.rows).frame).to_dict("records")
    assert point["per_second"] == pytest.approx(2.0) and point["seconds"] == pytest.approx(7.0)
    assert point["latency_ms"] == pytest.approx(1000)


def test_a_burst_that_lost_a_pod_is_no_point(results) -> None:
    frame = results.frame.copy()
    broken = frame.index[(frame["mode"] == "burst-15") & (frame["path"] == "node")][0]
    frame.loc[broken, ["ok", "error"]] = [False, "not ended"]
    points = scale_curves.bursts(frame)
    lost = points[points["failed"] > 0]
    assert len(lost) == 1 and lost["seconds"].isna().all() and lost["per_second"].isna().all()
    assert scale_curves.curve(points[points["engine"] == "wasmtime"], "seconds").n == 14


@pytest.mark.parametrize("keep", [0, 1, 40])
def test_an_interrupted_measurement_gives_what_it_can(results, keep: int) -> None:
    frame = Results(results.rows[:keep]).frame
    found = scale_curves.curves(frame)
    assert all(one.n >= 2 for one in found.values())


def test_what_failed_altogether_gives_no_curve(results) -> None:
    rows = [{**row, "ok": False, "error": "x", "total_ns": None} for row in results.rows[:200]]
    assert scale_curves.curves(Results(rows).frame) == {}


def test_in_words(curves) -> None:
    with_knee = scale_curves.in_words(curves["burst wasmtime, seconds"], unit="ms", factor=1000)
    assert " ms for each more up to a knee at " in with_knee and ", then " in with_knee
    without = scale_curves.in_words(curves["density wasmtime, node_uss_mb"], unit="MB", each="")
    assert without.endswith("MB; no knee found up to 200")
    assert scale_curves.knee(curves["density wasmtime, node_uss_mb"]) == "no knee found up to 200"
