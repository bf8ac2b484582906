"""By how much arms changed between two measurements, with simultaneous intervals; numbers only, no verdict. Pure.

`wasmlab.bench.compare` says how this works and what is concluded from it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wasmlab.bench import bootstrap, stats
from wasmlab.bench.bootstrap import Sample
from wasmlab.bench.plan import Arm
from wasmlab.bench.stats import Interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_KEYS = ["path", "engine", "mode", "workload"]


class Side:
    """One of two measurements: the logarithms of every arm's times, all arms on the same blocks.

    Parameters
    ----------
    blocks : sequence
        What the blocks are called, in order.
    arms : mapping
        Arm -> its values; blocks that an arm lacks are filled in as empty.
    failed : mapping, optional
        Arm -> how many of its runs failed.
    """

    def __init__(
        self, blocks: Sequence[Hashable], arms: Mapping[Arm, Sample], failed: Mapping[Arm, int] | None = None
    ) -> None:
        self.blocks = tuple(blocks)
        self.arms = {arm: self._aligned(own) for arm, own in arms.items()}
        self.failed = dict(failed or {})

    @classmethod
    def of(cls, frame: pd.DataFrame, value: str) -> Side:
        """Take one column of tidy rows; failed runs and the warm-up are left out."""
        import numpy as np

        frame = frame.assign(_block=bootstrap.block_names(frame))
        arms, failed = {}, {}
        for key, group in frame.groupby(_KEYS, sort=False):
            arm = Arm(*key)
            failed[arm] = int((~group["ok"]).sum())
            kept = stats.arm_rows(group)
            times = kept[value].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
            positive = times > 0
            if positive.any():
                arms[arm] = bootstrap.sample(np.log(times[positive]), kept["_block"][positive].tolist())
            else:
                arms[arm] = Sample(np.empty((0, 1)), np.empty(0, int), ())
        return cls(list(dict.fromkeys(frame["_block"])), arms, failed)

    def _aligned(self, own: Sample) -> Sample:
        import numpy as np

        place = {block: i for i, block in enumerate(self.blocks)}
        where = [place[block] for block in own.blocks]
        values = np.full((len(self.blocks), own.values.shape[1]), np.nan)
        counts = np.zeros(len(self.blocks), int)
        values[where], counts[where] = own.values, own.counts
        return Sample(values, counts, self.blocks)

    def blocks_of(self, arm: Arm) -> int:
        """Return how many blocks have a value of the arm."""
        return int((self.arms[arm].counts > 0).sum())

    def levels(self, arms: Sequence[Arm]) -> list[np.ndarray]:
        """Return each arm's level of every block, shape (1, blocks): the median of its runs there."""
        return [bootstrap.quantile_of_rows(self.arms[arm].values, 0.5)[None, :] for arm in arms]


@dataclass(frozen=True)
class Changes:
    """Ratios, after over before.

    Attributes
    ----------
    raw : dict
        Arm -> interval, as measured.
    adjusted : dict
        Arm -> interval, divided by the controls; empty without any.
    environment : Interval or None
        The controls' own.
    """

    raw: dict[Arm, Interval]
    adjusted: dict[Arm, Interval]
    environment: Interval | None


