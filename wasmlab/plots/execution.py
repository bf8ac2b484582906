"""How long each workload takes, engine beside engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from wasmlab.bench import stats
from wasmlab.plots.labels import halo, heading, log_milliseconds, milliseconds, path_name
from wasmlab.plots.rows import ok_rows, require_rows
from wasmlab.plots.style import ENGINE_COLORS, INK, PALE, LabFigure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wasmlab.bench.store import Results


def execution(
    results: Results,
    *,
    path: str = "local",
    mode: str = "warm",
    value: str = "total_ns",
    workloads: Sequence[str] | None = None,
) -> Figure:
    """Draw how long each workload takes, engine beside engine, with intervals and the ratio.

    Parameters
    ----------
    results : Results
        Rows of several workloads.
    path, mode : str
        Which rows.
    value : str
        ``total_ns`` (asking to end) or ``run_ns`` (the guest alone).
    workloads : sequence of str, optional
        Only these, in this order.

    Returns
    -------
    Figure
        A dot is a median, its bar the 95 % bootstrap interval; the right column is the ratio of medians.

    Raises
    ------
    BenchmarkError
        If there are no such rows.
    """
    frame = ok_rows(results.frame, value)
    frame = frame[(frame["path"] == path) & (frame["mode"] == mode)]
    if workloads is not None:
        frame = frame[frame["workload"].isin(workloads)]
    require_rows(frame, f"a {mode} run on the path {path}")
    table = stats.summarize(frame, value, by=("workload", "engine"))
    order = (
        [name for name in workloads if name in set(table["workload"])]
        if workloads is not None
        else table.groupby("workload")["median"].min().sort_values().index.tolist()
    )
    engines = [name for name in ENGINE_COLORS if name in set(table["engine"])]
    with style():
        figure = LabFigure(figsize=(7.6, 1.9 + 0.52 * len(order)), layout="constrained")
        axis = figure.subplots()
        for position, engine in enumerate(engines):
            shift = (position - (len(engines) - 1) / 2) * 0.26
            own = table[table["engine"] == engine].set_index("workload")
            for row, name in enumerate(order):
                if name not in own.index:
                    continue
                at = own.loc[name]
                y = row + shift
                axis.plot(
                    [at["low"], at["high"]], [y, y], color=ENGINE_COLORS[engine], linewidth=3.5, alpha=0.45
                )
                axis.plot(
                    at["median"], y, "o", color=ENGINE_COLORS[engine], markeredgecolor="white", markersize=8
                )
                axis.annotate(
                    milliseconds(at["median"]),
                    (at["high"], y),
                    xytext=(7, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8.5,
                    color=ENGINE_COLORS[engine],
                    path_effects=halo(),
                )
        axis.set_yticks(range(len(order)), order)
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.set_ylim(len(order) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        log_milliseconds(axis, margin=1.7)
        end = "from the task's creation to its end" if path == "containerd" else "from the request to the end"
        axis.set_xlabel("milliseconds, " + ("in the guest" if value == "run_ns" else end))
        if len(engines) == 2:
            _ratios(axis, frame, value, order, engines)
        heading(figure, "How long each workload takes", results, frame, what=f"{path_name(path)}, {mode}")
        handles = [
            Line2D(
                [],
                [],
                color=ENGINE_COLORS[name],
                marker="o",
                linewidth=3,
                markeredgecolor="white",
                label=name,
            )
            for name in engines
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _ratios(
    axis: Axes, frame: pd.DataFrame, value: str, order: Sequence[str], engines: Sequence[str]
) -> None:
    base, other = engines
    transform = axis.get_yaxis_transform()
    axis.text(
        1.02,
        -0.62,
        f"{other} / {base}",
        transform=transform,
        fontsize=8.5,
        color=PALE,
        va="bottom",
    )
    for row, name in enumerate(order):
        pick = frame[frame["workload"] == name]
        measured = set(pick["engine"])
        if not {base, other} <= measured:
            # Components run on wasmtime alone: a dash would look like a measurement that is missing.
            text = f"{base if base in measured else other} only"
        else:
            ratio = stats.ratio(pick, {"engine": other}, {"engine": base}, value)
            text = f"{ratio.value:.2f}×  [{ratio.low:.2f}, {ratio.high:.2f}]"
        axis.text(1.02, row, text, transform=transform, fontsize=8.5, va="center")
