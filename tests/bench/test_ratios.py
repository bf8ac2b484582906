from __future__ import annotations

import numpy as np

from tests.bench import designs
from wasmlab.bench import ratios, stats
from wasmlab.bench.plan import CONTROLS, Arm
from wasmlab.bench.store import Results

CONTAINERS = tuple(Arm("containerd", engine, "cached", "hello") for engine in ("wasmtime", "wasmer", "runc"))


def results() -> Results:
    made = designs.results(np.random.default_rng(81), 12, "a")
    for block in range(0, 12, 2):
        for arm, milliseconds in zip(CONTAINERS, (1900, 1700, 2000), strict=True):
            made.rows.append(
                {"run_id": f"c{block}{arm.engine}", "session": "a", "block": block, **arm._asdict(), "ok": True,
                 "total_ns": milliseconds * 1_000_000}
            )  # fmt: skip
    return made


def test_every_start_is_put_over_its_control() -> None:
    found = {one.above: one for one in ratios.against_controls(results().frame)}
    assert set(found) == {*designs.ARMS, *CONTAINERS[:2]}
    assert all(found[arm].below == CONTROLS[0] for arm in designs.ARMS)
    # A container Pod differs from this control in nothing but the runtime.
    assert found[CONTAINERS[0]].below == CONTAINERS[2]
    assert found[CONTAINERS[0]].interval.value == 0.95 and found[CONTAINERS[0]].interval.n == 6


def test_other_engines_are_put_over_wasmtime() -> None:
    made = results()
    made.rows += [
        row | {"engine": "wasmer-singlepass", "run_id": f"s{row['run_id']}", "total_ns": 2 * row["total_ns"]}
        for row in made.rows
        if row["engine"] == "wasmtime" and row["mode"] == "cold"
    ]
    found = {one.above: one for one in ratios.between_engines(made.frame)}
    assert {arm.engine for arm in found} == {"wasmer", "wasmer-singlepass"}
    double = found[Arm("local", "wasmer-singlepass", "cold", "hello")]
    # Drawn in the same blocks, twice as long is exactly twice as long.
    assert (double.interval.low, double.interval.high) == (2.0, 2.0)
    assert double.below.engine == "wasmtime"


def test_failed_arms_have_no_ratio() -> None:
    made = results()
    for row in made.rows:
        row["ok"] = row["engine"] != "wasmer"
    assert ratios.between_engines(made.frame) == []
    assert ratios.against_controls(Results([]).frame) == []


def test_ratios_are_those_of_the_rows() -> None:
    made = results()
    for row in made.rows:
        row["warmup"] = row["block"] == 0
    one = ratios.against_controls(made.frame)[0]
    rows = [row for row in made.rows if row["block"]]

    def middle(arm: Arm) -> float:
        return float(np.median([r["total_ns"] for r in rows if tuple(r[key] for key in Arm._fields) == arm]))

    assert one.interval.value == middle(one.above) / middle(one.below)
    assert one.interval.n == 11
    assert one.interval == stats.ratio(made.frame, one.above._asdict(), one.below._asdict())
