"""The charts that grow: distribution, running medians, a burst's progress, a wall of pods, and cards. Pure.

References
----------
https://www.w3.org/WAI/tutorials/images/complex/ (each figure has a text that says the same)
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wasmlab.widgets import html, svg
from wasmlab.widgets.records import MEASURES, PodRecord, Standing, duration, milliseconds
from wasmlab.widgets.svg import Scale

_WIDTH, _HEIGHT = 560.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 16.0, 30.0, 44.0
#: The second engine is dashed: a projector may have no colors to speak of.
_DASHES = {"wasmtime": "", "wasmer": "stroke-dasharray:7 3;"}
_NOTHING, _UNKNOWN = "no pod has ended yet", "nobody told of this moment: let the clock stop at Succeeded"
#: So many pods a wall shows.
SQUARES = 600
_SQUARE, _PER_ROW = 12, 60


class Point(NamedTuple):
    """A running median: after `n` pods it was `value` within `low` to `high` (milliseconds)."""

    n: int
    value: float
    low: float
    high: float


def _line(engine: str, width: float = 2.5) -> str:
    return f"fill:none;stroke:var(--wl-{engine});stroke-width:{width:g};{_DASHES.get(engine, '')}"


def unit_of(most_ms: float) -> tuple[float, str]:
    """Return what to multiply milliseconds by, and what they then are."""
    return (1e-3, "seconds") if most_ms >= 2000 else (1.0, "milliseconds")


def _legend(engines: Sequence[str], right: float) -> str:
    parts, at = [], right
    for engine in reversed(engines):
        at -= 7.5 * len(engine) + 10
        parts.append(svg.text(at, 14, engine))
        parts.append(svg.path(f"M{at - 34:g} 10h28", _line(engine)))
        at -= 50
    return "".join(parts)


def empty(title: str, width: float = _WIDTH, height: float = _HEIGHT, *, why: str = _NOTHING) -> str:
    """Return a chart that says why there is nothing to see, as large as it will be."""
    note = svg.text(width / 2, height / 2, why, anchor="middle", cls="pale")
    return svg.figure(width, height, [note], title=title, label=f"{title}: {why}")


def ecdf(records: Sequence[PodRecord], engines: Sequence[str], measure: str) -> str:
    """Draw which share of the pods needed less than a time, one curve per engine, with a dot at the median."""
    title = f"How long a pod takes until: {MEASURES[measure]}"
    values = {
        engine: sorted(value for _, value in milliseconds(records, engine, measure)) for engine in engines
    }
    if not any(values.values()):
        return empty(title, why=_UNKNOWN if any(one.ok for one in records) else _NOTHING)
    most = max(own[-1] for own in values.values() if own)
    factor, unit = unit_of(most)
    x = Scale(0, svg.ceiling(most * factor), _LEFT, _WIDTH - _RIGHT)
    y = Scale(0, 1, _HEIGHT - _BOTTOM, _TOP)
    labels = [(share / 100, f"{share} %") for share in (0, 25, 50, 75, 100)]
    parts = [
        svg.axes(x, y, x_title=f"{unit} since the API write began", y_title="share of pods", y_labels=labels),
        _legend(engines, _WIDTH - _RIGHT),
    ]
    said = []
    for engine, own in values.items():
        if not own:
            continue
        steps = "".join(f"H{x(value * factor)}V{y(number / len(own))}" for number, value in enumerate(own, 1))
        parts.append(svg.path(f"M{x(own[0] * factor)} {y(0)}{steps}", _line(engine)))
        middle = statistics.median(own)
        parts.append(
            f'<circle cx="{x(middle * factor)}" cy="{y(0.5)}" r="5" style="fill:var(--wl-{engine});'
            'stroke:var(--wl-ground);stroke-width:2"/>'
        )
        said.append(f"{engine}: {len(own)} pods from {duration(own[0])} to {duration(own[-1])}")
    return svg.figure(_WIDTH, _HEIGHT, parts, title=title, label=f"{title}. {'; '.join(said)}")


def growth(history: Mapping[str, Sequence[Point]]) -> str:
    """Draw how the medians and their intervals settle while the number of pods grows."""
    title = "The median and its 95 % interval, as n grows"
    points = [point for own in history.values() for point in own]
    if not points:
        return empty(title)
    low, high = min(point.low for point in points), max(point.high for point in points)
    factor, unit = unit_of(high)
    margin = max(high - low, high * 0.05) * 0.1
    x = Scale(0, svg.ceiling(max(point.n for point in points)), _LEFT, _WIDTH - _RIGHT)
    y = Scale(
        max(0.0, (low - margin) * factor),
        (high + margin) * factor,
        _HEIGHT - _BOTTOM,
        _TOP,
    )
    labels = [(at, svg.number(at)) for at in y.ticks(5)]
    parts = [
        svg.axes(x, y, x_title="pods of each engine", y_title=unit, y_labels=labels, whole=True),
        _legend(list(history), _WIDTH - _RIGHT),
    ]
    said = []
    for engine, own in history.items():
        if not own:
            continue
        there = "L".join(f"{x(one.n)} {y(one.high * factor)}" for one in own)
        back = "L".join(f"{x(one.n)} {y(one.low * factor)}" for one in reversed(own))
        parts.append(svg.path(f"M{there}L{back}Z", f"fill:var(--wl-{engine});fill-opacity:.18;stroke:none"))
        middle = "L".join(f"{x(one.n)} {y(one.value * factor)}" for one in own)
        parts.append(svg.path(f"M{middle}", _line(engine)))
        last = own[-1]
        parts.append(
            f'<circle cx="{x(last.n)}" cy="{y(last.value * factor)}" r="4" style="fill:var(--wl-{engine})"/>'
        )
        said.append(
            f"{engine}: {duration(last.value)} ({duration(last.low)} to {duration(last.high)}), n = {last.n}"
        )
    return svg.figure(_WIDTH, _HEIGHT, parts, title=title, label=f"{title}. {'; '.join(said)}")


def rate(records: Sequence[PodRecord], engines: Sequence[str]) -> str:
    """Draw how many pods of a burst had ended at each time, one curve per engine."""
    title = "How many pods have ended"
    ends = {
        engine: sorted(
            (one.began_ns + one.when["status_observed_ns"]) * 1e-9
            for one in records
            if one.engine == engine and one.ok and "status_observed_ns" in one.when
        )
        for engine in engines
    }
    if not any(ends.values()):
        return empty(title)
    x = Scale(0, svg.ceiling(max(own[-1] for own in ends.values() if own)), _LEFT, _WIDTH - _RIGHT)
    y = Scale(0, svg.ceiling(max(map(len, ends.values()))), _HEIGHT - _BOTTOM, _TOP)
    labels = [(at, svg.number(at)) for at in y.ticks(5, whole=True)]
    parts = [
        svg.axes(x, y, x_title="seconds since the first API write", y_title="pods", y_labels=labels),
        _legend(engines, _WIDTH - _RIGHT),
    ]
    for engine, own in ends.items():
        steps = "".join(f"H{x(at)}V{y(number)}" for number, at in enumerate(own, 1))
        parts.append(svg.path(f"M{x(0)} {y(0)}{steps}" if steps else "", _line(engine)))
    said = "; ".join(
        f"{engine}: {len(own)} pods after {own[-1]:.1f} s" for engine, own in ends.items() if own
    )
    return svg.figure(_WIDTH, _HEIGHT, parts, title=title, label=f"{title}. {said}")


def cards(standings: Sequence[Standing], measure: str, *, at_once: bool, running: bool) -> str:
    """Return the engines side by side: the median, its interval, and how many pods it stands on."""
    shown = []
    for one in standings:
        if one.interval is None:
            big, small = "–", _UNKNOWN if one.unknown else _NOTHING
        else:
            big = duration(one.interval.value)
            small = (
                f"95 % interval {duration(one.interval.low)} to {duration(one.interval.high)}"
                if one.has_interval
                else "no interval: pods of one burst wait for each other"
                if at_once
                else "no interval yet: too few pods"
            )
        left_out = [f"{one.failed} failed"] if one.failed else []
        left_out += [f"{one.unknown} unknown"] if one.unknown else []
        left_out += [f"{one.warmup} of the warm-up left out"] if one.warmup else []
        count = f"n = {one.n}{' so far' if running else ''}" + "".join(f", {text}" for text in left_out)
        dashes = "dashed" if _DASHES.get(one.engine) else "solid"
        shown.append(
            f'<section class="card" style="border-left:6px {dashes} var(--wl-{one.engine})"'
            f' aria-label="{html.escape(one.engine)}"><b>{html.escape(one.engine)}</b>'
            f'<div class="big">{big}</div><div>median until: {MEASURES[measure]}</div>'
            f"<div>{small}</div><div>{count}</div></section>"
        )
    return f'<div class="cards">{"".join(shown)}</div>'


def wall(phases: Sequence[str]) -> str:
    """Draw a square per pod, the oldest first, so that each keeps its place; empty without pods.

    Parameters
    ----------
    phases : sequence of str
        Of the pods, by age.
    """
    if not phases:
        return ""
    shown = phases[-SQUARES:]
    rows = -(-len(shown) // _PER_ROW)
    squares = dict.fromkeys(("good", "bad", "busy", "wait"), "")
    marks = {"bad": "", "busy": ""}
    for number, phase in enumerate(shown):
        row, column = divmod(number, _PER_ROW)
        x, y, kind = column * _SQUARE + 1, row * _SQUARE + 1, html.kind(phase)
        squares[kind] += f"M{x} {y}h9v9h-9z"
        if kind == "bad":
            marks[kind] += f"M{x + 2} {y + 2}l5 5M{x + 7} {y + 2}l-5 5"
        elif kind == "busy":
            marks[kind] += f"M{x + 3} {y + 3}h3v3h-3z"
    parts = [
        svg.path(d, f"fill:var(--wl-{kind})" if kind != "wait" else "fill:none;stroke:var(--wl-wait)")
        for kind, d in squares.items()
    ]
    parts.append(svg.path(marks["bad"], "stroke:var(--wl-ground);stroke-width:1.5;fill:none"))
    parts.append(svg.path(marks["busy"], "fill:var(--wl-ground)"))
    width = _PER_ROW * _SQUARE
    said = ", ".join(f"{sum(one == phase for one in shown)} {phase}" for phase in dict.fromkeys(shown))
    return (
        f'<svg viewBox="0 0 {width} {rows * _SQUARE}" style="max-width:{width * 1.25:g}px" role="img"'
        f' aria-label="a square for each pod, the oldest first: {html.escape(said)}">{"".join(parts)}</svg>'
    )
