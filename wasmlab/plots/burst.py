"""Many Pods at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter

from wasmlab.errors import BenchmarkError
from wasmlab.plots.labels import halo, heading
from wasmlab.plots.style import ENGINE_COLORS, LabFigure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wasmlab.bench.store import Results


def burst(
    results: Results, created_s: Sequence[float], succeeded_s: Sequence[float], *, what: str = ""
) -> Figure:
    """Draw a burst of pods: how many were written, how many had succeeded, over time.

    Parameters
    ----------
    results : Results
        For the machine and the date.
    created_s, succeeded_s : sequence of float
        When each pod's API write began and when it was seen Succeeded, in seconds since the first write began.
    what : str
        Said under the title.

    Returns
    -------
    Figure
        Belongs to no pyplot state.

    Raises
    ------
    BenchmarkError
        If there are no pods.
    """
    import numpy as np

    if not len(created_s) or not len(succeeded_s):
        raise BenchmarkError("there is no burst to draw", remedy="measure with `wasmlab bench figures`")
    made, done = np.sort(np.asarray(created_s, float)), np.sort(np.asarray(succeeded_s, float))
    rate = done.size / done[-1]
    with style():
        figure = LabFigure(figsize=(7.6, 4.2), layout="constrained")
        axis = figure.subplots()
        for times, color, label in (
            (made, "#7A7A7A", "written"),
            (done, ENGINE_COLORS["wasmtime"], "Succeeded"),
        ):
            steps = np.concatenate([[0.0], times])
            counts = np.arange(times.size + 1)
            axis.step(steps, counts, where="post", color=color)
            if label == "Succeeded":
                axis.fill_between(steps, counts, step="post", color=color, alpha=0.08, linewidth=0)
            place = int(times.size * (0.62 if label == "written" else 0.45))
            axis.annotate(
                label,
                (times[place], place),
                xytext=(-8, 4) if label == "written" else (8, -4),
                textcoords="offset points",
                ha="right" if label == "written" else "left",
                va="bottom" if label == "written" else "top",
                color=color,
                fontweight="bold",
                path_effects=halo(),
            )
        axis.annotate(
            f"all {done.size:,} after {done[-1]:.1f} s",
            (done[-1], done.size),
            xytext=(-6, 6),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
        )
        axis.set_xlim(0, done[-1] * 1.03)
        axis.set_ylim(0, max(done.size, made.size) * 1.1)
        axis.set_xlabel("seconds since the first API write began")
        axis.set_ylabel("pods")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
        heading(figure, f"{done.size:,} pods at once: {rate:.0f} pods per second", results, None, what=what)
    return figure
