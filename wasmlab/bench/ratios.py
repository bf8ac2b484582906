"""The ratios that a report shows: every arm over its control, and engine over engine. Pure.

A ratio is one of medians, both arms drawn in the same blocks (`wasmlab.bench.stats.ratio`). It travels between machines
better than milliseconds do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasmlab.bench import stats
from wasmlab.bench.plan import CONTROLS, RUNC, Arm
from wasmlab.bench.stats import Interval

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ["path", "engine", "mode", "workload"]
# The two that every machine has come first; others (other compilers, say) are compared with the first of them.
_BASE = "wasmtime"


@dataclass(frozen=True)
class Ratio:
    """How many times longer one arm takes than another.

    Attributes
    ----------
    above, below : Arm
    interval : Interval
    """

    above: Arm
    below: Arm
    interval: Interval


def against_controls(
    frame: pd.DataFrame, value: str = "total_ns", *, control: Arm = CONTROLS[0], workload: str = "hello"
) -> list[Ratio]:
    """Return every arm over its control.

    A Pod of the path ``containerd`` has a control that differs in nothing but the runtime: runc, in the same mode and
    with the same workload. For everything else it is a native process, and only starting something (`workload`) can be
    compared with starting that.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows (`wasmlab.bench.store`).
    control : Arm
        The native process.
    """
    arms = measured(frame, value)
    found = []
    for arm in arms:
        below = arm._replace(engine=RUNC) if arm.path == "containerd" else control
        if arm.path == "control" or arm == below or below not in arms:
            continue
        if arm.path == "containerd" or arm.workload == workload:
            found.append(_ratio(frame, arm, below, value))
    return found


def between_engines(frame: pd.DataFrame, value: str = "total_ns", *, base: str = _BASE) -> list[Ratio]:
    """Return every other engine over `base`, on the same path, in the same mode, with the same workload."""
    arms = measured(frame, value)
    return [
        _ratio(frame, arm, below, value)
        for arm in arms
        if arm.engine not in (base, RUNC)
        and arm.path != "control"
        and (below := arm._replace(engine=base)) in arms
    ]


def measured(frame: pd.DataFrame, value: str) -> list[Arm]:
    """Return the arms that have a value, in the order of their first row."""
    rows = stats.arm_rows(frame)
    rows = rows[rows[value].notna()]
    return [Arm(*key) for key in _unique(rows)]


def _unique(rows: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    return rows[_KEYS].drop_duplicates().itertuples(index=False, name=None)


def _ratio(frame: pd.DataFrame, above: Arm, below: Arm, value: str) -> Ratio:
    return Ratio(above, below, stats.ratio(frame, above._asdict(), below._asdict(), value))
