"""The lab's figures. One style, colors that stay apart for color-blind readers, titles that say what was measured.

Every function takes `Results` (`wasmlab.bench.store`), returns a matplotlib `Figure`, and puts on the figure when,
where and how often it was measured; data that came with the repository is marked "recorded".

The figures belong to no pyplot state, so that a notebook shows each one once: where it is the value of a cell.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from wasmlab.bench import stats
from wasmlab.bench.phases import POD_MOMENTS, Stage, engine_waterfall, waterfall
from wasmlab.errors import BenchmarkError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from wasmlab.bench.store import Results

# Okabe and Ito's palette: told apart with every common kind of color blindness, and in gray.
ENGINE_COLORS = {"wasmtime": "#0072B2", "wasmer": "#D55E00", "runc": "#009E73", "native": "#7A7A7A"}
_PHASE_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A000", "#7A7A7A")
#: The mode of every Pod but the first: on the path containerd each one has a new shim, so there is no warm start.
ORDINARY = {"local": "warm", "node": "warm", "containerd": "cached"}
_MODE_LINES = {"cold": "-", "cached": (0, (5, 1.5)), "warm": (0, (1, 1.2)), "exec": (0, (3, 1, 1, 1))}
_INK, _PALE, _GRID = "#222222", "#6B6B6B", "#E3E3E3"
STYLE: dict[str, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#9A9A9A",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _PALE,
    "ytick.color": _PALE,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


class LabFigure(Figure):
    """A figure that shows itself in a notebook, sharp on every screen, without pyplot."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * self.dpi)
        return buffer.getvalue(), {
            "width": round(self.get_figwidth() * self.dpi),
            "height": round(self.get_figheight() * self.dpi),
        }


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Apply the lab's style while the body runs."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG; the same figure gives the same bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=STYLE["savefig.dpi"], metadata={"Software": None})
    return path


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
    frame = _ok(results.frame, value)
    frame = frame[(frame["workload"] == workload) & frame["path"].isin(paths)]
    if modes:
        frame = frame[frame["mode"].isin(modes)]
    _require(frame, f"a start of {workload}")
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
                axis.set_xlim(min(limits), max(limits))
        axes[0].set_ylabel("share of starts that were faster")
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
        _heading(
            figure, f"How long {workload} takes to start", results, frame, what=_kilobytes(results, workload)
        )
    return figure


_PANELS = {
    "local": "in the sandbox, no cluster",
    "node": "as a Pod, from the API write",
    "containerd": "path 2: kubelet, containerd, shim or runc",
}


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
                label=f"{engine}, {mode}: {_milliseconds(float(np.median(times)))} ms",
            )
            handles.append(line)
            dots.append((float(np.median(times)), ENGINE_COLORS[engine]))
    for at, color in dots:
        axis.plot([at], [0.5], "o", color=color, markeredgecolor="white", markersize=7, zorder=5)
    _log_milliseconds(axis)
    axis.set_ylim(0, 1.02)
    # One column per engine: the curves are told apart, and their medians compared, line by line. Three engines are too
    # wide for a panel; then it is one column per mode.
    columns = len({handle.get_color() for handle in handles})
    if columns > 2:
        modes = list(
            dict.fromkeys(str(handle.get_label()).split(":")[0].split(", ")[1] for handle in handles)
        )
        handles.sort(key=lambda handle: modes.index(str(handle.get_label()).split(":")[0].split(", ")[1]))
        columns = len(modes)
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
    frame = _ok(results.frame, value)
    frame = frame[(frame["path"] == path) & (frame["mode"] == mode)]
    if workloads is not None:
        frame = frame[frame["workload"].isin(workloads)]
    _require(frame, f"a {mode} run on the path {path}")
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
                    _milliseconds(at["median"]),
                    (at["high"], y),
                    xytext=(7, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8.5,
                    color=ENGINE_COLORS[engine],
                    path_effects=_halo(),
                )
        axis.set_yticks(range(len(order)), order)
        axis.tick_params(axis="y", length=0, labelcolor=_INK)
        axis.set_ylim(len(order) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        _log_milliseconds(axis, margin=1.7)
        end = "from the task's creation to its end" if path == "containerd" else "from the request to the end"
        axis.set_xlabel("milliseconds, " + ("in the guest" if value == "run_ns" else end))
        if len(engines) == 2:
            _ratios(axis, frame, value, order, engines)
        _heading(figure, "How long each workload takes", results, frame, what=f"{_path_name(path)}, {mode}")
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
        color=_PALE,
        va="bottom",
    )
    for row, name in enumerate(order):
        pick = frame[frame["workload"] == name]
        above, below = (pick.loc[pick["engine"] == engine, value] for engine in (other, base))
        if above.empty or below.empty:
            text = "–"
        else:
            ratio = stats.ratio_of_medians(above.astype(float), below.astype(float))
            text = f"{ratio.value:.2f}×  [{ratio.low:.2f}, {ratio.high:.2f}]"
        axis.text(1.02, row, text, transform=transform, fontsize=8.5, va="center")


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
    frame = _ok(results.frame, "total_ns")
    frame = frame[frame["path"] == path]
    if run_id is None:
        ordinary = ORDINARY[path]
        for column, wanted, usual in (("engine", engine, "wasmtime"), ("mode", mode, ordinary)):
            own = frame[frame[column] == (wanted or usual)]
            frame = own if wanted or len(own) else frame
    row = _typical(frame, run_id)
    stages = waterfall(row)
    what = f"{row['workload']} on {row['engine']}, {row['mode']}"
    text = "one pod" if run_id else f"the median of {len(_like(frame, row))} pods"
    name = "Where a pod's time goes" + (", through containerd" if path == "containerd" else "")
    return _waterfall(stages, name, f"{what}; {text}", results)


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


