"""What else the machine did, block by block: kept beside the rows of the same blocks. Pure.

A figure that moved can then be looked at together with the steal, load and CPU pressure of the minute it was measured
in. Nothing is left out for having been noisy: choosing blocks after seeing them would choose results. It is recorded,
shown, and what is common to all arms is cancelled by the controls (`wasmlab.bench.compare`).

==========================  =========================================================================================
column                      meaning
==========================  =========================================================================================
block                       number of the block
busy_share                  CPU time of the machine not spent idle (ours and that of others)
steal_share                 CPU time that the hypervisor gave to other machines
cpu_stalled_s               how long some process waited for a CPU (``/proc/pressure/cpu``, "some")
load_1min                   load average at the block's end
context_switches_per_s      of the whole machine
mhz                         mean clock of the CPUs, where readable
seconds                     how long the block took
==========================  =========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from wasmlab.bench.environment import Conditions

# What ran before anything of ours was started is somebody else's. From this share of the CPU time on, times are not the
# machine's own.
BUSY_SHARE = 0.3

COLUMNS = (
    "block",
    "busy_share",
    "steal_share",
    "cpu_stalled_s",
    "load_1min",
    "context_switches_per_s",
    "mhz",
    "seconds",
)


class NoiseLog:
    """Collects one line per block."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}

    def add(self, block: int, before: Conditions, after: Conditions) -> None:
        """Note what happened between the readings at the beginning and at the end of a block."""
        line = before.until(after) | {
            "block": block,
            "load_1min": after.load_1min,
            "seconds": round(after.at_s - before.at_s, 3),
        }
        for name, values in self.columns.items():
            values.append(line[name])


def busy_before(conditions: Sequence[Mapping[str, Any]]) -> float:
    """Return the largest share of the machine that others used before a measurement began; 0 if nobody looked."""
    return max((entry.get("busy_share_before") or 0.0 for entry in conditions), default=0.0)


def by_block(conditions: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per block of all measurements that kept their noise.

    Parameters
    ----------
    conditions : sequence of mapping
        `Results.conditions`.

    Returns
    -------
    DataFrame
        Column ``session`` and `COLUMNS`; join it with the rows on ``session`` and ``block``.
    """
    import pandas as pd

    parts = [
        pd.DataFrame(entry["blocks"]).assign(session=entry.get("session"))
        for entry in conditions
        if entry.get("blocks")
    ]
    columns = ["session", *COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def summary(conditions: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line how noisy the blocks were: the median and the worst of each measure; empty if none was kept."""
    frame = by_block(conditions)
    parts = []
    for name, label, form in (
        ("steal_share", "steal", "{:.1%}"),
        ("load_1min", "load", "{:.1f}"),
        ("cpu_pressure_share", "some process waiting for a CPU", "{:.0%}"),
        ("context_switches_per_s", "context switches per second", "{:,.0f}"),
        ("mhz", "MHz", "{:.0f}"),
    ):
        values = (
            (frame["cpu_stalled_s"] / frame["seconds"]).clip(upper=1)
            if name == "cpu_pressure_share"
            else frame[name].astype(float)
        ).dropna()
        if len(values):
            worst = values.min() if name == "mhz" else values.max()
            parts.append(f"{label} {form.format(values.median())} (worst block {form.format(worst)})")
    return f"per block, {'; '.join(parts)}" if parts else ""
