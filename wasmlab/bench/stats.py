"""Medians, percentiles and ratios with bootstrap intervals. Pure and seeded.

Latencies are skewed and have outliers that are real, so nothing is averaged and nothing is thrown away. Intervals are
percentile bootstrap intervals: the sample is drawn again with replacement (`RESAMPLES` times), the statistic computed
for each draw, and the middle 95 % of those kept. For medians of 20 or more values they cover the truth at about the
nominal rate (tests/bench/test_stats.py simulates it); with fewer, or for a p95 with less than a hundred values, read
them as a hint.

References
----------
Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasmlab.errors import BenchmarkError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LEVEL = 0.95
RESAMPLES = 2000
SEED = 20260101


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes
    ----------
    value : float
        The statistic of the sample.
    low, high : float
        The interval's ends.
    n : int
        How many values went in.
    level : float
        Nominal coverage.
    """

    value: float
    low: float
    high: float
    n: int
    level: float = LEVEL

    def __format__(self, spec: str) -> str:
        spec = spec or ".3g"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return f"{self:.3g}"


def _clean(values: Any) -> np.ndarray:
    import numpy as np

    array = np.asarray(values, dtype=float)
    array = array[~np.isnan(array)]
    if not array.size:
        raise BenchmarkError(
            "there is no value to summarize", remedy="look at the error column: every run of this arm failed"
        )
    return array


def _draws(
    array: np.ndarray, statistic: Callable, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    import numpy as np

    # In slices, so that 1,000 values times 2,000 draws do not need 16 MB at once on a small machine.
    slice_size = max(1, 1_000_000 // array.size)
    parts = [
        statistic(array[generator.integers(0, array.size, (min(slice_size, resamples - at), array.size))])
        for at in range(0, resamples, slice_size)
    ]
    return np.concatenate(parts)


def _interval(value: float, draws: np.ndarray, n: int, level: float) -> Interval:
    import numpy as np

    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), n, level)


def quantile(
    values: Any, q: float, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Return the `q` quantile of `values` with its interval; NaNs are left out.

    Raises
    ------
    BenchmarkError
        If there are no values.
    """
    import numpy as np

    array = _clean(values)
    draws = _draws(array, lambda rows: np.quantile(rows, q, axis=-1), resamples, np.random.default_rng(seed))
    return _interval(np.quantile(array, q), draws, array.size, level)


def median(values: Any, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """Return the median with its interval; NaNs are left out."""
    return quantile(values, 0.5, level=level, resamples=resamples, seed=seed)


def ratio_of_medians(
    numerator: Any, denominator: Any, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Return how many times larger one median is than another, with its interval.

    Both samples are drawn again independently. On a noisy machine this travels better than the medians themselves.

    Returns
    -------
    Interval
        ``n`` is the smaller sample's size.

    Raises
    ------
    BenchmarkError
        If a sample is empty, or the denominator's median is not positive.
    """
    import numpy as np

    above, below = _clean(numerator), _clean(denominator)
    if np.median(below) <= 0:
        raise BenchmarkError("a ratio needs a positive denominator", remedy="compare measured durations")
    generator = np.random.default_rng(seed)
    top = _draws(above, lambda rows: np.median(rows, axis=-1), resamples, generator)
    bottom = _draws(below, lambda rows: np.median(rows, axis=-1), resamples, generator)
    value = float(np.median(above) / np.median(below))
    return _interval(value, top / bottom, min(above.size, below.size), level)


def summarize(
    frame: pd.DataFrame,
    value: str = "total_ns",
    by: Sequence[str] = ("path", "engine", "mode", "workload"),
    *,
    scale: float = 1e-6,
    seed: int = SEED,
) -> pd.DataFrame:
    """Return one row per arm: how many runs, how many failed, median and p95 with intervals.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows (`wasmlab.bench.store`); failed runs are counted but not measured.
    value : str
        The column to summarize.
    scale : float
        What to multiply by; the default turns nanoseconds into milliseconds.

    Returns
    -------
    DataFrame
        Columns: those of `by`, ``n, failed, median, low, high, p95, p95_low, p95_high, least``; medians are NaN for an
        arm whose every run failed.
    """
    import numpy as np
    import pandas as pd

    rows = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False, observed=True):
        ok = group["ok"].astype(bool)
        values = group.loc[ok, value].dropna().astype(float) * scale
        row: dict[str, Any] = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        row |= {"n": len(values), "failed": int((~ok).sum())}
        if len(values):
            middle, tail = median(values, seed=seed), quantile(values, 0.95, seed=seed)
            row |= {"median": middle.value, "low": middle.low, "high": middle.high}
            row |= {
                "p95": tail.value,
                "p95_low": tail.low,
                "p95_high": tail.high,
                "least": float(values.min()),
            }
        else:
            row |= dict.fromkeys(("median", "low", "high", "p95", "p95_low", "p95_high", "least"), np.nan)
        rows.append(row)
    return pd.DataFrame(rows)
