"""Which first blocks of a measurement do not count yet. A stated rule, pure; the rows stay and are marked.

The rule
--------
Every run is a fresh process, so no engine warms up inside one. What does is around it: page cache, CPU frequency, the
first pod of a new node. So the rule looks at whole blocks, path by path:

1. In every block, the level of a path is the median over its arms of the logarithm of their time, each relative to the
   arm's own median over the second half of the measurement.
2. The warm-up is the longest run of first blocks of which *each* is above the `QUANTILE` of the levels of the second
   half.
3. The longest warm-up of any path counts for all: blocks are left out whole, so that arms stay paired.

With less than `MIN_BLOCKS` blocks nothing is left out, nor is ever more than half. On a steady machine it takes a first
block by chance in about one of twenty measurements per path, and two hardly ever; since blocks are left out whole, and
not by how a single arm did, that favors no arm.

Whether the rest is steady is another question: `wasmlab.bench.drift` looks for steps in it.

References
----------
Kalibera, Jones: Rigorous Benchmarking in Reasonable Time, ISMM 2013, section 4 (measure what is independent: leave out
the initialization).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wasmlab.bench import stats

if TYPE_CHECKING:
    import pandas as pd

MIN_BLOCKS = 10
QUANTILE = 0.95
SETTLE = "settle"


def warm_up(levels: Sequence[float]) -> int:
    """Return how many of the first values belong to the warm-up.

    Parameters
    ----------
    levels : sequence of float
        One per block, in order.
    """
    import numpy as np

    values = np.asarray(levels, dtype=float)
    if values.size < MIN_BLOCKS:
        return 0
    half = values.size // 2
    slow = values[:half] > np.quantile(values[half:], QUANTILE)
    return half if slow.all() else int(np.argmin(slow))


def path_levels(frame: pd.DataFrame, value: str = "total_ns") -> dict[str, Mapping[int, float]]:
    """Return, for each path, the level of every block that has it: step 1 of the rule.

    Parameters
    ----------
    frame : DataFrame
        Rows of one session.
    """
    import numpy as np
    import pandas as pd

    rows = stats.arm_rows(frame.assign(warmup=False))
    rows = rows[rows[value].notna() & rows["block"].notna()]
    found: dict[str, Mapping[int, float]] = {}
    for path, own in rows.groupby("path", sort=False):
        arms = []
        for _, group in own.groupby(["engine", "mode", "workload"], sort=False):
            logs = np.log(group.groupby("block")[value].median().astype(float))
            arms.append(logs - logs.iloc[len(logs) // 2 :].median())
        levels = pd.concat(arms, axis=1).median(axis=1).sort_index()
        found[str(path)] = {int(block): float(level) for block, level in levels.items()}
    return found


def first_steady_block(frame: pd.DataFrame, value: str = "total_ns") -> int:
    """Return the number of the first block that counts; 0 if all do."""
    first = 0
    for levels in path_levels(frame, value).values():
        blocks = list(levels)
        count = warm_up(list(levels.values()))
        if count:
            first = max(first, blocks[count - 1] + 1)
    return first


def mark(rows: Sequence[dict[str, Any]], first_block: int) -> int:
    """Mark the rows before a block as warm-up, all others as not, and return how many are marked."""
    marked = 0
    for row in rows:
        row["warmup"] = row["block"] is not None and row["block"] < first_block
        marked += row["warmup"]
    return marked
