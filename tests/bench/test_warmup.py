from __future__ import annotations

import numpy as np
import pytest

from tests.bench import designs
from wasmlab.bench import stats, warmup
from wasmlab.bench.plan import CONTROLS, Arm


def test_slow_first_blocks_are_warm_up_until_they_are_within_the_range_of_the_second_half() -> None:
    steady = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1, 0.9, 1.0]
    assert warmup.warm_up([3.0, 2.0, 1.5, *steady]) == 3
    assert warmup.warm_up([3.0, 1.0, 9.0, *steady]) == 1  # one slow block later on is an outlier, no warm-up
    assert warmup.warm_up(steady) == 0
    assert warmup.warm_up(steady[::-1]) == 0
    assert warmup.warm_up([0.1, *steady]) == 0  # what is faster at first does not warm up


def test_too_few_blocks_have_no_warm_up_and_never_more_than_half() -> None:
    assert warmup.warm_up([9.0] + [1.0] * 8) == 0
    assert warmup.warm_up([float(10 - i) for i in range(10)]) == 5


def test_a_steady_measurement_hardly_ever_loses_a_block() -> None:
    dice = np.random.default_rng(51)
    cut = [warmup.warm_up(dice.normal(0, 1, 30)) for _ in range(1000)]
    assert np.mean(np.array(cut) > 0) < 0.10
    assert np.mean(np.array(cut) > 1) < 0.02


def test_the_warm_up_of_one_path_is_left_out_for_all_arms() -> None:
    dice = np.random.default_rng(52)
    pods = (Arm("node", "wasmtime", "warm", "hello"), Arm("node", "wasmer", "warm", "hello"))
    results = designs.results(dice, 20, "a")
    results.rows += [
        {"run_id": f"p{block}{arm.engine}", "session": "a", "block": block, **arm._asdict(), "ok": True,
         "total_ns": int((30e6 if block < 2 else 15e6) * dice.lognormal(0, 0.05))}
        for block in range(20) for arm in pods
    ]  # fmt: skip
    first = warmup.first_steady_block(results.frame)
    assert first == 2
    marked = warmup.mark(results.rows, first)
    assert marked == 2 * (len(designs.ARMS) + len(CONTROLS) + len(pods))
    assert {row["block"] for row in results.rows if row["warmup"]} == {0, 1}
    table = stats.summarize(results.frame)
    assert set(table["n"]) == {18} and set(table["warmup"]) == {2}  # left out, and counted
    assert len(results.rows) == 20 * 10  # kept
    # Asked again, the rule comes to the same answer: marks of an earlier look do not hide rows from it.
    assert warmup.first_steady_block(results.frame) == 2


@pytest.mark.parametrize("every", [1, 3])
def test_a_path_that_is_in_every_nth_block_only(every: int) -> None:
    dice = np.random.default_rng(53)
    rows = [
        {"run_id": str(block), "session": "a", "block": block, "path": "containerd", "engine": "runc",
         "mode": "cached", "workload": "hello", "ok": True,
         "total_ns": int((9e9 if block == 0 else 2e9) * dice.lognormal(0, 0.02))}
        for block in range(0, 15 * every, every)
    ]  # fmt: skip
    from wasmlab.bench.store import Results

    assert warmup.first_steady_block(Results(rows).frame) == 1


def test_nothing_measured_has_no_warm_up() -> None:
    from wasmlab.bench.store import Results

    assert warmup.first_steady_block(Results([]).frame) == 0
