"""Steps of the whole environment inside a measurement: the machine became slower or faster between two blocks. Pure.

The control arms say what a block was like: the environment's level of a block is the mean, over the controls, of the
logarithm of their median there, each relative to its own median over all blocks. What moves the controls did not come
from any arm. A step is looked for in the ranks of the levels, so one slow block is none, and is reported if chance
makes one like it in at most 1 % of steady measurements *and* it is larger than `MATTERS`.

References
----------
Pettitt: A Non-Parametric Approach to the Change-Point Problem, Applied Statistics 28 (1979), 126-135.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasmlab.bench import bootstrap, stats
from wasmlab.bench.stats import Interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from wasmlab.bench.plan import Arm

ALPHA = 0.01
MATTERS = 0.1
# A step next to the end of a series is a few odd blocks.
_SHORTEST = 4


@dataclass(frozen=True)
class Step:
    """The environment changed between two blocks of a session.

    Attributes
    ----------
    session : str
        Which measurement.
    block : int
        The first block after the step.
    ratio : Interval
        Level after over level before, within the neighboring steady stretches.
    p : float
        How often chance makes such a step in a steady series (Pettitt's approximation).
    """

    session: str
    block: int
    ratio: Interval
    p: float

    def __str__(self) -> str:
        return f"from block {self.block} on everything, the control too, took {self.ratio:.2f} times as long"


def is_control(arm: Arm) -> bool:
    """Whether an arm is there to tell what the machine is like, and not to be judged."""
    return arm.path == "control"


def control_levels(frame: pd.DataFrame, value: str = "total_ns") -> tuple[list[Hashable], np.ndarray]:
    """Return the blocks that have a control, in order, and the environment's level of each (logarithms, around 0)."""
    import numpy as np

    rows = stats.arm_rows(frame, path="control")
    rows = rows[rows[value].notna()]
    sums: dict[Hashable, list[float]] = {}
    for _, own in rows.groupby("workload", sort=False):
        one = bootstrap.of_frame(own, value)
        logs = np.log(bootstrap.quantile_of_rows(one.values, 0.5))
        for block, level in zip(one.blocks, logs - np.median(logs), strict=True):
            sums.setdefault(block, []).append(level)
    order = [block for block in dict.fromkeys(bootstrap.block_names(frame)) if block in sums]
    return order, np.array([np.mean(sums[block]) for block in order])


def find_step(levels: Any) -> tuple[int, float]:
    """Return where a series most likely has a step, and how often chance alone would make one like it.

    Returns
    -------
    position : int
        Index of the first value after the step.
    p : float
    """
    import numpy as np

    levels = np.asarray(levels, dtype=float)
    n = levels.size
    if n < 2 * _SHORTEST:
        return 0, 1.0
    ranks = _ranks(levels)
    sums = 2 * np.cumsum(ranks)[:-1] - np.arange(1, n) * (n + 1)
    inner = np.abs(sums[_SHORTEST - 1 : n - _SHORTEST])
    position = int(np.argmax(inner)) + _SHORTEST
    p = 2 * np.exp(-6 * float(inner.max()) ** 2 / (n**3 + n**2))
    return position, min(1.0, float(p))


def _ranks(levels: np.ndarray) -> np.ndarray:
    import numpy as np

    _, inverse, counts = np.unique(levels, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]  # equal values share their mean rank


def environment_steps(frame: pd.DataFrame, value: str = "total_ns", *, alpha: float = ALPHA) -> list[Step]:
    """Return the steps of the environment inside each session, in order; none where there is no control.

    Found by splitting a series at its most likely step for as long as that is one (binary segmentation).
    """
    found = []
    for session, own in frame.groupby("session", sort=False):
        blocks, levels = control_levels(own, value)
        numbers = [block[1] for block in blocks]  # type: ignore[index]
        bounds = _split(levels, 0, alpha)
        edges = [0, *(position for position, _ in bounds), len(levels)]
        for i, (position, p) in enumerate(bounds):
            left, right = levels[edges[i] : position], levels[position : edges[i + 2]]
            ratio = _ratio(left, right)
            if abs(ratio.value - 1) > MATTERS:
                found.append(Step(str(session), numbers[position], ratio, p))
    return found


def _split(levels: np.ndarray, start: int, alpha: float) -> list[tuple[int, float]]:
    position, p = find_step(levels)
    if p > alpha:
        return []
    left = _split(levels[:position], start, alpha)
    right = _split(levels[position:], start + position, alpha)
    return [*left, (start + position, p), *right]


def _ratio(left: np.ndarray, right: np.ndarray) -> Interval:
    import numpy as np

    return stats.ratio_of_medians(np.exp(right), np.exp(left))
