"""The intervals do what they claim, in simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wasmlab.bench import stats
from wasmlab.errors import BenchmarkError


def latencies(generator: np.random.Generator, size: int, scale: float = 1.0) -> np.ndarray:
    """Log-normal with a heavy tail now and then: what start times look like."""
    values = scale * generator.lognormal(0.0, 0.4, size)
    return np.where(generator.random(size) < 0.03, values * 10, values)


# The median of that mixture, by brute force.
TRUE_MEDIAN = float(np.median(latencies(np.random.default_rng(0), 2_000_000)))


@pytest.mark.parametrize("n", [20, 60])
def test_median_intervals_cover_at_about_the_nominal_rate(n: int) -> None:
    generator = np.random.default_rng(12)
    trials, hits = 600, 0
    for trial in range(trials):
        interval = stats.median(latencies(generator, n), resamples=500, seed=trial)
        hits += interval.low <= TRUE_MEDIAN <= interval.high
    # Three standard errors of a binomial around 95 %, and a little for the bootstrap's known optimism.
    assert 0.91 <= hits / trials <= 0.985


def test_ratio_intervals_cover_a_planted_ratio() -> None:
    generator = np.random.default_rng(13)
    trials, hits = 400, 0
    for trial in range(trials):
        a, b = latencies(generator, 30, 1.5), latencies(generator, 40)
        interval = stats.ratio_of_medians(a, b, resamples=400, seed=trial)
        hits += interval.low <= 1.5 <= interval.high
    assert 0.91 <= hits / trials <= 0.99


def test_a_planted_difference_is_found_and_none_is_invented() -> None:
    generator = np.random.default_rng(14)
    found = invented = 0
    for trial in range(100):
        base = latencies(generator, 50)
        found += (
            stats.ratio_of_medians(latencies(generator, 50, 1.6), base, resamples=400, seed=trial).low > 1
        )
        same = stats.ratio_of_medians(latencies(generator, 50), base, resamples=400, seed=trial)
        invented += not same.low <= 1 <= same.high
    assert found >= 95
    assert invented <= 10


def test_values_are_right_and_seeded() -> None:
    values = [3.0, 1.0, 2.0, float("nan"), 100.0, 2.5]
    first = stats.median(values)
    assert first.value == 2.5 and first.n == 5
    assert first.low <= first.value <= first.high
    assert first == stats.median(values)
    assert stats.quantile(range(101), 0.95).value == 95


def test_an_outlier_moves_the_median_little() -> None:
    calm = stats.median([1.0] * 30)
    assert stats.median([1.0] * 30 + [1e9]).value == calm.value == 1.0
    assert calm.low == calm.high == 1.0


def test_large_samples_are_drawn_in_slices() -> None:
    interval = stats.median(np.arange(3001.0), resamples=1000)
    assert interval.value == 1500
    assert 1400 < interval.low < 1500 < interval.high < 1600


def test_formatting() -> None:
    assert f"{stats.Interval(14.04, 13.2, 15.91, 200):.1f}" == "14.0 [13.2, 15.9]"
    assert str(stats.Interval(2.0, 1.0, 3.0, 3)) == "2 [1, 3]"


def test_nothing_to_summarize() -> None:
    with pytest.raises(BenchmarkError, match="no value"):
        stats.median([float("nan")])
    with pytest.raises(BenchmarkError, match="positive denominator"):
        stats.ratio_of_medians([1.0], [0.0])


def test_summary_counts_failures_but_does_not_measure_them() -> None:
    frame = pd.DataFrame(
        {
            "path": "local",
            "engine": ["wasmtime"] * 4 + ["wasmer"],
            "mode": "warm",
            "workload": "hello",
            "ok": [True, True, True, False, False],
            "total_ns": [1e6, 2e6, 3e6, 9e9, None],
        }
    )
    table = stats.summarize(frame).set_index("engine")
    assert table.loc["wasmtime", ["n", "failed", "median", "least"]].tolist() == [3, 1, 2.0, 1.0]
    assert table.loc["wasmer", ["n", "failed"]].tolist() == [0, 1]
    assert np.isnan(table.loc["wasmer", "median"])
