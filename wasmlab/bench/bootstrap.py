"""The hierarchical bootstrap: blocks are drawn, and their runs come with them. Pure and seeded.

Runs of one block share a minute of the machine, so they resemble each other more than runs of different blocks do, and
an interval that draws single runs is too narrow. Here blocks are drawn with replacement, and the runs within a drawn
block without, that is, all of them. Drawing those with replacement too would count their noise twice: intervals of
three runs per block become a third too wide (tests/bench/test_coverage.py shows both errors). Arms that are compared
are drawn in the same blocks: what a slow block does to both cancels.

Sessions are no level of it: with two or three of them there is nothing to draw from. An interval therefore speaks of
blocks like these, not of other days or machines; for those there is `wasmlab.bench.compare`.

References
----------
Davison, Hinkley: Bootstrap Methods and their Application, 1997, section 3.8 (hierarchical data).
Kalibera, Jones: Rigorous Benchmarking in Reasonable Time, ISMM 2013 (repetition on several levels).
Ren et al.: Nonparametric Bootstrapping for Hierarchical Data, Journal of Applied Statistics 37 (2010), 1487-1498
(with replacement on the highest level, without on all others).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasmlab.errors import BenchmarkError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# A slice of draws holds at most this many values: 2,000 draws of 1,000 runs need not be in memory at once.
_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Sample:
    """The values of one arm, by block.

    Attributes
    ----------
    values : array, shape (blocks, runs)
        Padded with NaN where a block has fewer runs than others; every block has at least one.
    counts : array of int, shape (blocks,)
        How many runs each block has.
    blocks : tuple
        What each block is called, in the order of `values`.
    """

    values: np.ndarray
    counts: np.ndarray
    blocks: tuple[Hashable, ...]

    @property
    def n(self) -> int:
        """The number of values."""
        return int(self.counts.sum())

    @property
    def flat(self) -> np.ndarray:
        """All values, without padding."""
        import numpy as np

        return self.values[~np.isnan(self.values)]

    def only(self, blocks: Sequence[Hashable]) -> Sample:
        """Return the values of these blocks, in this order."""
        import numpy as np

        place = {block: i for i, block in enumerate(self.blocks)}
        chosen = np.array([place[block] for block in blocks], dtype=int)
        return Sample(self.values[chosen], self.counts[chosen], tuple(blocks))


def sample(values: Any, blocks: Sequence[Hashable] | None = None) -> Sample:
    """Sort values into blocks; NaNs are left out.

    Parameters
    ----------
    values : array-like
        One per run.
    blocks : sequence, optional
        The block of each run; without it every value is a block of its own.

    Raises
    ------
    BenchmarkError
        If there are no values.
    """
    import numpy as np

    array = np.asarray(values, dtype=float)
    kept = ~np.isnan(array)
    if not kept.any():
        raise BenchmarkError(
            "there is no value to summarize", remedy="look at the error column: every run of this arm failed"
        )
    if blocks is None:
        names: tuple[Hashable, ...] = tuple(range(array.size))
        return Sample(array[kept][:, None], np.ones(int(kept.sum()), int), _pick(names, kept))
    found: dict[Hashable, list[float]] = {}
    for block, value, keep in zip(blocks, array, kept, strict=True):
        if keep:
            found.setdefault(block, []).append(value)
    counts = np.array([len(one) for one in found.values()])
    padded = np.full((len(found), int(counts.max())), np.nan)
    for row, own in zip(padded, found.values(), strict=True):
        row[: len(own)] = own
    return Sample(padded, counts, tuple(found))


def _pick(names: Sequence[Hashable], kept: np.ndarray) -> tuple[Hashable, ...]:
    return tuple(name for name, keep in zip(names, kept, strict=True) if keep)


def of_frame(frame: pd.DataFrame, value: str, *, scale: float = 1.0) -> Sample:
    """Sort one column of tidy rows into blocks of their sessions.

    Parameters
    ----------
    frame : DataFrame
        Rows of one arm that succeeded; without a column ``block`` every row is a block of its own.
    """
    import numpy as np

    values = frame[value].astype("Float64").to_numpy(dtype=float, na_value=np.nan) * scale
    return sample(values, block_names(frame))


def block_names(frame: pd.DataFrame) -> list[Hashable]:
    """Return what the block of every row is called: its session and number; a row without one is its own block."""
    import numpy as np

    sessions = frame["session"] if "session" in frame else [""] * len(frame)
    if "block" in frame:
        numbers = frame["block"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    else:
        numbers = np.full(len(frame), np.nan)
    return [
        ("alone", row) if np.isnan(number) else (session, int(number))
        for row, (session, number) in enumerate(zip(sessions, numbers, strict=True))
    ]


def quantile_of_rows(matrix: np.ndarray, q: float) -> np.ndarray:
    """Return the `q` quantile of every row, leaving NaNs out; NaN for a row of NaNs.

    Like ``numpy.nanquantile`` (linear interpolation), but with one sort in place of a Python loop over rows.
    """
    import numpy as np

    if matrix.shape[-1] == 1:
        return matrix[..., 0]
    if not np.isnan(matrix).any():
        return np.quantile(matrix, q, axis=-1)
    ordered = np.sort(matrix, axis=-1)  # NaNs last
    known = (~np.isnan(ordered)).sum(axis=-1)
    place = q * np.maximum(known - 1, 0)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, np.maximum(known - 1, 0))
    below, above = (np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0] for at in (low, high))
    return below + (above - below) * (place - low)


def middle_of_rows(matrix: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of every row (the interquartile mean), leaving NaNs out.

    Like the median it does not care how far out the outer quarters are, but it varies less from sample to sample: with
    normal noise by an eighth, so that a comparison needs a quarter fewer runs. It is not the figure that people know,
    so it serves to compare and not to describe.
    """
    import numpy as np

    ordered = np.sort(matrix, axis=-1)  # NaNs last
    known = (~np.isnan(ordered)).sum(axis=-1)
    low = known // 4
    high = known - low
    sums = np.cumsum(np.nan_to_num(ordered), axis=-1)
    sums = np.concatenate([np.zeros((*sums.shape[:-1], 1)), sums], axis=-1)
    upper, lower = (np.take_along_axis(sums, at[..., None], axis=-1)[..., 0] for at in (high, low))
    return np.where(known > 0, (upper - lower) / np.maximum(high - low, 1), np.nan)


