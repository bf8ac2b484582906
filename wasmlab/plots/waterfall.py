"""Where the time of a Pod, or of one run in the sandbox, goes: stage after stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from wasmlab.bench.phases import POD_MOMENTS, Stage, engine_waterfall, waterfall
from wasmlab.errors import BenchmarkError
from wasmlab.plots.labels import heading, milliseconds, readable_on
from wasmlab.plots.rows import alike, ok_rows, require_rows, typical
from wasmlab.plots.style import ENGINE_COLORS, INK, LabFigure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wasmlab.bench.store import Results

#: The mode of every Pod but the first: on the path containerd each one has a new shim, so there is no warm start.
ORDINARY = {"local": "warm", "node": "warm", "containerd": "cached"}

_PHASE_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A000", "#7A7A7A")

# Moments of a Pod, put together so that bars of both paths can be compared: name, color, the moments that end it.
_ACCOUNTS = (
    ("API server, scheduler", "#0072B2", ("api_write", "scheduled")),
    ("node hears of it", "#56B4E9", ("seen",)),
    ("pod sandbox, network", "#E69F00", ("sandboxed",)),
    ("pull, unpack, compile", "#D55E00", ("pulled", "compiled", "contained")),
    ("start the program", "#CC79A7", ("created", "started", "first_byte")),
    ("run to its end", "#009E73", ("exited",)),
    ("node notices the end", "#B8A000", ("noticed",)),
    ("status gets to the client", "#999999", ("status_written", "status_observed")),
)


def pod_waterfall(
    results: Results,
    run_id: str | None = None,
    *,
    engine: str | None = None,
    mode: str | None = None,
    path: str = "node",
) -> Figure:
    """Draw where one pod's time went, from the API write to the observed Succeeded.

    Parameters
    ----------
    results : Results
        Rows of that path.
    run_id : str, optional
        Which pod; by default the one whose total is the median of its arm, so that it is a typical one.
    engine, mode : str, optional
        Which arm; by default wasmtime and warm (path containerd: cached), if they were measured.
    path : str
        ``node`` or ``containerd``.

    Returns
    -------
    Figure
        One bar per stage, in order, with its name and milliseconds.

    Raises
    ------
    BenchmarkError
        If there is no such pod.
    """
    frame = ok_rows(results.frame, "total_ns")
    frame = frame[frame["path"] == path]
    if run_id is None:
        ordinary = ORDINARY[path]
        for column, wanted, usual in (("engine", engine, "wasmtime"), ("mode", mode, ordinary)):
            own = frame[frame[column] == (wanted or usual)]
            frame = own if wanted or len(own) else frame
    row = typical(frame, run_id)
    stages = waterfall(row)
    what = f"{row['workload']} on {row['engine']}, {row['mode']}"
    text = "one pod" if run_id else f"the median of {len(alike(frame, row))} pods"
    name = "Where a pod's time goes" + (", through containerd" if path == "containerd" else "")
    return _waterfall(stages, name, f"{what}; {text}", results)


def where_time_goes(results: Results, *, workload: str = "hello", mode: str | None = None) -> Figure:
    """Draw what a Pod's time is spent on, as stacked bars: both paths, every engine, and runc.

    Parameters
    ----------
    results : Results
        Rows of the paths ``node`` and ``containerd``.
    mode : str, optional
        Which start; by default the ordinary one, of every Pod but the first (`ORDINARY`).
    workload : str
        Which one.

    Returns
    -------
    Figure
        Two panels, each with its own scale: until the first byte, and until a client sees Succeeded. Bars end at the
        medians of the moments.

    Raises
    ------
    BenchmarkError
        If no Pod of that workload was measured.
    """
    frame = ok_rows(results.frame, "total_ns")
    frame = frame[(frame["workload"] == workload) & frame["path"].isin(["node", "containerd"])]
    wanted = frame["path"].map(ORDINARY) if mode is None else mode
    frame = frame[frame["mode"] == wanted]
    require_rows(frame, f"a Pod of {workload}")
    bars = []
    for path, number in (("node", 1), ("containerd", 2)):
        for engine in ENGINE_COLORS:
            own = frame[(frame["path"] == path) & (frame["engine"] == engine)]
            if len(own):
                columns = [f"{moment}_ns" for moment in POD_MOMENTS]
                middle = own[columns].astype(float).median()
                bars.append((f"path {number}, {engine}", waterfall(middle.to_dict())))
    with style():
        figure = LabFigure(figsize=(8.2, 2.6 + 0.72 * len(bars)), layout="constrained")
        axes = figure.subplots(2, 1)
        until = (("until the first byte of output", "first_byte"), ("until a client sees Succeeded", ""))
        for axis, (title, last) in zip(axes, until, strict=True):
            _stacked(axis, [(name, _until(stages, last)) for name, stages in bars])
            axis.set_title(title)
        axes[-1].set_xlabel("milliseconds since the API write began (each panel has its own scale)")
        ordinary = "an ordinary Pod of a running node" if mode is None else f"{mode} starts"
        heading(figure, "Where does the time go?", results, frame, what=f"{workload}, {ordinary}, medians")
        phases = {stage.phase for _, stages in bars for stage in stages}
        handles = [
            Line2D([], [], color=color, linewidth=7, label=name)
            for name, color, ends in _ACCOUNTS
            if phases & set(ends)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8.5,
                      handlelength=1.0, columnspacing=1.4)  # fmt: skip
    return figure


def _until(stages: Sequence[Stage], last: str) -> list[Stage]:
    """Return the stages up to the one that ends with the moment `last`, or in which that moment is hidden."""
    if not last:
        return list(stages)
    after = POD_MOMENTS[POD_MOMENTS.index(last) + 1 :]
    return [stage for stage in stages if stage.phase not in after]


def _stacked(axis: Axes, bars: Sequence[tuple[str, Sequence[Stage]]]) -> None:
    colors = {moment: color for _, color, ends in _ACCOUNTS for moment in ends}
    longest = max((stages[-1].end_ns * 1e-6 for _, stages in bars if stages), default=1.0)
    for row, (_, stages) in enumerate(bars):
        for stage in stages:
            axis.barh(row, stage.duration_ns * 1e-6, left=stage.start_ns * 1e-6, height=0.66,
                      color=colors[stage.phase], edgecolor="white", linewidth=0.4)  # fmt: skip
        if stages:
            end = stages[-1].end_ns * 1e-6
            axis.annotate(f"{milliseconds(end)} ms", (end, row), xytext=(5, 0), textcoords="offset points",
                          va="center", fontsize=9)  # fmt: skip
    axis.set_yticks(range(len(bars)), [name for name, _ in bars])
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set_ylim(len(bars) - 0.5, -0.5)
    axis.set_xlim(0, longest * 1.13)
    axis.grid(axis="y", visible=False)


def run_waterfall(
    results: Results, run_id: str | None = None, *, engine: str | None = None, mode: str = "cold"
) -> Figure:
    """Draw where the time of one local run went: import, compile, load, instantiate, run.

    Parameters
    ----------
    results : Results
        Rows of the path ``local``.
    run_id : str, optional
        Which run; by default a typical one of `engine` and `mode`.
    engine : str
        Of the typical run.
    mode : str
        Likewise.

    Returns
    -------
    Figure
        Belongs to no pyplot state.

    Raises
    ------
    BenchmarkError
        If there is no such run.
    """
    frame = ok_rows(results.frame, "total_ns")
    frame = frame[(frame["path"] == "local") & ((frame["mode"] == mode) | (frame["run_id"] == run_id))]
    if engine is not None:
        frame = frame[frame["engine"] == engine]
    row = typical(frame, run_id)
    stages = engine_waterfall(row)
    what = f"{row['workload']} on {row['engine']}, {row['mode']}"
    return _waterfall(stages, "Where a start's time goes", f"{what}; one typical run", results)


def _waterfall(stages: Sequence[Stage], title: str, what: str, results: Results) -> Figure:
    if not stages:
        raise BenchmarkError("this run has no phases", remedy="choose one that was measured with spans")
    total = stages[-1].end_ns * 1e-6
    with style():
        figure = LabFigure(figsize=(7.6, 1.5 + 0.36 * len(stages)), layout="constrained")
        axis = figure.subplots()
        for row, stage in enumerate(stages):
            start, took = stage.start_ns * 1e-6, stage.duration_ns * 1e-6
            color = _PHASE_COLORS[row % len(_PHASE_COLORS)]
            # At least a hairline: a stage of microseconds must be seen to exist.
            axis.barh(row, max(took, total * 0.002), left=start, height=0.68, color=color)
            if row + 1 < len(stages):
                axis.plot([start + took] * 2, [row + 0.34, row + 1 - 0.34], color="#BBBBBB", linewidth=0.8)
            inside = took > 0.3 * total
            left_of_it = not inside and (start + took) > 0.82 * total
            at = start + took / 2 if inside else start if left_of_it else start + max(took, total * 0.002)
            axis.annotate(
                f"{milliseconds(took)} ms",
                (at, row),
                xytext=(0 if inside else -5 if left_of_it else 5, 0),
                textcoords="offset points",
                va="center",
                ha="center" if inside else "right" if left_of_it else "left",
                fontsize=9,
                color=readable_on(color) if inside else INK,
            )
        axis.set_yticks(range(len(stages)), [stage.label.replace(", ", ",\n") for stage in stages])
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.set_ylim(len(stages) - 0.45, -0.6)
        axis.set_xlim(0, total * 1.02)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("milliseconds since the request began")
        heading(figure, f"{title}: {milliseconds(total)} ms", results, None, what=what)
    return figure
