"""The ctr measurements: the table from rows, the big module, and (as root, with containerd) a round for real."""

from __future__ import annotations

import pytest

from wasmlab.bench import containerd
from wasmlab.bench.containerd import Row, big_source, figures


def rows(workload: str, arm: str, wall_ms: float, count: int = 8, ok: bool = True) -> list[Row]:
    return [
        Row(workload, arm, n, ok, int((wall_ms + n * 0.01) * 1e6), int(wall_ms * 5e5)) for n in range(count)
    ]


def test_ratios_are_against_what_was_aimed_for():
    measured = {
        "rows": [
            *rows("hello", "runc", 100),
            *rows("hello", "wasmtime", 70),
            *rows("big", "wasmtime", 77),
            *rows("lines", "runc", 100),
            *rows("lines", "wasmtime", 120),
        ]
    }
    table = {(line["workload"], line["arm"]): line for line in figures(measured)}
    assert "wall_ratio" not in table["hello", "runc"]
    assert table["hello", "wasmtime"]["wall_ratio"][0] == pytest.approx(0.7, abs=0.01)
    assert (table["hello", "wasmtime"]["against"], table["hello", "wasmtime"]["met"]) == ("hello/runc", True)
    assert (table["big", "wasmtime"]["against"], table["big", "wasmtime"]["met"]) == ("hello/wasmtime", False)
    assert table["lines", "wasmtime"]["met"] is False
    assert table["hello", "wasmtime"]["cpu_ratio"][0] == pytest.approx(0.7, abs=0.01)


def test_failures_are_counted_and_not_timed():
    measured = {
        "rows": [
            *rows("hello", "runc", 100),
            *rows("hello", "wasmtime", 50),
            *rows("hello", "wasmtime", 1, 3, ok=False),
        ]
    }
    line = next(line for line in figures(measured) if line["arm"] == "wasmtime")
    assert line["failed"] == 3
    assert line["wall_ratio"][0] == pytest.approx(0.5, abs=0.01)


def test_the_big_program_is_the_same_every_time_and_big():
    assert big_source(5) == big_source(5)
    assert big_source(50).count("static unsigned f") == 50


@pytest.mark.integration
@pytest.mark.skipif(bool(containerd.missing()), reason=f"ctr runs: {containerd.missing()}")
@pytest.mark.timeout(400)
def test_one_round_for_real():
    measured = containerd.measure(1, engines=("wasmtime",))
    assert {(row.workload, row.arm) for row in measured["rows"] if row.ok} == {
        ("hello", "runc"),
        ("hello", "wasmtime"),
        ("lines", "runc"),
        ("lines", "wasmtime"),
        ("big", "wasmtime"),
    }
    assert all(row.cpu_ns > 1_000_000 for row in measured["rows"])
    assert all(size > 0 for sizes in measured["sleeping"].values() for size in sizes)
    assert all(rate > 0 for rate in measured["tasks_per_s"].values())