def choices(blocks: int, resamples: int, generator: np.random.Generator, width: int = 1) -> Iterator[Any]:
    """Yield draws of blocks, shape (draws, blocks), in slices that fit into memory.

    Parameters
    ----------
    width : int
        How many values a drawn block brings.
    """
    size = max(1, _AT_ONCE // (blocks * width))
    for at in range(0, resamples, size):
        yield generator.integers(0, blocks, (min(size, resamples - at), blocks))


def draws(
    statistic: Callable[[np.ndarray], np.ndarray], one: Sample, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Return `statistic` of every draw, shape (resamples,); it is given all values of a draw as one row."""
    import numpy as np

    one = _drawable(one)
    parts = [
        statistic(one.values[chosen].reshape(len(chosen), -1))
        for chosen in choices(len(one.blocks), resamples, generator, one.values.shape[1])
    ]
    return np.concatenate(parts)


def paired_draws(
    statistic: Callable[[np.ndarray], np.ndarray],
    above: Sample,
    below: Sample,
    resamples: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return `statistic` of every draw of two arms that are drawn in the same blocks.

    Both must have the same blocks in the same order (`Sample.only`).
    """
    import numpy as np

    width = max(above.values.shape[1], below.values.shape[1])
    tops, bottoms = [], []
    for chosen in choices(len(above.blocks), resamples, generator, width):
        tops.append(statistic(above.values[chosen].reshape(len(chosen), -1)))
        bottoms.append(statistic(below.values[chosen].reshape(len(chosen), -1)))
    return np.concatenate(tops), np.concatenate(bottoms)


def _drawable(one: Sample) -> Sample:
    """Return the sample; if it is a single block, with its runs as blocks: from one there is nothing to draw."""
    return sample(one.flat) if len(one.blocks) == 1 else one
