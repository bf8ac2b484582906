"""Medians, percentiles and ratios with bootstrap intervals. Pure and seeded.

Latencies are skewed and have outliers that are real, so nothing is averaged and nothing is thrown away. Intervals are
percentile intervals of a hierarchical bootstrap (`wasmlab.bench.bootstrap`): blocks are drawn again with replacement
(`RESAMPLES` times), all runs of a block with it, the statistic is computed for each draw, and the middle 95 % of those
are kept. Ratios of two arms draw both in the same blocks. For medians of 20 or more blocks they cover the truth at
about the nominal rate (tests/bench/test_coverage.py simulates it); with fewer, or for a p95 with less than a hundred
values, read them as a hint.

References
----------
Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13 (percentile intervals).
Kalibera, Jones: Rigorous Benchmarking in Reasonable Time, ISMM 2013 (ratios with intervals, on hierarchical data).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasmlab.bench import bootstrap
from wasmlab.errors import BenchmarkError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from wasmlab.bench.bootstrap import Sample

LEVEL = 0.95
RESAMPLES = 2000
SEED = 20260101
FEWEST = 6


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

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width as a share of the value: 0.05 is "plus or minus 5 %"."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else float("inf")


def _interval(value: float, draws: np.ndarray, n: int, level: float) -> Interval:
    import numpy as np

    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), n, level)


def quantile(
    values: Any,
    q: float,
    *,
    blocks: Sequence | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """Return the `q` quantile of `values` with its interval; NaNs are left out.

    Parameters
    ----------
    values : array-like or Sample
        One value per run.
    blocks : sequence, optional
        The block of each run; without it every run is a block of its own.

    Raises
    ------
    BenchmarkError
        If there are no values.
    """
    import numpy as np

    one = values if isinstance(values, bootstrap.Sample) else bootstrap.sample(values, blocks)
    draws = bootstrap.draws(_quantile(q), one, resamples, np.random.default_rng(seed))
    return _interval(np.quantile(one.flat, q), draws, one.n, level)


def median(
    values: Any,
    *,
    blocks: Sequence | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """Return the median with its interval; NaNs are left out."""
    return quantile(values, 0.5, blocks=blocks, level=level, resamples=resamples, seed=seed)


def _quantile(q: float) -> Any:
    return lambda rows: bootstrap.quantile_of_rows(rows, q)


def ratio_of_medians(
    numerator: Any, denominator: Any, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Return how many times larger one median is than another, with its interval.

    Two samples that share blocks (`Sample`) are drawn in the same blocks, and only those both have are compared. Plain
    values, and samples of which most blocks are not shared, are drawn independently. On a noisy machine a ratio travels
    better than the medians themselves.

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

    above, below, paired = _pair(numerator, denominator)
    if np.median(below.flat) <= 0:
        raise BenchmarkError("a ratio needs a positive denominator", remedy="compare measured durations")
    generator = np.random.default_rng(seed)
    middle = _quantile(0.5)
    if paired:
        top, bottom = bootstrap.paired_draws(middle, above, below, resamples, generator)
    else:
        top, bottom = (bootstrap.draws(middle, one, resamples, generator) for one in (above, below))
    value = float(np.median(above.flat) / np.median(below.flat))
    return _interval(value, top / bottom, min(above.n, below.n), level)


def _pair(numerator: Any, denominator: Any) -> tuple[Sample, Sample, bool]:
    if not (isinstance(numerator, bootstrap.Sample) and isinstance(denominator, bootstrap.Sample)):
        above, below = (
            one if isinstance(one, bootstrap.Sample) else bootstrap.sample(one)
            for one in (numerator, denominator)
        )
        return above, below, False
    known = set(denominator.blocks)
    shared = [block for block in numerator.blocks if block in known]
    # Fewer would throw away more than pairing wins.
    if len(shared) < 2 or 2 * len(shared) <= min(len(numerator.blocks), len(denominator.blocks)):
        return numerator, denominator, False
    return numerator.only(shared), denominator.only(shared), True


def arm_rows(frame: pd.DataFrame, **arm: str) -> pd.DataFrame:
    """Return the rows of one arm that count: it succeeded, and does not belong to the warm-up.

    Parameters
    ----------
    **arm : str
        Any of ``path``, ``engine``, ``mode``, ``workload``.
    """
    kept = frame["ok"].astype(bool)
    if "warmup" in frame:
        kept &= ~frame["warmup"].astype(bool)
    for column, wanted in arm.items():
        kept &= frame[column] == wanted
    return frame[kept]


def ratio(
    frame: pd.DataFrame,
    above: Mapping[str, str],
    below: Mapping[str, str],
    value: str = "total_ns",
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """Return how many times longer one arm takes than another: the ratio of their medians, paired by block.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows (`wasmlab.bench.store`).
    above, below : mapping
        Which rows: any of ``path``, ``engine``, ``mode``, ``workload``.
    value : str
        The column to compare.

    Raises
    ------
    BenchmarkError
        If an arm has no value.
    """
    top, bottom = (bootstrap.of_frame(arm_rows(frame, **arm), value) for arm in (above, below))
    return ratio_of_medians(top, bottom, level=level, resamples=resamples, seed=seed)


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
        Tidy rows (`wasmlab.bench.store`); failed runs and those of the warm-up are counted but not measured.
    value : str
        The column to summarize.
    scale : float
        What to multiply by; the default turns nanoseconds into milliseconds.
    by : sequence of str
        The columns that make an arm.
    seed : int
        Of the bootstrap draws.

    Returns
    -------
    DataFrame
        Columns: those of `by`, ``n, failed, median, low, high, p95, p95_low, p95_high, least, warmup``; medians are NaN
        for an arm whose every run failed.
    """
    import numpy as np
    import pandas as pd

    rows = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False, observed=True):
        kept = arm_rows(group)
        kept = kept[kept[value].notna()]
        failed = int((~group["ok"].astype(bool)).sum())
        row: dict[str, Any] = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        row |= {"n": len(kept), "failed": failed}
        if len(kept):
            one = bootstrap.of_frame(kept, value, scale=scale)
            middle, tail = median(one, seed=seed), quantile(one, 0.95, seed=seed)
            row |= {"median": middle.value, "low": middle.low, "high": middle.high}
            row |= {
                "p95": tail.value,
                "p95_low": tail.low,
                "p95_high": tail.high,
                "least": float(one.flat.min()),
            }
        else:
            row |= dict.fromkeys(("median", "low", "high", "p95", "p95_low", "p95_high", "least"), np.nan)
        row["warmup"] = int(group["warmup"].astype(bool).sum()) if "warmup" in group else 0
        rows.append(row)
    return pd.DataFrame(rows)
