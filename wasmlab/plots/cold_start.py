"""The distribution of start times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter

from wasmlab.plots.labels import heading, kilobytes, log_milliseconds, log_range, milliseconds
from wasmlab.plots.rows import ok_rows, require_rows
from wasmlab.plots.style import ENGINE_COLORS, LabFigure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wasmlab.bench.store import Results

_MODE_LINES = {"cold": "-", "cached": (0, (5, 1.5)), "warm": (0, (1, 1.2)), "exec": (0, (3, 1, 1, 1))}

_PANELS = {
    "local": "in the sandbox, no cluster",
    "node": "as a Pod, from the API write",
    "containerd": "path 2: kubelet, containerd, shim or runc",
}


def cold_start(
    results: Results,
    *,
    workload: str = "hello",
    value: str = "first_byte_ns",
    modes: Sequence[str] | None = None,
    paths: Sequence[str] = ("local", "node"),
) -> Figure:
    """Draw the distribution of start times: one curve per arm, one panel per path.

    Parameters
    ----------
    results : Results
        Rows of one or more paths.
    workload : str
        Which workload's starts.
    value : str
        ``first_byte_ns`` or ``total_ns``.
    modes : sequence of str, optional
        Only these modes.
    paths : sequence of str
        The panels; what was not measured is left out.

    Returns
    -------
    Figure
        ECDFs over a logarithmic time axis; a dot marks each median.

    Raises
    ------
    BenchmarkError
        If nothing of that workload was measured.
    """
    frame = ok_rows(results.frame, value)
    frame = frame[(frame["workload"] == workload) & frame["path"].isin(paths)]
    if modes:
        frame = frame[frame["mode"].isin(modes)]
    require_rows(frame, f"a start of {workload}")
    paths = [path for path in paths if (frame["path"] == path).any()]
    with style():
        figure = LabFigure(
            figsize=(4.3 * len(paths) + 1.4 if len(paths) > 1 else 7.2, 5.0), layout="constrained"
        )
        axes = figure.subplots(1, len(paths), sharey=True, squeeze=False)[0]
        for axis, path in zip(axes, paths, strict=True):
            _ecdfs(axis, frame[frame["path"] == path], value)
            two = path == "node" and "containerd" in paths
            axis.set_title(("path 1: a WASM node" if two else _PANELS[path]) if len(paths) > 1 else "")
            axis.set_xlabel("milliseconds to the " + ("first byte of output" if "first" in value else "end"))
        if "containerd" in paths:  # Pods beside Pods: on one scale
            limits = [limit for axis in axes for limit in axis.get_xlim()]
            for axis in axes:
                log_range(axis, min(limits), max(limits))
        axes[0].set_ylabel("share of starts that were faster")
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
        heading(
            figure, f"How long {workload} takes to start", results, frame, what=kilobytes(results, workload)
        )
    return figure


def _ecdfs(axis: Axes, frame: pd.DataFrame, value: str) -> None:
    import numpy as np

    handles = []
    dots = []
    for engine in ENGINE_COLORS:
        for mode, dashes in _MODE_LINES.items():
            own = frame[(frame["engine"] == engine) & (frame["mode"] == mode)]
            if own.empty:
                continue
            times = np.sort(own[value].to_numpy(float)) * 1e-6
            shares = np.arange(1, times.size + 1) / times.size
            (line,) = axis.step(
                np.concatenate([times[:1], times]),
                np.concatenate([[0.0], shares]),
                where="post",
                color=ENGINE_COLORS[engine],
                linestyle=dashes,
                label=f"{engine}, {mode}: {milliseconds(float(np.median(times)))} ms",
            )
            handles.append(line)
            dots.append((float(np.median(times)), ENGINE_COLORS[engine]))
    for at, color in dots:
        axis.plot([at], [0.5], "o", color=color, markeredgecolor="white", markersize=7, zorder=5)
    log_milliseconds(axis)
    axis.set_ylim(0, 1.02)
    # A column for each of two engines: their medians are compared line by line. More columns are too wide for a panel.
    columns = min(2, len({handle.get_color() for handle in handles}))
    axis.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=columns,
        fontsize=8.8,
        title="medians (dots)",
        title_fontsize=8.8,
        columnspacing=1.4,
        handlelength=2.4,
    )
