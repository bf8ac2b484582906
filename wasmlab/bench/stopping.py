"""When a measurement may end: narrow enough, or the budget is spent. Pure.

The rule looks at the *width* of intervals and never at where they lie. Stopping as soon as a difference is significant
finds one sooner or later where there is none: every look is another chance (Armitage, McPherson, Rowe 1969: with ten
looks at the 5 % level, 19 %). How wide an interval is says next to nothing about on which side of a value it lies, so
stopping on precision keeps the coverage near its nominal rate (Chow, Robbins 1965, for large samples;
tests/bench/test_stopping.py simulates this rule). What is left of the error comes from stopping when chance makes an
interval look narrower than it is. Hence three precautions: not before `min_blocks`, a look only every `check_every`
blocks, and the width must suffice at two looks in a row.

References
----------
Armitage, McPherson, Rowe: Repeated Significance Tests on Accumulating Data, JRSS A 132 (1969), 235-244.
Chow, Robbins: On the Asymptotic Theory of Fixed-Width Sequential Confidence Intervals for the Mean, Annals of
Mathematical Statistics 36 (1965), 457-462.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wasmlab.bench import bootstrap, stats
from wasmlab.errors import BenchmarkError

if TYPE_CHECKING:
    import pandas as pd

# Intervals that only decide when to stop need fewer draws than those that are shown.
_RESAMPLES = 500
_KEYS = ["path", "engine", "mode", "workload"]


@dataclass(frozen=True)
class Stopping:
    """When to end a measurement before all planned blocks are done.

    Attributes
    ----------
    precision : float or None
        Stop when the 95 % interval of every arm's median is no wider than plus or minus this share of the median; 0.05
        is 5 %. None: only the budget ends it.
    min_blocks : int
        Not before so many blocks.
    check_every : int
        Look only after every so many blocks.
    max_runs : int or None
        Budget: start no block that would exceed so many runs.
    max_seconds : float or None
        Budget: start no block that would end later, going by the longest block so far.
    value : str
        The column whose medians must be known.
    """

    precision: float | None = None
    min_blocks: int = 20
    check_every: int = 5
    max_runs: int | None = None
    max_seconds: float | None = None
    value: str = "total_ns"

    def __post_init__(self) -> None:
        limits = (self.precision, self.max_runs, self.max_seconds)
        if all(limit is None for limit in limits):
            raise BenchmarkError(
                "the rule for stopping never stops", remedy="give precision, max_runs or max_seconds"
            )
        if any(limit is not None and not limit > 0 for limit in limits):
            raise BenchmarkError(
                "precision, max_runs and max_seconds must be positive", remedy="leave out what is no limit"
            )
        if self.min_blocks < 1 or self.check_every < 1:
            raise BenchmarkError(
                "min_blocks and check_every count blocks from 1", remedy="give 1 or more of each"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the rule as it goes into a plan file and into metadata."""
        return asdict(self)

    def spent(self, runs: int, next_runs: int, elapsed_s: float, longest_block_s: float) -> str | None:
        """Return which budget does not allow another block: ``runs``, ``seconds``, or None.

        Parameters
        ----------
        runs : int
            Done so far; the first block is always allowed.
        next_runs : int
            How many the next block adds.
        """
        if not runs:
            return None
        if self.max_runs is not None and runs + next_runs > self.max_runs:
            return "runs"
        if self.max_seconds is not None and elapsed_s + longest_block_s > self.max_seconds:
            return "seconds"
        return None

    def is_look(self, blocks: int) -> bool:
        """Whether the width is looked at after so many blocks."""
        if self.precision is None:
            return False
        # The look before `min_blocks` is the first of the two that must suffice.
        return blocks % self.check_every == 0 and blocks + self.check_every >= self.min_blocks

    def may_end(self, blocks: int, widths: list[float]) -> bool:
        """Whether the last two looks found every interval narrow enough.

        Parameters
        ----------
        widths : list of float
            The widest relative half width at every look so far, the last one after `blocks` blocks.
        """
        if self.precision is None or blocks < self.min_blocks or len(widths) < 2:
            return False
        return all(width <= self.precision for width in widths[-2:])


def widest(frame: pd.DataFrame, value: str = "total_ns") -> tuple[str, float]:
    """Return the arm whose median is known least well, and the half width of its interval as a share of the median.

    An arm with less than two values is known infinitely badly; one whose every run failed is left out, since no number
    of blocks will help it.
    """
    found = ("", 0.0)
    for key, group in frame.groupby(_KEYS, sort=False):
        rows = stats.arm_rows(group)
        rows = rows[rows[value].notna()]
        if rows.empty:
            continue
        one = bootstrap.of_frame(rows, value)
        width = math.inf
        if len(one.blocks) > 1:
            width = stats.median(one, resamples=_RESAMPLES).relative_half_width
        if width >= found[1]:
            found = ("/".join(map(str, key)), width)
    return found


def tell(stopped: Mapping[str, Any]) -> str:
    """Say in one line why a measurement ended and how well its medians are known.

    Parameters
    ----------
    stopped : mapping
        ``results.plan["stopped"]``: ``because, blocks, runs, seconds, widest_arm, relative_half_width, precision``.
    """
    why = {
        "precision": "every median is known well enough",
        "runs": "the budget of runs is spent",
        "seconds": "the budget of time is spent",
        "blocks": "all planned blocks are done",
        "interrupted": "interrupted",
    }[stopped["because"]]
    text = (
        f"ended after {stopped['blocks']} blocks, {stopped['runs']:,} runs, {stopped['seconds']:.0f} s: {why}"
    )
    width = stopped.get("relative_half_width")
    if width is not None:
        text += f"; the widest interval is ±{width:.1%} ({stopped['widest_arm']})"
        if stopped.get("precision") is not None:
            text += f", ±{stopped['precision']:.1%} was asked for"
    return text
