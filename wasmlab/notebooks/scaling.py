"""What the scale experiments say, in words. Pure: every number is computed from the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmlab.bench import scale_curves
from wasmlab.bench.scale_curves import cost, knee, size_text

if TYPE_CHECKING:
    from wasmlab.bench.scale_fit import Curve
    from wasmlab.bench.store import Results


def about_bursts(results: Results) -> list[str]:
    """Say what each more Pod of a burst costs, and whether that depends on how large it is."""
    sentences = []
    points = scale_curves.bursts(results.frame)
    for engine, own in points.groupby("engine", sort=False):
        one = scale_curves.curve(own, "seconds")
        if one is None:
            continue
        largest = own[own["load"] == own["load"].max()]
        rate = largest["per_second"].median()
        text = f"On **{engine}** each more Pod of a burst costs {cost(one.slope, 'ms', 1000)}"
        text += f"; {int(one.largest):,} at once make {rate:.0f} Pods per second. "
        sentences.append(text + _where_it_bends(one, "Pods at once", "ms", 1000))
    return sentences


def about_density(results: Results) -> list[str]:
    """Say what a live Pod takes of memory, and what it does to the start of the next one."""
    sentences = []
    points = scale_curves.live(results.frame)
    for engine, own in points.groupby("engine", sort=False):
        memory = scale_curves.curve(own, "node_uss_mb", "live")
        plane = scale_curves.curve(own, "plane_uss_mb", "live")
        start = scale_curves.curve(own, "latency_ms")
        text = ""
        if memory is not None:
            text += f"On **{engine}** each live Pod takes {cost(memory.slope, 'MB')} of the node's private memory. "
        if plane is not None:
            text += f"The control plane: {cost(plane.slope, 'MB')} for each. "
        if start is not None:
            text += f"The start of the next Pod: {cost(start.slope, 'ms')} for each that is alive. "
            text += _where_it_bends(start, "live Pods", "ms")
        sentences += [text.strip()] if text else []
    return sentences


def about_concurrency(results: Results) -> list[str]:
    """Say up to where more at a time means more per second."""
    sentences = []
    points = scale_curves.in_flight(results.frame)
    names = {"local": "in the sandbox", "node": "as Pods", "control": "native processes, the control"}
    for (path, engine), own in points.groupby(["path", "engine"]):
        one = scale_curves.curve(own, "per_second")
        if one is None:
            continue
        most = own.groupby("load")["per_second"].median()
        best = int(most.idxmax())
        text = f"**{engine}**, {names[path]}: at most {most.max():.0f} per second, with {best:,} in flight. "
        sentences.append(text + _where_it_bends(one, "in flight", "per second"))
    return sentences


def _where_it_bends(one: Curve, what: str, unit: str, factor: float = 1.0) -> str:
    if one.knee is None or one.slope_after is None:
        return (
            f"There is {one.why_not} {what}."
            if one.why_not.startswith("no ")
            else f"{one.why_not.capitalize()}."
        )
    after = cost(one.slope_after, unit, factor)
    return f"There is a **{knee(one)} {what}**: for each more beyond {size_text(one.knee.value)}: {after}."
