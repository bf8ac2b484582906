"""Cost curves: a line through cost against size, or two lines with a knee between them. Pure and seeded.

What a size N costs is modelled as ``intercept + slope * N``, up to a knee as that and from there on with another slope.
Each point is one value of one block (a burst's duration, a level's median), so that points are independent; noise is
taken to be proportional to the value, so points are weighted by the median of their size.

A knee is named only if all of this holds, else the answer is "no knee found up to N":

- There are enough sizes and points to tell one (`MIN_SIZES`, `MIN_POINTS`).
- Two lines fit better than one beyond chance: the improvement is compared with that of curves that have no knee,
  simulated from the fitted line with the residuals drawn again (the location of the knee is searched for, so the
  ordinary F distribution would raise far too many false alarms).
- It matters: at the largest size the first line alone would be off by more than `MATERIAL`.

References
----------
Davies: Hypothesis testing when a nuisance parameter is present only under the alternative, Biometrika 74, 1987.
Hansen: Sample splitting and threshold estimation, Econometrica 68, 2000 (the bootstrap of the statistic).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wasmlab.bench.stats import LEVEL, SEED, Interval
from wasmlab.errors import BenchmarkError

if TYPE_CHECKING:
    import numpy as np

MIN_SIZES = 5
MIN_POINTS = 8
MATERIAL = 0.15
ALPHA = 0.01
RESAMPLES = 499
_GRID = 48


@dataclass(frozen=True)
class Curve:
    """A fitted cost curve.

    Attributes
    ----------
    intercept : float
        Cost at size 0, in the unit of y.
    slope : Interval
        Cost of one more, up to the knee if there is one; through two points its ends are NaN.
    knee : Interval or None
        The size at which the slope changes.
    slope_after : Interval or None
        Cost of one more, beyond the knee.
    why_not : str
        Why there is no knee: ``"no knee found up to 1,000"``, or that there is too little to tell; empty with one.
    p : float or None
        How often a curve without a knee would look as bent; None if none was looked for.
    smallest, largest : float
        The sizes that were measured.
    n : int
        How many points.
    """

    intercept: float
    slope: Interval
    knee: Interval | None
    slope_after: Interval | None
    why_not: str
    p: float | None
    smallest: float
    largest: float
    n: int

    def at(self, size: Any) -> Any:
        """Return the curve's value at a size, or at an array of sizes."""
        import numpy as np

        size = np.asarray(size, float)
        value = self.intercept + self.slope.value * size
        if self.knee is not None and self.slope_after is not None:
            value = value + (self.slope_after.value - self.slope.value) * np.maximum(
                0, size - self.knee.value
            )
        return value

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; an end of an interval that nobody knows is None."""

        def known(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: known(one) for key, one in value.items()}
            return None if isinstance(value, float) and value != value else value

        return known(asdict(self))


def fit(
    sizes: Sequence[float],
    costs: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Curve:
    """Fit a line, or two with a knee if the points demand it.

    Parameters
    ----------
    sizes : sequence of float
        N of each point; several points of one size are repetitions.
    costs : sequence of float
        What it cost, in any unit; positive.
    groups : sequence, optional
        Which points share an intercept of their own: memory, say, of which a process keeps some from block to block.
        The curve's intercept is the mean of theirs.

    Returns
    -------
    Curve
        With bootstrap intervals of slopes and knee.

    Raises
    ------
    BenchmarkError
        If there are fewer than two sizes, or a cost is not positive.
    """
    import numpy as np

    x, y = np.asarray(sizes, float), np.asarray(costs, float)
    distinct = np.unique(x)
    if x.shape != y.shape or distinct.size < 2:
        raise BenchmarkError(
            f"a cost curve needs two sizes at least, here are {distinct.size}", remedy="measure more sizes"
        )
    if not (y > 0).all():  # NaN neither
        raise BenchmarkError(
            "a cost must be positive", remedy="leave out sizes at which nothing was measured"
        )
    scale = np.array([np.median(y[x == one]) for one in x])
    generator = np.random.default_rng(seed)
    own = _intercepts(x, groups)
    line = _Model(x, scale, None, own)
    measured: dict[str, Any] = {
        "smallest": float(distinct[0]),
        "largest": float(distinct[-1]),
        "n": int(x.size),
    }
    reason = _too_little(distinct.size, x.size - (own.shape[1] - 1))
    p: float | None = None
    if not reason:
        bent = [_Model(x, scale, knee, own) for knee in _candidates(distinct)]
        knee, p = _test(line, bent, y / scale, resamples, generator)
        best = bent[knee]
        if p <= ALPHA and best.bend(y / scale) > MATERIAL:
            return _with_knee(bent, best, y / scale, resamples, generator, p, measured)
        reason = f"no knee found up to {distinct[-1]:,.10g}"
    intercept, value, _ = line.solve(y / scale)
    _, draws, _ = line.solve(_again(line, y / scale, resamples, generator))
    slope = _interval(float(value), draws, x.size)
    if x.size <= line.design.shape[1]:
        # A line through two points has no residuals: nobody knows how sure it is.
        slope = Interval(slope.value, np.nan, np.nan, x.size)
    return Curve(float(intercept), slope, None, None, reason, p, **measured)


def _intercepts(x: np.ndarray, groups: Sequence[Hashable] | None) -> np.ndarray:
    """Return one column per group, 1 where a point belongs to it; a single one if groups would explain the slope."""
    import numpy as np

    names, place = np.unique([str(one) for one in groups or ()], return_inverse=True)
    if not any(np.unique(x[place == one]).size > 1 for one in range(names.size)):
        return np.ones((x.size, 1))
    return np.eye(names.size)[place]


def _too_little(sizes: int, points: int) -> str:
    if sizes < MIN_SIZES:
        return f"{sizes} sizes are too few to tell a knee"
    if points < MIN_POINTS:
        return f"{points} points are too few to tell a knee"
    return ""


def _candidates(distinct: np.ndarray) -> np.ndarray:
    """Return where a knee is looked for: with two sizes at least on either side."""
    import numpy as np

    low, high = distinct[1], distinct[-2]
    # Sizes are usually chosen in ratios: a knee at 20 is as far from 10 as one at 200 from 100.
    spaced = np.geomspace(low, high, _GRID) if low > 0 else np.linspace(low, high, _GRID)
    return np.unique(np.concatenate([spaced, distinct[1:-1]]))


class _Model:
    """A weighted least squares fit that is solved for many samples at once; its design is factored only once."""

    def __init__(self, x: np.ndarray, scale: np.ndarray, knee: float | None, intercepts: np.ndarray) -> None:
        import numpy as np

        columns = [intercepts, x[:, None]] + ([] if knee is None else [np.maximum(0, x - knee)[:, None]])
        self.knee = knee
        self.design = np.concatenate(columns, axis=1) / scale[:, None]
        self._intercepts = intercepts.shape[1]
        self._largest = float(x.max())
        self._q, self._r = np.linalg.qr(self.design)

    def solve(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return intercept (the mean of all), slope, and its change at the knee, of every sample."""
        import numpy as np

        found = np.linalg.solve(self._r, self._q.T @ samples)
        intercept, slope = found[: self._intercepts].mean(axis=0), found[self._intercepts]
        return intercept, slope, np.zeros_like(slope) if self.knee is None else found[self._intercepts + 1]

    def fitted(self, samples: np.ndarray) -> np.ndarray:
        """Return the model's values."""
        return self._q @ (self._q.T @ samples)

    def left(self, samples: np.ndarray) -> np.ndarray:
        """Return the sum of squares that is left unexplained, for every sample."""
        return ((samples - self.fitted(samples)) ** 2).sum(axis=0)

    def bend(self, sample: np.ndarray) -> float:
        """Return by which share of the cost the first line alone is off at the largest size."""
        intercept, slope, change = self.solve(sample)
        assert self.knee is not None
        off = change * (self._largest - self.knee)
        whole = intercept + slope * self._largest + off
        return float(abs(off) / abs(whole)) if whole else 0.0


