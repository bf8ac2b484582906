from __future__ import annotations

import numpy as np
import pytest

from tests.bench import designs
from wasmlab.bench import stats, stopping
from wasmlab.bench.stopping import Stopping
from wasmlab.errors import BenchmarkError


def test_it_looks_now_and_then_and_ends_when_two_looks_agree() -> None:
    rule = Stopping(precision=0.05, min_blocks=20, check_every=5)
    assert [blocks for blocks in range(41) if rule.is_look(blocks)] == [15, 20, 25, 30, 35, 40]
    assert not rule.may_end(15, [0.04])
    assert not rule.may_end(20, [0.06, 0.04])  # chance may make one interval look narrow
    assert rule.may_end(20, [0.05, 0.05])
    assert not rule.may_end(25, [0.04, 0.04, 0.051])
    assert not Stopping(max_runs=3).is_look(20)


def test_a_budget_never_starts_a_block_that_would_exceed_it() -> None:
    rule = Stopping(max_runs=100, max_seconds=60)
    assert rule.spent(0, 500, 0, 0) is None  # the first block is carried out whatever it costs
    assert rule.spent(90, 10, 5, 1) is None
    assert rule.spent(91, 10, 5, 1) == "runs"
    assert rule.spent(10, 10, 55, 5) is None
    assert rule.spent(10, 10, 56, 5) == "seconds"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stopping(), "never stops"),
        (lambda: Stopping(precision=0), "must be positive"),
        (lambda: Stopping(max_seconds=-1), "must be positive"),
        (lambda: Stopping(precision=0.1, check_every=0), "from 1"),
    ],
)
def test_rules_that_make_no_sense(make, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        make()


def test_the_widest_interval_is_that_of_the_noisiest_arm() -> None:
    dice = np.random.default_rng(61)
    results = designs.results(dice, 20, "a")
    for row in results.rows:
        if (row["engine"], row["mode"]) == ("wasmer", "cold"):
            row["total_ns"] = int(row["total_ns"] * dice.lognormal(0, 0.6))
        if (row["engine"], row["mode"]) == ("wasmtime", "cold"):
            row["ok"] = False  # no number of runs would help it
    arm, width = stopping.widest(results.frame)
    assert arm == "local/wasmer/cold/hello"
    one = results.frame.query("engine == 'wasmer' and mode == 'cold'")
    assert width == stats.median(one["total_ns"].astype(float), resamples=500).relative_half_width
    single = designs.results(dice, 1, "b")
    assert stopping.widest(single.frame)[1] == float("inf")


def test_stopping_on_precision_keeps_the_coverage() -> None:
    """Of 600 measurements that stop by the rule at least 92 % cover the truth, as without it (test_coverage)."""
    dice = np.random.default_rng(62)
    rule = Stopping(precision=0.06, min_blocks=20, check_every=5)
    covered, lengths = [], []
    for trial in range(600):
        values = dice.lognormal(0, 0.15, 200)
        widths: list[float] = []
        for blocks in filter(rule.is_look, range(1, 201)):
            interval = stats.median(values[:blocks], resamples=250, seed=trial)
            widths.append(interval.relative_half_width)
            if rule.may_end(blocks, widths):
                break
        covered.append(interval.low <= 1.0 <= interval.high)
        lengths.append(blocks)
    assert 0.92 <= np.mean(covered) <= 0.985
    assert min(lengths) >= 20 and len(set(lengths)) > 5


def test_stopping_on_significance_would_find_differences_that_are_none() -> None:
    """Two equal arms, looked at every five blocks and stopped once 1 is outside the interval: wrong far beyond 5 %."""
    dice = np.random.default_rng(63)
    wrong = 0
    for trial in range(100):
        one, other = dice.lognormal(0, 0.15, (2, 100))
        ratios = (
            stats.ratio_of_medians(one[:blocks], other[:blocks], resamples=150, seed=trial)
            for blocks in range(10, 101, 5)
        )
        wrong += any(not ratio.low <= 1 <= ratio.high for ratio in ratios)
    assert wrong > 12


def test_the_end_is_told() -> None:
    stopped = {"because": "precision", "blocks": 35, "runs": 1400, "seconds": 61.2, "widest_arm": "a/b/c/d",
               "relative_half_width": 0.0481, "precision": 0.05}  # fmt: skip
    assert stopping.tell(stopped) == (
        "ended after 35 blocks, 1,400 runs, 61 s: every median is known well enough; "
        "the widest interval is ±4.8% (a/b/c/d), ±5.0% was asked for"
    )
    bare = stopped | {"because": "seconds", "relative_half_width": None, "precision": None}
    assert stopping.tell(bare) == "ended after 35 blocks, 1,400 runs, 61 s: the budget of time is spent"