def where_time_goes(results: Results, *, workload: str = "hello", mode: str | None = None) -> Figure:
    """Draw what a Pod's time is spent on, as stacked bars: both paths, every engine, and runc.

    Parameters
    ----------
    results : Results
        Rows of the paths ``node`` and ``containerd``.
    mode : str, optional
        Which start; by default the ordinary one, of every Pod but the first (`ORDINARY`).

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
    frame = _ok(results.frame, "total_ns")
    frame = frame[(frame["workload"] == workload) & frame["path"].isin(["node", "containerd"])]
    wanted = frame["path"].map(ORDINARY) if mode is None else mode
    frame = frame[frame["mode"] == wanted]
    _require(frame, f"a Pod of {workload}")
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
        _heading(figure, "Where does the time go?", results, frame, what=f"{workload}, {ordinary}, medians")
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
            axis.annotate(f"{_milliseconds(end)} ms", (end, row), xytext=(5, 0), textcoords="offset points",
                          va="center", fontsize=9)  # fmt: skip
    axis.set_yticks(range(len(bars)), [name for name, _ in bars])
    axis.tick_params(axis="y", length=0, labelcolor=_INK)
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

    Raises
    ------
    BenchmarkError
        If there is no such run.
    """
    frame = _ok(results.frame, "total_ns")
    frame = frame[(frame["path"] == "local") & ((frame["mode"] == mode) | (frame["run_id"] == run_id))]
    if engine is not None:
        frame = frame[frame["engine"] == engine]
    row = _typical(frame, run_id)
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
                f"{_milliseconds(took)} ms",
                (at, row),
                xytext=(0 if inside else -5 if left_of_it else 5, 0),
                textcoords="offset points",
                va="center",
                ha="center" if inside else "right" if left_of_it else "left",
                fontsize=9,
                color=_readable_on(color) if inside else _INK,
            )
        axis.set_yticks(range(len(stages)), [stage.label.replace(", ", ",\n") for stage in stages])
        axis.tick_params(axis="y", length=0, labelcolor=_INK)
        axis.set_ylim(len(stages) - 0.45, -0.6)
        axis.set_xlim(0, total * 1.02)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("milliseconds since the request began")
        _heading(figure, f"{title}: {_milliseconds(total)} ms", results, None, what=what)
    return figure


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
                path_effects=_halo(),
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
        _heading(figure, f"{done.size:,} pods at once: {rate:.0f} pods per second", results, None, what=what)
    return figure


