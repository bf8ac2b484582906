from __future__ import annotations

import dataclasses

from wasmlab.bench import noise
from wasmlab.bench.environment import Conditions
from wasmlab.bench.noise import NoiseLog

QUIET = Conditions(
    "2026-11-24T09:00:00Z", 0.5, (100, 0, 50, 800, 10, 0, 5, 35), 1_000_000, 5000, 2000.0, 100.0
)
LATER = dataclasses.replace(
    QUIET,
    load_1min=1.5,
    cpu_ticks=(140, 0, 60, 830, 10, 0, 5, 55),
    cpu_pressure_us=1_500_000,
    context_switches=6000,
    mhz=3000.0,
    at_s=102.0,
)


def test_a_line_per_block() -> None:
    log = NoiseLog()
    log.add(0, QUIET, LATER)
    log.add(1, QUIET, dataclasses.replace(LATER, cpu_pressure_us=9_000_000, at_s=101.0))
    assert log.columns == {
        "block": [0, 1],
        "busy_share": [0.7, 0.7],
        "steal_share": [0.2, 0.2],
        "cpu_stalled_s": [0.5, 8.0],
        "load_1min": [1.5, 1.5],
        "context_switches_per_s": [500, 1000],
        "mhz": [2500, 2500],
        "seconds": [2.0, 1.0],
    }
    conditions = [{"session": "s", "blocks": log.columns}, {"started_at": "an old file keeps none"}]
    frame = noise.by_block(conditions)
    assert frame["session"].tolist() == ["s", "s"] and tuple(frame.columns[1:]) == noise.COLUMNS
    assert noise.summary(conditions) == (
        "per block, steal 20.0% (worst block 20.0%); load 1.5 (worst block 1.5); some process waiting for a CPU 62% "
        "(worst block 100%); context switches per second 750 (worst block 1,000); MHz 2500 (worst block 2500)"
    )


def test_what_the_kernel_does_not_say_is_left_out() -> None:
    bare = Conditions("2026-11-24T09:00:00Z", 0.5, (), None)
    log = NoiseLog()
    log.add(0, bare, bare)
    said = noise.summary([{"session": "s", "blocks": log.columns}])
    assert said == "per block, load 0.5 (worst block 0.5)"
    assert noise.summary([]) == "" and noise.by_block([]).empty
