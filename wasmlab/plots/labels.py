"""What is written on a figure: its heading, its time axis, its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from wasmlab.plots.style import INK, PALE, RECORDED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wasmlab.bench.store import Results


def path_name(path: str) -> str:
    """Return how a figure calls one of the paths."""
    return {
        "local": "in the sandbox, no cluster",
        "node": "as a Pod",
        "containerd": "as a Pod, through containerd",
    }.get(path, path)


def kilobytes(results: Results, workload: str) -> str:
    """Return a workload's file and its size; only its name if the catalogue does not know it."""
    from wasmlab.modules import workloads

    known = workloads.catalogue().get(workload)
    if known is None:
        return workload
    size = known.size_bytes
    return f"{known.file.removesuffix('.wasm')}.wasm, " + (
        f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
    )


def _counts(frame: pd.DataFrame) -> str:
    sizes = frame.groupby([key for key in ("path", "engine", "mode", "workload") if key in frame]).size()
    low, high = int(sizes.min()), int(sizes.max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def heading(figure: Figure, title: str, results: Results, frame: pd.DataFrame | None, *, what: str) -> None:
    """Title, then one pale line: what, how often, when and where."""
    parts = [part for part in (what, f"{_counts(frame)} per arm" if frame is not None else "") if part]
    if frame is not None:
        # Which binding of an engine: they differ as much as engines do.
        versions = results.environment.get("engines") or {}
        parts += [f"{name} {versions[name]}" for name in frame["engine"].unique() if name in versions]
    when = f"recorded {results.where}" if results.is_recorded else results.where
    # suptitle is what constrained layout makes room for; the pale lines are part of it.
    figure.suptitle(f"{title}\n\n", x=0.012, ha="left", fontsize=13, fontweight="bold", linespacing=1.15)
    figure.text(0.012, 0, "", fontsize=9)
    _subtitle(figure, f"{', '.join(parts)}\n{when}", marked=results.is_recorded)


def _subtitle(figure: Figure, text: str, *, marked: bool) -> None:
    import matplotlib.transforms as transforms

    # Measured from the top edge in points, so that it sits under the title at any figure height.
    offset = transforms.ScaledTranslation(0, -23 / 72, figure.dpi_scale_trans)
    figure.text(
        0.012,
        1.0,
        text,
        transform=figure.transFigure + offset,
        ha="left",
        va="top",
        fontsize=8.8,
        linespacing=1.45,
        color=RECORDED if marked else PALE,
    )


def mark_recorded(figure: Figure, text: str) -> None:
    """Write below a figure without a heading of `heading`'s kind that it is recorded, when, and on what machine.

    Parameters
    ----------
    figure : Figure
        What to write on.
    text : str
        Where it was measured.
    """
    figure.supxlabel(text, x=0.99, ha="right", fontsize=8.8, color=RECORDED)


def log_milliseconds(axis: Axes, *, margin: float = 1.15) -> None:
    """Give the axis a logarithmic scale of milliseconds with few, round ticks around its data."""
    axis.set_xscale("log")
    low, high = axis.dataLim.intervalx
    log_range(axis, low / 1.25, high * margin)


def log_range(axis: Axes, low: float, high: float) -> None:
    """Show `low` to `high` on a logarithmic axis, with ticks that suit so much of it."""
    if high / low < 12:  # less than a decade says little on round ticks: show more of it
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 1000 else (1,)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axis.set_xlim(low, high)


def milliseconds(value: float) -> str:
    """Return the number with three digits or so: more would claim what was not measured."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def readable_on(color: str) -> str:
    """Return the color of text that can be read on `color`."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(color)
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45 else INK


def halo() -> list[Any]:
    """Return the path effects that keep text readable where it crosses a line."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=2.5, foreground="white")]
