"""Intervals cover the truth at their nominal rate, also where runs of one block resemble each other.

The rates are those of 300 simulated measurements, so they scatter by 1.3 points (one standard error of a binomial at
95 %). Accepted is 92 to 98.5 %: two and a half standard errors, and half a point below for the bootstrap, which knows
of a small sample's spread only what the sample shows. The simulation is seeded: it does not fail by chance.
"""

from __future__ import annotations

import numpy as np
import pytest

from wasmlab.bench import bootstrap, stats
from wasmlab.bench.bootstrap import Sample

TRIALS = 300
LOW, HIGH = 0.92, 0.985
DRAWS = 400


def measured(dice: np.random.Generator, blocks: int, runs: int, shared: np.ndarray, scale: float = 1.0):
    """Log-normal times with one outlier in thirty, all runs of a block moved by what `shared` says."""
    noise = dice.normal(0, 0.15, (blocks, runs)) + np.where(dice.random((blocks, runs)) < 0.03, 1.6, 0)
    values = scale * np.exp(shared[:, None] + noise)
    return Sample(values, np.full(blocks, runs), tuple(range(blocks)))


def truth(q: float, block_sd: float) -> float:
    dice = np.random.default_rng(0)
    return float(np.quantile(measured(dice, 1_000_000, 1, dice.normal(0, block_sd, 1_000_000)).flat, q))


def rate(covered: list[bool]) -> float:
    return sum(covered) / len(covered)


@pytest.mark.parametrize(
    ("q", "blocks", "runs", "block_sd"),
    [(0.5, 40, 1, 0.15), (0.5, 30, 5, 0.15), (0.5, 30, 5, 0.0), (0.95, 100, 3, 0.1)],
)
def test_quantiles(q: float, blocks: int, runs: int, block_sd: float) -> None:
    dice = np.random.default_rng(41)
    value = truth(q, block_sd)
    covered = []
    for trial in range(TRIALS):
        one = measured(dice, blocks, runs, dice.normal(0, block_sd, blocks))
        interval = stats.quantile(one, q, resamples=DRAWS, seed=trial)
        covered.append(interval.low <= value <= interval.high)
    assert LOW <= rate(covered) <= HIGH


@pytest.mark.parametrize(("blocks", "runs"), [(30, 1), (25, 4)])
def test_ratios_of_arms_in_the_same_blocks(blocks: int, runs: int) -> None:
    dice = np.random.default_rng(42)
    covered, widths, apart = [], [], []
    for trial in range(TRIALS):
        shared = dice.normal(0, 0.3, blocks)  # a restless machine
        above, below = (measured(dice, blocks, runs, shared, scale) for scale in (1.3, 1.0))
        interval = stats.ratio_of_medians(above, below, resamples=DRAWS, seed=trial)
        covered.append(interval.low <= 1.3 <= interval.high)
        widths.append(interval.high - interval.low)
        if trial < 20:  # the same values, without telling that they share blocks
            loose = stats.ratio_of_medians(above.flat, below.flat, resamples=DRAWS, seed=trial)
            apart.append(loose.high - loose.low)
    assert LOW <= rate(covered) <= 0.995  # pairing by whole blocks errs on the wide side
    if runs == 1:
        assert np.mean(widths[:20]) < 0.8 * np.mean(apart)


def test_drawing_single_runs_would_be_wrong_and_drawing_on_both_levels_too() -> None:
    """Why blocks are drawn whole: the first promises too much, the second needs a third more runs."""
    dice = np.random.default_rng(43)
    value = truth(0.5, 0.15)
    naive, whole, twice = [], [], []
    for trial in range(150):
        one = measured(dice, 25, 6, dice.normal(0, 0.15, 25))
        flat = stats.median(one.flat, resamples=DRAWS, seed=trial)
        naive.append(flat.low <= value <= flat.high)
        interval = stats.median(one, resamples=DRAWS, seed=trial)
        whole.append(interval.high - interval.low)
    assert rate(naive) < 0.85
    for trial in range(40):
        one = measured(dice, 25, 3, np.zeros(25))
        interval = stats.median(one, resamples=DRAWS, seed=trial)
        generator = np.random.default_rng(trial)
        chosen = generator.integers(0, 25, (DRAWS, 25))
        runs = generator.integers(0, 3, (DRAWS, 25, 3))
        draws = np.median(one.values[chosen[..., None], runs].reshape(DRAWS, -1), axis=1)
        twice.append(np.diff(np.quantile(draws, [0.025, 0.975]))[0] / (interval.high - interval.low))
    assert np.mean(twice) > 1.15


def test_blocks_of_unequal_size() -> None:
    values = [1.0, 2.0, 3.0, float("nan"), 10.0]
    one = bootstrap.sample(values, ["a", "b", "b", "c", "d"])
    assert one.blocks == ("a", "b", "d") and one.counts.tolist() == [1, 2, 1]
    assert one.n == 4 and sorted(one.flat) == [1.0, 2.0, 3.0, 10.0]
    interval = stats.median(one)
    assert interval.value == 2.5 and interval.n == 4
    assert 1.0 <= interval.low < 2.5 < interval.high <= 10.0
    again = one.only(["d", "b"])
    assert again.blocks == ("d", "b") and again.values[0, 0] == 10.0


def test_a_single_block_is_drawn_run_by_run() -> None:
    interval = stats.median([1.0, 2.0, 3.0, 4.0, 5.0], blocks=["a"] * 5)
    assert interval.low < 3.0 < interval.high


def test_quantiles_of_rows_with_gaps_are_those_of_numpy() -> None:
    dice = np.random.default_rng(44)
    matrix = np.where(dice.random((50, 9)) < 0.3, np.nan, dice.random((50, 9)))
    matrix[3] = np.nan
    for q in (0.0, 0.5, 0.95, 1.0):
        with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
            expected = np.nanquantile(matrix, q, axis=1)
        np.testing.assert_allclose(bootstrap.quantile_of_rows(matrix, q), expected)


def test_the_middle_half_ignores_the_rest_and_gaps() -> None:
    rows = np.array([[1e9, 2.0, 4.0, -1e9], [3.0, np.nan, np.nan, 5.0], [np.nan] * 4])
    assert bootstrap.middle_of_rows(rows)[:2].tolist() == [3.0, 4.0]
    assert np.isnan(bootstrap.middle_of_rows(rows)[2])


def test_arms_that_share_no_blocks_are_compared_apart() -> None:
    one, other = (
        Sample(np.full((4, 1), value), np.ones(4, int), tuple((name, i) for i in range(4)))
        for name, value in (("a", 3.0), ("b", 2.0))
    )
    interval = stats.ratio_of_medians(one, other)
    assert (interval.value, interval.low, interval.high) == (1.5, 1.5, 1.5)


def test_only_shared_blocks_are_paired() -> None:
    slow = Sample(np.array([[10.0], [10.0], [1.0]]), np.ones(3, int), ("x", "y", "z"))
    fast = Sample(np.array([[5.0], [5.0], [100.0]]), np.ones(3, int), ("y", "x", "w"))
    interval = stats.ratio_of_medians(slow, fast)
    assert (interval.value, interval.low, interval.high, interval.n) == (2.0, 2.0, 2.0, 2)
