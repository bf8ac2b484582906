"""Which rows a figure draws, and the error if there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wasmlab.bench import stats
from wasmlab.errors import BenchmarkError

if TYPE_CHECKING:
    import pandas as pd


def ok_rows(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the rows of runs that succeeded, are no warm-up, and have a `value`."""
    rows = stats.arm_rows(frame)
    return rows[rows[value].notna()]


def require_rows(frame: pd.DataFrame, what: str) -> None:
    """Raise `BenchmarkError` if there is no row."""
    if frame.empty:
        raise BenchmarkError(
            f"the results hold no {what}",
            remedy="measure it with `wasmlab bench`, or choose what was measured",
        )


def typical(frame: pd.DataFrame, run_id: str | None) -> dict[str, Any]:
    """Return the run `run_id`; without one, the run whose total is the median."""
    if run_id is not None:
        frame = frame[frame["run_id"] == run_id]
    require_rows(frame, f"run {run_id}" if run_id else "such run")
    ranked = frame.sort_values("total_ns")
    return ranked.iloc[(len(ranked) - 1) // 2].to_dict() | {}


def alike(frame: pd.DataFrame, row: dict[str, Any]) -> pd.DataFrame:
    """Return the rows of the same arm as `row`."""
    keys = ("engine", "mode", "workload")
    return frame[(frame[list(keys)] == [row[key] for key in keys]).all(axis=1)]
