"""The phases of a start as a picture, drawn from the tables that the code measures by (`wasmlab.bench.phases`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.patches import FancyBboxPatch

from wasmlab.bench.phases import CONTAINERD_ONLY, ENGINE, LOCAL, POD, Phase
from wasmlab.plots.labels import readable_on
from wasmlab.plots.style import INK, PALE, LabFigure, style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: One color for each engine phase, the same in every figure: warm ones for what happens once per process or module.
PHASE_COLORS = {
    "process": "#8C8C8C",
    "import": "#E69F00",
    "bind": "#F4C95D",
    "child": "#BDBDBD",
    "read": "#B8A000",
    "validate": "#F2A07B",
    "compile": "#D55E00",
    "serialize": "#8A3B00",
    "keep": "#5A2A00",
    "spawn": "#CC79A7",
    "load": "#9467BD",
    "confine": "#5D4E75",
    "instantiate": "#56B4E9",
    "run": "#0072B2",
    "teardown": "#009E73",
}
_MODES = ("cold", "cached", "warm")


def phase_map() -> Figure:
    """Draw every engine phase and every moment of a Pod, each in the lane of the process that it belongs to.

    Returns
    -------
    Figure
        Above: the phases of a start, and which of them a cold, a cached and a warm start have. Below: the moments of a
        Pod in their causal order; those with a dashed edge only exist on the path through containerd.
    """
    with style():
        figure = LabFigure(figsize=(11.5, 6.2), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=(1.15, 1))
        _lanes(above, ENGINE, "A start in the sandbox: phases touch, and do not overlap")
        _spanning(above)
        _lanes(below, POD, "A Pod: moments, counted from the API write")
        below.set_xlabel(
            "dashed: only in containers (confine), only on the path through containerd (moments)",
            loc="left", fontsize=8.5, color=PALE,
        )  # fmt: skip
    return figure


def _lanes(axis: Axes, table: Sequence[Phase], title: str) -> None:
    places = list(dict.fromkeys(phase.place for phase in table))
    for lane in range(len(places)):
        axis.axhspan(lane - 0.5, lane + 0.5, color="#F6F6F6" if lane % 2 else "white", zorder=0)
    for column, phase in enumerate(table):
        color = PHASE_COLORS.get(phase.name, "#DCE6EF")
        special = phase.name == "confine" or phase.name in CONTAINERD_ONLY
        lane = places.index(phase.place)
        axis.add_patch(FancyBboxPatch(
            (column + 0.06, lane - 0.3), 0.88, 0.6, boxstyle="round,pad=0,rounding_size=0.06", facecolor=color,
            edgecolor=INK if special else "white", linestyle="--" if special else "-", linewidth=0.9,
            mutation_aspect=0.5,
        ))  # fmt: skip
        axis.annotate(phase.name.replace("_", "\n"), (column + 0.5, lane), ha="center", va="center", fontsize=7.4,
                      color=readable_on(color))  # fmt: skip
        if column:
            before = places.index(table[column - 1].place)
            if before != lane:
                axis.plot([column, column], [before, lane], color="#9A9A9A", linewidth=0.9, zorder=1)
    axis.set_xlim(0, len(table))
    axis.set_ylim(len(places) - 0.5, -0.5)
    axis.set_yticks(range(len(places)), places)
    axis.set_xticks([])
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.grid(visible=False)
    axis.spines["left"].set_visible(False)
    axis.spines["bottom"].set_visible(False)
    axis.set_title(title)


def _spanning(axis: Axes) -> None:
    """Mark below the lanes which phases each kind of start has."""
    bottom = axis.get_ylim()[0]
    for row, mode in enumerate(_MODES):
        y = bottom + 0.22 + 0.3 * row
        for column, phase in enumerate(ENGINE):
            if phase.name in LOCAL[mode]:
                axis.plot(
                    [column + 0.06, column + 0.94], [y, y], color=INK, linewidth=2.4, solid_capstyle="butt"
                )
        axis.annotate(f"{mode} start", (0, y), xytext=(-6, 0), textcoords="offset points", ha="right", va="center",
                      fontsize=8.5, color=PALE, annotation_clip=False)  # fmt: skip
    axis.set_ylim(bottom + 0.22 + 0.3 * len(_MODES), -0.5)
