"""What notebook 02 shows of the phases of a start: their table, their times, their picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wasmlab.bench import phases

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from wasmlab.sandbox.spec import CapturedOutcome

STEPS = phases.WORKER["cold"]
PROCESS = ("process", "import", "bind")


def definitions(engines: Sequence[str]) -> list[dict[str, str]]:
    """Return one row per engine phase: where it happens, what it is, and where an engine's binding hides it."""
    from wasmlab import engines as known

    hidden = {engine: known.get(engine).capabilities.hidden_phases for engine in engines}
    return [
        {
            "phase": phase.name,
            "process": phase.place,
            "what happens": phase.meaning,
            "hidden": "; ".join(
                f"{engine}: {why[phase.name]}" for engine, why in hidden.items() if phase.name in why
            ),
        }
        for phase in phases.ENGINE
    ]


def of(outcome: CapturedOutcome) -> dict[str, float]:
    """Return the duration of each phase of a run, and its first byte, in milliseconds."""
    return {span.phase: (span.end_ns - span.start_ns) / 1e6 for span in outcome.spans}


def processes(engines: Sequence[str], repetitions: int) -> list[dict[str, Any]]:
    """Start an engine's process anew again and again; return what that took, in milliseconds."""
    from wasmlab.bench.local import LocalExecutor
    from wasmlab.bench.plan import Arm

    rows = []
    with LocalExecutor() as executor:
        for _ in range(repetitions):
            for engine in engines:
                row = executor.run(Arm("local", engine, "cached", "hello"))
                took = {name: row.get(f"{name}_ns") for name in PROCESS}
                rows.append(
                    {
                        "engine": engine,
                        **{name: None if ns is None else ns / 1e6 for name, ns in took.items()},
                    }
                )
    return rows


def medians(rows: Sequence[dict[str, Any]], by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Return the medians of `columns`, one row per group; a column that nothing has is empty."""
    import pandas

    frame = pandas.DataFrame(list(rows)).reindex(columns=[*by, *columns])
    frame[list(columns)] = frame[list(columns)].astype(float)
    return frame.groupby(list(by), sort=False).median()


def picture(took: pd.DataFrame, canvas: Callable[..., Any]) -> Figure:
    """Draw the phases of a run as stacked bars, one bar for each engine and start.

    Parameters
    ----------
    took : DataFrame
        Milliseconds; a row for each (engine, mode), a column for each phase.
    canvas : callable
        `wasmlab.notebooks.kit.canvas`.
    """
    from matplotlib.lines import Line2D

    from wasmlab.plots.phase_map import PHASE_COLORS

    figure, axes = canvas(7.8, 1.5 + 0.42 * len(took))
    names = [name for name in STEPS if name in took and took[name].notna().any()]
    for row, (_, values) in enumerate(took.iterrows()):
        at = 0.0
        for name in names:
            if values[name] == values[name]:
                axes.barh(row, values[name], left=at, height=0.66, color=PHASE_COLORS[name], edgecolor="white",
                          linewidth=0.4)  # fmt: skip
                at += values[name]
        axes.annotate(
            f"{at:.1f} ms", (at, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_yticks(range(len(took)), [f"{engine}, {mode}" for engine, mode in took.index])
    axes.set_ylim(len(took) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.set(
        xlabel="milliseconds from the request to the end of the process, medians of every phase",
        title="What a run of hello.wasm is made of",
    )
    handles = [Line2D([], [], color=PHASE_COLORS[name], linewidth=7, label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, handlelength=0.9,
                  columnspacing=1.0, frameon=False)  # fmt: skip
    return figure
