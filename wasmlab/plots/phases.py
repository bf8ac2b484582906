"""What a start is made of: the engine's phases, stacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from wasmlab.bench.phases import ENGINE_PHASES
from wasmlab.plots.labels import heading, milliseconds, path_name
from wasmlab.plots.phase_map import PHASE_COLORS
from wasmlab.plots.rows import ok_rows, require_rows
from wasmlab.plots.style import ENGINE_COLORS, INK, LabFigure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wasmlab.bench.store import Results


def start_phases(results: Results, *, workload: str = "hello", path: str = "local") -> Figure:
    """Draw the medians of the engine's phases as stacked bars, one bar per arm.

    Parameters
    ----------
    results : Results
        Rows of local runs or of Pods.
    path : str
        ``local`` or ``node``.
    workload : str
        Which one.

    Returns
    -------
    Figure
        What a start is made of, engine beside engine, mode under mode.

    Raises
    ------
    BenchmarkError
        If there are no rows with phases.
    """
    import pandas as pd

    frame = ok_rows(results.frame, "total_ns")
    frame = frame[(frame["path"] == path) & (frame["workload"] == workload)]
    phases = [name for name in ENGINE_PHASES if frame[f"{name}_ns"].notna().any()]
    require_rows(frame if phases else frame.iloc[:0], f"a run of {workload} with phases")
    arms = [
        (mode, engine)
        for mode in ("cold", "cached", "warm")
        for engine in ENGINE_COLORS
        if ((frame["mode"] == mode) & (frame["engine"] == engine)).any()
    ]
    with style():
        modes = list(dict.fromkeys(mode for mode, _ in arms))
        figure = LabFigure(figsize=(7.6, 1.7 + 0.95 * len(modes)), layout="constrained")
        axes = figure.subplots(len(modes), 1, squeeze=False)[:, 0]
        for axis, mode in zip(axes, modes, strict=True):
            engines = [engine for m, engine in arms if m == mode]
            longest = 0.0
            for row, engine in enumerate(engines):
                own = frame[(frame["mode"] == mode) & (frame["engine"] == engine)]
                at = 0.0
                for name in phases:
                    middle = own[f"{name}_ns"].dropna().astype(float).median() * 1e-6
                    if pd.isna(middle):
                        continue
                    axis.barh(
                        row,
                        middle,
                        left=at,
                        height=0.66,
                        color=PHASE_COLORS[name],
                        edgecolor="white",
                        linewidth=0.4,
                    )
                    at += middle
                total = own["total_ns"].astype(float).median() * 1e-6
                axis.barh(row, max(0.0, total - at), left=at, height=0.66, color="#EFEFEF", zorder=0)
                axis.annotate(f"{milliseconds(total)} ms", (max(total, at), row), xytext=(5, 0),
                              textcoords="offset points", va="center", fontsize=9)  # fmt: skip
                longest = max(longest, total, at)
            axis.set_yticks(range(len(engines)), engines)
            axis.tick_params(axis="y", length=0, labelcolor=INK)
            axis.set_ylim(len(engines) - 0.5, -0.5)
            axis.set_xlim(0, longest * 1.14)
            axis.grid(axis="y", visible=False)
            axis.set_title(mode)
        axes[-1].set_xlabel(
            "milliseconds (each panel has its own scale); pale: everything outside the engine"
        )
        heading(
            figure,
            f"What a start of {workload} is made of",
            results,
            frame,
            what=path_name(path) + ", medians",
        )
        handles = [Line2D([], [], color=PHASE_COLORS[name], linewidth=7, label=name) for name in phases]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)), fontsize=8.5,
                      handlelength=1.0, columnspacing=1.2)  # fmt: skip
    return figure