def changes(
    before: Side,
    after: Side,
    arms: Sequence[Arm],
    controls: Sequence[Arm],
    *,
    level: float = stats.LEVEL,
    resamples: int = stats.RESAMPLES,
    seed: int = stats.SEED,
) -> Changes:
    """Return by how much each arm and the environment changed.

    Parameters
    ----------
    arms, controls : sequence of Arm
        Each with values on both sides.

    Returns
    -------
    Changes
        With probability `level` none of the adjusted intervals and the environment's misses; nor does any raw one.
    """
    import numpy as np

    if not arms and not controls:
        return Changes({}, {}, None)
    sides = before, after
    # Controls of different length are put on one scale before they are averaged: a block that lost one of them to a
    # failure must not look faster or slower for that.
    reference = np.array([np.nanmedian(levels) for levels in before.levels(controls)])
    slopes = _slopes(sides, arms, controls, reference)
    measured, resampled = [], []
    for side, generator in zip(sides, np.random.default_rng(seed).spawn(2), strict=True):
        own, common = side.levels(arms), side.levels(controls)
        measured.append(_middles(own, common, reference, slopes)[0])
        draws = [
            # All runs of a drawn block come with it, so that its levels do not change.
            _middles([one[0][chosen] for one in own], [one[0][chosen] for one in common], reference, slopes)
            for chosen in bootstrap.choices(len(side.blocks), resamples, generator)
        ]
        resampled.append(np.concatenate(draws))
    change = measured[1] - measured[0]
    deviations = resampled[1] - resampled[0] - change
    blocks = [min(side.blocks_of(arm) for side in sides) for arm in arms]

    def ratios(part: slice) -> list[Interval]:
        bounds = _simultaneous(change[part], deviations[:, part], level)
        return [Interval(*one, n, level) for one, n in zip(bounds, [*blocks, 0], strict=False)]

    raw = dict(zip(arms, ratios(slice(0, len(arms))), strict=True))
    if not controls:
        return Changes(raw, {}, None)
    *adjusted, environment = ratios(slice(len(arms), None))
    n = min(side.blocks_of(arm) for side in sides for arm in controls)
    return Changes(raw, dict(zip(arms, adjusted, strict=True)), replace(environment, n=n))


def _middles(
    arms: Sequence[np.ndarray],
    controls: Sequence[np.ndarray],
    reference: np.ndarray,
    slopes: np.ndarray,
) -> np.ndarray:
    """Return, for every draw: each arm's middle; if there are controls, each relative to them; the controls' own."""
    import numpy as np

    found = [bootstrap.middle_of_rows(one) for one in arms]
    if controls:
        levels = _together(controls, reference)
        middle = bootstrap.middle_of_rows(levels)
        # A block without a control is not corrected.
        beyond = np.nan_to_num(levels - middle[:, None])
        found += [
            bootstrap.middle_of_rows(one - slope * beyond) - middle
            for one, slope in zip(arms, slopes, strict=True)
        ]
        found.append(middle)
    return np.stack(found, axis=-1)


def _together(controls: Sequence[np.ndarray], reference: np.ndarray) -> np.ndarray:
    """Return the mean level of the controls; NaN where a block has none."""
    import numpy as np

    known = (~np.isnan(np.stack(controls))).sum(axis=0)
    total = sum(np.nan_to_num(one - shift) for one, shift in zip(controls, reference, strict=True))
    return np.where(known > 0, total / np.maximum(known, 1), np.nan)


def _slopes(
    sides: tuple[Side, Side], arms: Sequence[Arm], controls: Sequence[Arm], reference: np.ndarray
) -> np.ndarray:
    """Return how far each arm follows the controls from block to block, between 0 (not at all) and 1."""
    import numpy as np

    slopes = np.zeros(len(arms))
    if not controls:
        return slopes
    environment = np.concatenate(
        [_centered(_together(side.levels(controls), reference)[0]) for side in sides]
    )
    for i, arm in enumerate(arms):
        own = np.concatenate([_centered(side.levels([arm])[0][0]) for side in sides])
        both = ~np.isnan(own + environment)
        variance = float(np.mean(environment[both] ** 2)) if both.any() else 0.0
        if variance > 0:
            slopes[i] = np.clip(np.mean(own[both] * environment[both]) / variance, 0.0, 1.0)
    return slopes


def _centered(levels: np.ndarray) -> np.ndarray:
    """Return the distances from the median; a distance that is an outlier counts as the largest ordinary one."""
    import numpy as np

    distance = levels - np.nanmedian(levels)
    ordinary = 3 * 1.4826 * float(np.nanmedian(np.abs(distance)))
    return np.clip(distance, -ordinary, ordinary)


def _simultaneous(
    change: np.ndarray, deviations: np.ndarray, level: float
) -> list[tuple[float, float, float]]:
    """Return ratio, low and high of every logarithmic change; with probability `level` none of them misses."""
    import numpy as np

    if not change.size:
        return []
    spread = np.nanstd(deviations, axis=0)
    # What never varies needs no width, and has none to be measured in.
    scaled = np.abs(deviations) / np.where(spread > 0, spread, np.inf)
    half = np.quantile(np.nan_to_num(scaled).max(axis=1), level) * spread
    return [
        (math.exp(middle), math.exp(middle - width), math.exp(middle + width))
        for middle, width in zip(change.tolist(), half.tolist(), strict=True)
    ]