def _again(model: _Model, sample: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Return samples of the fitted model with its residuals drawn again, one per column."""
    fitted = model.fitted(sample)
    parameters = model.design.shape[1] + (model.knee is not None)
    # Residuals of a fit are smaller than the noise: it has bent itself towards them.
    inflated = (sample - fitted) * (sample.size / max(1, sample.size - parameters)) ** 0.5
    return fitted[:, None] + inflated[generator.integers(0, sample.size, (sample.size, resamples))]


def _test(
    line: _Model, bent: list[_Model], sample: np.ndarray, resamples: int, generator: np.random.Generator
) -> tuple[int, float]:
    """Return which candidate fits best, and how often a curve without a knee gains as much by one."""
    import numpy as np

    def gains(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        straight = line.left(samples)
        rest = np.stack([model.left(samples) for model in bent])
        best = rest.argmin(axis=0)
        least = np.maximum(rest.min(axis=0), 1e-12 * straight + 1e-300)
        return best, (straight - least) / least

    best, gain = gains(sample[:, None])
    winner = bent[int(best[0])]
    # The null is the straight line; its noise is judged by the better model, else a real bend would pass for noise.
    noise = _again(winner, sample, resamples, generator) - winner.fitted(sample)[:, None]
    _, by_chance = gains(line.fitted(sample)[:, None] + noise)
    return int(best[0]), float((1 + (by_chance >= gain[0]).sum()) / (1 + resamples))


def _with_knee(
    bent: list[_Model],
    best: _Model,
    sample: np.ndarray,
    resamples: int,
    generator: np.random.Generator,
    p: float,
    measured: dict[str, Any],
) -> Curve:
    import numpy as np

    samples = _again(best, sample, resamples, generator)
    which = np.stack([model.left(samples) for model in bent]).argmin(axis=0)
    knees = np.array([bent[one].knee for one in which], float)
    # Of each sample the coefficients at its own best knee: the slopes' intervals know that the knee is a guess.
    draws = np.array([bent[one].solve(samples[:, column]) for column, one in enumerate(which)]).T
    intercept, slope, change = (float(one) for one in best.solve(sample))
    n = sample.size
    assert best.knee is not None
    return Curve(
        intercept,
        _interval(slope, draws[1], n),
        _interval(best.knee, knees, n),
        _interval(slope + change, draws[1] + draws[2], n),
        "",
        p,
        **measured,
    )


def _interval(value: float, draws: np.ndarray, n: int) -> Interval:
    import numpy as np

    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(min(low, value)), float(max(high, value)), n)
