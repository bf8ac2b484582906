"""Cost curves: a knee that is there is found where it is, one that is not there is not invented."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wasmlab.bench import scale_curves, scale_fit
from wasmlab.errors import BenchmarkError

SIZES = (10, 30, 100, 300, 1000)


def points(truth, sizes=SIZES, blocks: int = 4, noise: float = 0.05, seed: int = 1):
    dice = np.random.default_rng(seed)
    x = np.tile(np.asarray(sizes, float), blocks)
    return x, truth(x) * dice.lognormal(0, noise, x.size)


def straight(x):
    return 0.15 + 0.01 * x


def bent(x, knee=100.0):
    return 0.15 + 0.005 * x + 0.02 * np.maximum(0, x - knee)


def test_a_line_is_a_line() -> None:
    curve = scale_fit.fit(*points(straight))
    assert curve.knee is None and curve.slope_after is None
    assert curve.why_not == "no knee found up to 1,000"
    assert curve.slope.low <= 0.01 <= curve.slope.high
    assert curve.slope.value == pytest.approx(0.01, rel=0.1)
    assert curve.at(500) == pytest.approx(straight(500), rel=0.1)


def test_a_knee_is_found_where_it_is() -> None:
    curve = scale_fit.fit(*points(bent))
    assert curve.knee is not None and curve.slope_after is not None
    assert curve.knee.low <= 100 <= curve.knee.high
    assert curve.knee.high < 300 and curve.knee.low > 30
    assert curve.slope_after.value == pytest.approx(0.025, rel=0.15)
    assert curve.why_not == "" and curve.p is not None and curve.p <= scale_fit.ALPHA
    assert curve.at(np.array([10, 1000])) == pytest.approx(bent(np.array([10, 1000])), rel=0.15)


def test_throughput_that_saturates_has_its_knee_at_the_cores() -> None:
    x, y = points(lambda k: 300 * np.minimum(k, 2.0), sizes=(1, 2, 3, 4, 6, 8, 16), noise=0.04)
    curve = scale_fit.fit(x, y)
    assert curve.knee is not None and curve.slope_after is not None
    assert 1.8 <= curve.knee.value <= 2.6
    assert abs(curve.slope_after.value) < 0.03 * curve.slope.value


def test_a_knee_at_size_zero_and_linear_sizes() -> None:
    x, y = points(
        lambda n: 30 + 0.5 * np.maximum(0, n - 100), sizes=(0, 25, 50, 75, 100, 125, 150, 200), noise=0.03
    )
    curve = scale_fit.fit(x, y)
    assert curve.knee is not None and 85 <= curve.knee.value <= 115


def test_false_alarms_are_rare() -> None:
    # Under no knee: lines of several kinds, with noise as on a busy machine. Nominal is 1 %; 5 % is what is promised.
    kinds = (straight, lambda x: 5 + 0 * x, lambda x: 0.01 * x)
    alarms = [
        scale_fit.fit(*points(kinds[n % 3], noise=0.1, blocks=3, seed=100 + n), resamples=199).knee
        is not None
        for n in range(150)
    ]
    assert sum(alarms) <= 0.05 * len(alarms)


def test_knees_are_found_most_of_the_time_and_covered_by_their_interval() -> None:
    found = [scale_fit.fit(*points(bent, seed=300 + n), resamples=199) for n in range(40)]
    knees = [one.knee for one in found if one.knee is not None]
    assert len(knees) >= 36
    # Between two measured sizes a knee is only as sure as they are close: most intervals, not all, hold it.
    assert sum(one.low <= 100 <= one.high for one in knees) >= 0.85 * len(knees)


def test_slopes_are_covered_by_their_interval() -> None:
    found = [scale_fit.fit(*points(straight, seed=500 + n), resamples=199) for n in range(60)]
    assert sum(one.slope.low <= 0.01 <= one.slope.high for one in found) >= 0.85 * len(found)


def test_what_does_not_matter_is_no_knee() -> None:
    # As sure as can be, but at the largest size it makes 5 %.
    curve = scale_fit.fit(*points(lambda x: 1 + 0.01 * x + 0.0006 * np.maximum(0, x - 100), noise=0.002))
    assert curve.knee is None and curve.p is not None and curve.p <= scale_fit.ALPHA


def test_too_little_to_tell_is_said() -> None:
    few = scale_fit.fit(*points(bent, sizes=(10, 100, 1000)))
    assert few.knee is None and few.why_not == "3 sizes are too few to tell a knee" and few.p is None
    once = scale_fit.fit(*points(bent, blocks=1))
    assert once.knee is None and once.why_not == "5 points are too few to tell a knee"


def test_blocks_may_begin_where_they_like() -> None:
    dice = np.random.default_rng(7)
    x = np.tile([0.0, 10, 25, 50, 100, 150, 200], 4)
    block = np.repeat(range(4), 7)
    base = np.array([300.0, 420, 380, 600])[block]
    y = (base + 0.5 * x) * dice.lognormal(0, 0.004, x.size)
    apart = scale_fit.fit(x, y, groups=block.tolist())
    assert apart.slope.value == pytest.approx(0.5, rel=0.05) and apart.slope.high - apart.slope.low < 0.06
    assert apart.intercept == pytest.approx(425, rel=0.02) and apart.knee is None
    together = scale_fit.fit(x, y)
    assert together.slope.high - together.slope.low > 5 * (apart.slope.high - apart.slope.low)
    # A block of one size each would explain everything: then there is one intercept.
    assert scale_fit.fit([1, 2, 3], [1, 2, 3], groups=[1, 2, 3]).slope.value == pytest.approx(1)


def test_a_knee_is_found_within_blocks_too() -> None:
    x, y = points(bent, noise=0)
    block = np.repeat(range(4), 5)
    curve = scale_fit.fit(x, y + np.array([0.0, 0.2, 0.1, 0.3])[block], groups=block.tolist())
    assert curve.knee is not None and curve.knee.value == pytest.approx(100)
    assert curve.intercept == pytest.approx(0.3, rel=0.01)


def test_two_points_claim_no_interval() -> None:
    curve = scale_fit.fit([0, 10], [1, 2])
    assert curve.slope.value == pytest.approx(0.1) and np.isnan([curve.slope.low, curve.slope.high]).all()
    assert curve.as_dict()["slope"]["low"] is None
    assert json.loads(json.dumps(curve.as_dict(), allow_nan=False))
    assert scale_curves.cost(curve.slope, "MB") == "0.1 [?] MB"


def test_exact_data_is_no_trouble() -> None:
    assert scale_fit.fit(*points(straight, noise=0)).knee is None
    curve = scale_fit.fit(*points(bent, noise=0))
    assert curve.knee is not None and curve.knee.value == pytest.approx(100)


def test_the_same_points_give_the_same_curve() -> None:
    assert scale_fit.fit(*points(bent)) == scale_fit.fit(*points(bent))
    assert scale_fit.fit(*points(bent)).as_dict()["knee"]["value"] > 0


@pytest.mark.parametrize(
    ("x", "y"), [([10, 10], [1, 2]), ([], []), ([1, 2], [1, 0]), ([1, 2], [1, float("nan")])]
)
def test_what_is_no_curve_is_refused(x, y) -> None:
    with pytest.raises(BenchmarkError):
        scale_fit.fit(x, y)
