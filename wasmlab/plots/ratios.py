"""Ratios with their intervals: every start over its control, and engine over engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from wasmlab.bench import ratios as found
from wasmlab.bench import stats
from wasmlab.errors import BenchmarkError
from wasmlab.plots.labels import heading
from wasmlab.plots.style import ENGINE_COLORS, INK, PALE, LabFigure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wasmlab.bench.ratios import Ratio
    from wasmlab.bench.store import Results

_PATHS = {"local": "sandbox", "node": "Pod on a WASM node", "containerd": "Pod through containerd"}
_WHAT = "ratios of medians, arms drawn in the same blocks; bars are 95 % intervals"


def control_ratios(results: Results, *, value: str = "total_ns", workload: str = "hello") -> Figure:
    """Draw how many times as long every start takes as its control.

    The control of a Pod through containerd is runc; that of everything else is the native ``/bin/true``.

    Parameters
    ----------
    results : Results
        Rows with controls.
    value : str
        ``total_ns``, or another time that the control has too.
    workload : str
        Which workload's starts.

    Returns
    -------
    Figure
        A dot is a ratio of medians, its bar the 95 % interval; the line at 1 is the control.

    Raises
    ------
    BenchmarkError
        If there is no control, or nothing to compare with it.
    """
    every = found.against_controls(results.frame, value, workload=workload)
    every = [one for one in every if one.above.workload == workload]
    panels = [
        (title, [one for one in every if one.below.path == path])
        for path, title in (("control", "over the native /bin/true"), ("containerd", "over runc"))
    ]
    return _figure(
        results,
        panels,
        f"How much longer {workload} takes to start than its control",
        lambda one: f"{_PATHS[one.above.path]}, {one.above.mode}, {one.above.engine}",
    )


def engine_ratios(
    results: Results,
    *,
    value: str = "total_ns",
    base: str = "wasmtime",
    workloads: Collection[str] | None = None,
) -> Figure:
    """Draw how many times as long other engines take as `base`, for everything that both ran.

    Parameters
    ----------
    workloads : collection of str, optional
        Only these.
    results : Results
        Rows of arms that ran in the same blocks.
    value : str
        The column that is compared.
    base : str
        The engine below the line.

    Returns
    -------
    Figure
        Belongs to no pyplot state.

    Raises
    ------
    BenchmarkError
        If no two engines ran the same.
    """
    every = [
        one
        for one in found.between_engines(results.frame, value, base=base)
        if workloads is None or one.above.workload in workloads
    ]
    found_engines = {one.above.engine for one in every}
    engines = [name for name in ENGINE_COLORS if name in found_engines]
    several = len(engines) > 1
    title = f"over {base}" if several else ""
    return _figure(
        results,
        [(title, every)],
        f"{', '.join([*engines[:-2], ' and '.join(engines[-2:])])} beside {base}",
        lambda one: (
            f"{_PATHS[one.above.path]}, {one.above.mode}, {one.above.workload}"
            + (f", {one.above.engine}" if several else "")
        ),
    )


def _figure(
    results: Results,
    panels: Sequence[tuple[str, list[Ratio]]],
    title: str,
    label: Callable[[Ratio], str],
) -> Figure:
    panels = [(name, ratios) for name, ratios in panels if ratios]
    if not panels:
        raise BenchmarkError("the results hold no two arms to compare", remedy="measure with controls")
    sizes = [len(ratios) for _, ratios in panels]
    with style():
        figure = LabFigure(figsize=(8.6, 1.8 + 0.29 * sum(sizes) + 0.5 * len(sizes)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[size + 1 for size in sizes])
        for axis, (name, ratios) in zip(axes[:, 0], panels, strict=True):
            _forest(axis, sorted(ratios, key=lambda one: one.interval.value), label)
            axis.set_title(name if len(panels) > 1 else "")
            axis.set_xlabel("times as long")
        heading(figure, title, results, None, what=_what([one for _, ratios in panels for one in ratios]))
    return figure


def _what(ratios: Sequence[Ratio]) -> str:
    sizes = {one.interval.n for one in ratios}
    low, high = min(sizes), max(sizes)
    text = f"{_WHAT}, n = {low}" + (f" to {high}" if high > low else "")
    return text + (f" (open dots: the range of less than {stats.FEWEST})" if low < stats.FEWEST else "")


def _forest(axis: Axes, ratios: Sequence[Ratio], label: Callable[[Ratio], str]) -> None:
    transform = axis.get_yaxis_transform()
    for row, one in enumerate(ratios):
        interval = one.interval
        color = ENGINE_COLORS.get(one.above.engine, INK)
        # A range of a few values is no interval: it is drawn, but not as one.
        solid = interval.n >= stats.FEWEST
        axis.plot(
            [interval.low, interval.high],
            [row, row],
            color=color,
            linewidth=3.5 if solid else 1.2,
            alpha=0.45,
        )
        axis.plot(
            interval.value,
            row,
            "o",
            color=color if solid else "white",
            markeredgecolor="white" if solid else color,
            markersize=7.5,
        )
        digits = 0 if interval.value >= 100 else 1 if interval.value >= 10 else 2
        text = f"{interval.value:.{digits}f}  [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
        axis.text(1.015, row, text, transform=transform, fontsize=8.5, va="center", color=INK)
    axis.axvline(1, color=PALE, linewidth=1.2, zorder=0)
    axis.set_yticks(range(len(ratios)), [label(one) for one in ratios])
    axis.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8.8)
    axis.set_ylim(len(ratios) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    ends = [end for one in ratios for end in (one.interval.low, one.interval.high)]
    low, high = min(1.0, *ends), max(1.0, *ends)
    if high / low > 5:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(low / 1.15, high * 1.15)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        margin = 0.05 * (high - low) or 0.05
        axis.set_xlim(low - margin, high + margin)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
