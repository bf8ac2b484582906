"""Cost against size: bursts, density, concurrency, each with its fitted curve and the knee named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from wasmlab.bench import scale_curves
from wasmlab.errors import BenchmarkError
from wasmlab.plots.labels import halo, heading
from wasmlab.plots.style import ENGINE_COLORS, LabFigure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wasmlab.bench.scale_fit import Curve
    from wasmlab.bench.store import Results

_PLANE = "#7A7A7A"
_GRID = 200


def scale_burst(results: Results) -> Figure:
    """Draw bursts: how long N Pods at once take, and how many per second that is.

    Parameters
    ----------
    results : Results
        Rows of the experiment.

    Returns
    -------
    Figure
        Belongs to no pyplot state.

    Raises
    ------
    BenchmarkError
        If no burst was measured.
    """
    points = _require(scale_curves.bursts(results.frame), "burst")
    with style():
        figure = LabFigure(figsize=(9.6, 4.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        for engine, own in _by_engine(points):
            curve = scale_curves.curve(own, "seconds")
            color = ENGINE_COLORS[engine]
            _dots(left, own["load"], own["seconds"], color)
            _dots(right, own["load"], own["per_second"], color)
            if curve is None:
                continue
            label = f"{engine}: {scale_curves.in_words(curve, unit='ms', factor=1000, each='')}"
            sizes = _sizes(curve, logarithmic=True)
            left.plot(sizes, curve.at(sizes), color=color, label=label)
            right.plot(sizes, sizes / curve.at(sizes), color=color)
            _mark_knee((left, right), curve, color)
        for axis in (left, right):
            _log_sizes(axis, points["load"])
            axis.set_xlabel("Pods written at once")
        left.set_yscale("log")
        _plain_log(left)
        left.set_ylabel("seconds until all have Succeeded")
        right.set_ylabel("Pods per second")
        right.set_ylim(bottom=0)
        _legend(figure, left, "each more Pod of a burst costs")
        heading(figure, "How a burst grows", results, None, what=_what(points, "hello, one node", results))
    return figure


def scale_density(results: Results) -> Figure:
    """Draw density: memory, and the start of the next Pod, against how many are alive.

    Parameters
    ----------
    results : Results
        Rows of the experiment.

    Returns
    -------
    Figure
        Belongs to no pyplot state.

    Raises
    ------
    BenchmarkError
        If no density was measured.
    """
    points = _require(scale_curves.live(results.frame), "density")
    with style():
        figure = LabFigure(figsize=(9.6, 5.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        several = points["engine"].nunique() > 1
        for engine, own in _by_engine(points):
            color = ENGINE_COLORS[engine]
            for column, dashes, what in (
                ("node_uss_mb", "-", "node, private"),
                ("node_pss_mb", (0, (1, 1.2)), "node, with its share of shared pages"),
            ):
                _curve(left, own, column, "live", color, f"{engine}: {what}", "MB", dashes)
            _dots(left, own["live"], own["node_uss_mb"], color)
            _dots(right, own["load"], own["latency_ms"], color)
            _curve(right, own, "latency_ms", "load", color, engine, "ms")
        # The control plane does not know the engine: one curve through all of its points.
        _dots(left, points["live"], points["plane_uss_mb"], _PLANE)
        name = "control plane, private" + (" (all)" if several else "")
        _curve(left, points, "plane_uss_mb", "live", _PLANE, name, "MB")
        for axis in (left, right):
            axis.set_xlabel("live Pods")
            axis.set_ylim(bottom=0)
        left.set_ylabel("MB")
        left.set_title("memory")
        right.set_ylabel("milliseconds until it is Running")
        right.set_title("start of the next Pod")
        for axis, title in ((left, "each more live Pod takes"), (right, "each more live Pod adds")):
            _legend_below(axis, title)
        heading(
            figure,
            "How dense a node can be",
            results,
            None,
            what=_what(points, "sleeping Pods, one node", results),
        )
    return figure


def scale_concurrency(results: Results) -> Figure:
    """Draw concurrency: throughput and latency against the runs in flight, in the sandbox and as Pods.

    Parameters
    ----------
    results : Results
        Rows of the experiment.

    Returns
    -------
    Figure
        Belongs to no pyplot state.

    Raises
    ------
    BenchmarkError
        If no concurrency was measured.
    """
    points = _require(scale_curves.in_flight(results.frame), "concurrency")
    panels = [
        (title, points[points["path"].isin(paths)])
        for title, paths in (("in the sandbox, no cluster", ("local", "control")), ("as Pods", ("node",)))
    ]
    panels = [(title, own) for title, own in panels if not own.empty]
    with style():
        figure = LabFigure(figsize=(4.8 * max(len(panels), 1.5), 7.4), layout="constrained")
        grid = figure.subplots(2, len(panels), squeeze=False, sharex="col")
        for (title, here), (above, below) in zip(panels, grid.T, strict=True):
            for engine, own in _by_engine(here):
                color = ENGINE_COLORS[engine]
                name = "native /bin/true" if engine == "native" else engine
                for axis, column, unit in ((above, "per_second", "1/s"), (below, "latency_ms", "ms")):
                    _dots(axis, own["load"], own[column], color)
                    _curve(axis, own, column, "load", color, name, unit, logarithmic=True)
            above.set_title(title)
            for axis, what in ((above, "each more in flight adds"), (below, "each more in flight adds")):
                _log_sizes(axis, here["load"])
                axis.set_yscale("log")
                _plain_log(axis)
                _legend_below(axis, what, offset=-0.06 if axis is above else -0.2)
            below.set_xlabel("runs in flight" if "sandbox" in title else "Pods in flight")
        grid[0][0].set_ylabel("runs per second")
        grid[1][0].set_ylabel("milliseconds per run (median)")
        heading(figure, "How much at a time", results, None, what=_what(points, "hello", results))
    return figure


def _require(points: pd.DataFrame, what: str) -> pd.DataFrame:
    if points.empty:
        raise BenchmarkError(f"the results hold no {what}", remedy="measure it with `wasmlab bench scale`")
    return points


def _by_engine(points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [
        (engine, own) for engine in ENGINE_COLORS if not (own := points[points["engine"] == engine]).empty
    ]


def _dots(axis: Axes, sizes: Any, costs: Any, color: str) -> None:
    axis.plot(sizes, costs, "o", color=color, markersize=4.5, alpha=0.55, markeredgewidth=0)


def _sizes(curve: Curve, *, logarithmic: bool) -> Any:
    import numpy as np

    if logarithmic and curve.smallest > 0:
        return np.geomspace(curve.smallest, curve.largest, _GRID)
    return np.linspace(curve.smallest, curve.largest, _GRID)


def _curve(
    axis: Axes,
    points: pd.DataFrame,
    cost: str,
    size: str,
    color: str,
    name: str,
    unit: str,
    dashes: Any = "-",
    *,
    logarithmic: bool = False,
) -> None:
    curve = scale_curves.curve(points, cost, size)
    if curve is None:
        return
    sizes = _sizes(curve, logarithmic=logarithmic)
    label = f"{name}: {scale_curves.in_words(curve, unit=unit, each='')}"
    axis.plot(sizes, curve.at(sizes), color=color, linestyle=dashes, label=label)
    _mark_knee((axis,), curve, color)


def _mark_knee(axes: Sequence[Axes], curve: Curve, color: str) -> None:
    if curve.knee is None:
        return
    for axis in axes:
        axis.axvspan(curve.knee.low, curve.knee.high, color=color, alpha=0.08, linewidth=0)
        axis.axvline(curve.knee.value, color=color, linewidth=1, linestyle=(0, (4, 3)))
        # Knees of several curves often lie side by side: their names take turns along the line.
        named = sum(text.get_text().startswith("knee: ") for text in axis.texts)
        height, side = ((1.0, "top"), (0.0, "bottom"), (0.5, "center"))[named % 3]
        axis.annotate(
            f"knee: {scale_curves.size_text(curve.knee.value)}",
            (curve.knee.value, height),
            xycoords=("data", "axes fraction"),
            xytext=(3, {"top": -3, "bottom": 3, "center": 0}[side]),
            textcoords="offset points",
            ha="left",
            va=side,
            rotation=90,
            fontsize=8.5,
            color=color,
            path_effects=halo(),
        )


def _log_sizes(axis: Axes, sizes: Any) -> None:
    """Give the axis a logarithmic scale with a tick at each size that was measured, as far as there is room."""
    import numpy as np

    axis.set_xscale("log")
    ticks: list[float] = []
    for size in np.unique(np.asarray(sizes, float)):
        if not ticks or size / ticks[-1] > 1.25:
            ticks.append(float(size))
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))


def _plain_log(axis: Axes) -> None:
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))


def _legend(figure: Figure, axis: Axes, title: str) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside lower left", fontsize=8.8, title=title, title_fontsize=8.8,
            alignment="left",
        )  # fmt: skip


def _legend_below(axis: Axes, title: str, *, offset: float = -0.16) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        axis.legend(
            handles, [_wrapped(label) for label in labels], loc="upper left", bbox_to_anchor=(-0.02, offset),
            fontsize=8.2, title=title, title_fontsize=8.2, alignment="left", handlelength=1.6,
        )  # fmt: skip


def _wrapped(label: str, width: int = 58) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(label, width, subsequent_indent="  "))


def _what(points: pd.DataFrame, what: str, results: Results) -> str:
    blocks = points["block"].nunique() // max(1, points["engine"].nunique() if "path" not in points else 1)
    # Which binding of an engine: they differ as much as engines do.
    versions = results.environment.get("engines") or {}
    named = [
        f"{name} {versions[name]}" for name in ENGINE_COLORS if name in set(points["engine"]) & set(versions)
    ]
    return ", ".join([what, f"{blocks} block{'' if blocks == 1 else 's'} (a dot each)", *named])