def start_phases(results: Results, *, workload: str = "hello", path: str = "local") -> Figure:
    """Draw the medians of the engine's phases as stacked bars, one bar per arm.

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

    frame = _ok(results.frame, "total_ns")
    frame = frame[(frame["path"] == path) & (frame["workload"] == workload)]
    phases = [
        name
        for name in ("import", "compile", "spawn", "read", "load", "instantiate", "run", "teardown")
        if frame[f"{name}_ns"].notna().any()
    ]
    _require(frame if phases else frame.iloc[:0], f"a run of {workload} with phases")
    arms = [
        (mode, engine)
        for mode in ("cold", "cached", "warm")
        for engine in ENGINE_COLORS
        if ((frame["mode"] == mode) & (frame["engine"] == engine)).any()
    ]
    colors = dict(zip(("spawn", "import", "read", "compile", "load", "instantiate", "run", "teardown"),
                      ("#999999", "#E69F00", "#B8A000", "#D55E00", "#CC79A7", "#56B4E9", "#0072B2", "#009E73"),
                      strict=True))  # fmt: skip
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
                        color=colors[name],
                        edgecolor="white",
                        linewidth=0.4,
                    )
                    at += middle
                total = own["total_ns"].astype(float).median() * 1e-6
                axis.barh(row, max(0.0, total - at), left=at, height=0.66, color="#EFEFEF", zorder=0)
                axis.annotate(f"{_milliseconds(total)} ms", (max(total, at), row), xytext=(5, 0),
                              textcoords="offset points", va="center", fontsize=9)  # fmt: skip
                longest = max(longest, total, at)
            axis.set_yticks(range(len(engines)), engines)
            axis.tick_params(axis="y", length=0, labelcolor=_INK)
            axis.set_ylim(len(engines) - 0.5, -0.5)
            axis.set_xlim(0, longest * 1.14)
            axis.grid(axis="y", visible=False)
            axis.set_title(mode)
        axes[-1].set_xlabel(
            "milliseconds (each panel has its own scale); pale: everything outside the engine"
        )
        _heading(
            figure,
            f"What a start of {workload} is made of",
            results,
            frame,
            what=_path_name(path) + ", medians",
        )
        names = {"import": "new process + import", "spawn": "hand over"}
        handles = [
            Line2D([], [], color=colors[name], linewidth=7, label=names.get(name, name)) for name in phases
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), fontsize=8.5,
                      handlelength=1.0, columnspacing=1.2)  # fmt: skip
    return figure


# Small parts, shared by all figures.


def _ok(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    return frame[frame["ok"] & frame[value].notna()]


def _require(frame: pd.DataFrame, what: str) -> None:
    if frame.empty:
        raise BenchmarkError(
            f"the results hold no {what}",
            remedy="measure it with `wasmlab bench`, or choose what was measured",
        )


def _typical(frame: pd.DataFrame, run_id: str | None) -> dict[str, Any]:
    if run_id is not None:
        frame = frame[frame["run_id"] == run_id]
    _require(frame, f"run {run_id}" if run_id else "such run")
    ranked = frame.sort_values("total_ns")
    return ranked.iloc[(len(ranked) - 1) // 2].to_dict() | {}


def _like(frame: pd.DataFrame, row: dict[str, Any]) -> pd.DataFrame:
    keys = ("engine", "mode", "workload")
    return frame[(frame[list(keys)] == [row[key] for key in keys]).all(axis=1)]


def _path_name(path: str) -> str:
    return {
        "local": "in the sandbox, no cluster",
        "node": "as a Pod",
        "containerd": "as a Pod, through containerd",
    }.get(path, path)


def _kilobytes(results: Results, workload: str) -> str:
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


def _heading(figure: Figure, title: str, results: Results, frame: pd.DataFrame | None, *, what: str) -> None:
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
        color="#8A3B00" if marked else _PALE,
    )


def _log_milliseconds(axis: Axes, *, margin: float = 1.15) -> None:
    axis.set_xscale("log")
    low, high = axis.dataLim.intervalx
    low, high = low / 1.25, high * margin
    if high / low < 12:  # less than a decade says little on round ticks: show more of it
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 1000 else (1,)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axis.set_xlim(low, high)


def _milliseconds(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _readable_on(color: str) -> str:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(color)
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45 else _INK


def _halo() -> list[Any]:
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=2.5, foreground="white")]
