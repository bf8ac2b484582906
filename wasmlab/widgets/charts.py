"""The charts that grow: distribution, running medians, waterfalls of pods, a wall of pods. Pure.

What they show is capped, so that their size does not grow with the number of pods.

References
----------
https://www.w3.org/WAI/tutorials/images/complex/ (each figure has a text that says the same)
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from wasmlab.bench.phases import waterfall as stages_of
from wasmlab.widgets import html, svg
from wasmlab.widgets.records import MEASURES, PodRecord, Standing, duration, milliseconds
from wasmlab.widgets.svg import Scale

_WIDTH, _HEIGHT = 560.0, 300.0
#: Of a waterfall.
_WIDE, _TALL = 1140.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 16.0, 30.0, 44.0
#: The second engine is dashed: a projector may have no colors to speak of.
_DASHES = {"wasmtime": "", "wasmer": "stroke-dasharray:7 3;"}
#: Stages of a pod: name, color, the moments that end it.
_STAGES = (
    ("API server, scheduler", "api", ("api_write", "scheduled")),
    ("node prepares", "node", ("seen", "sandboxed", "pulled", "compiled", "contained", "created", "started")),
    ("program starts", "start", ("first_byte",)),
    ("runs to its end", "run", ("exited",)),
    ("status gets to the client", "status", ("noticed", "status_written", "status_observed")),
)
_STAGE_OF = {moment: color for _, color, moments in _STAGES for moment in moments}
#: So many pods a waterfall shows, and so many a wall.
ROWS, SQUARES = 60, 600
_SQUARE, _PER_ROW = 12, 60


class Point(NamedTuple):
    """A running median: after `n` pods it was `value` within `low` to `high` (milliseconds)."""

    n: int
    value: float
    low: float
    high: float


def _line(engine: str, width: float = 2.5) -> str:
    return f"fill:none;stroke:var(--wl-{engine});stroke-width:{width:g};{_DASHES.get(engine, '')}"


def _unit(most_ms: float) -> tuple[float, str]:
    return (1e-3, "seconds") if most_ms >= 2000 else (1.0, "milliseconds")


def _legend(engines: Sequence[str], right: float) -> str:
    parts, at = [], right
    for engine in reversed(engines):
        at -= 7.5 * len(engine) + 10
        parts.append(svg.text(at, 14, engine))
        parts.append(svg.path(f"M{at - 34:g} 10h28", _line(engine)))
        at -= 50
    return "".join(parts)


def _empty(title: str, width: float = _WIDTH, height: float = _HEIGHT) -> str:
    note = svg.text(width / 2, height / 2, "no pod has ended yet", anchor="middle", cls="pale")
    return svg.figure(width, height, [note], title=title, label=f"{title}: no pod has ended yet")


def ecdf(records: Sequence[PodRecord], engines: Sequence[str], measure: str) -> str:
    """Draw which share of the pods needed less than a time, one curve per engine, with a dot at the median."""
    title = f"How long a pod takes until: {MEASURES[measure]}"
    values = {
        engine: sorted(value for _, value in milliseconds(records, engine, measure)) for engine in engines
    }
    if not any(values.values()):
        return _empty(title)
    most = max(own[-1] for own in values.values() if own)
    factor, unit = _unit(most)
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
        return _empty(title)
    low, high = min(point.low for point in points), max(point.high for point in points)
    factor, unit = _unit(high)
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
        return _empty(title)
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


def waterfall(records: Sequence[PodRecord], engines: Sequence[str], *, at_once: bool) -> str:
    """Draw where each pod's time went: a line per pod, a color per stage, a panel per engine.

    Parameters
    ----------
    at_once : bool
        Whether the pods were written at once: then all lines share one clock, and begin when the pod was written.
        Else each line begins at 0.
    """
    own = {engine: _shown(records, engine, at_once=at_once) for engine in engines}
    title = "Where the time of each pod goes"
    if not any(own.values()):
        return _empty(title, _WIDE, _TALL)
    ends = [_end(one, at_once=at_once) for shown in own.values() for one in shown]
    factor, unit = _unit(max(ends) * 1e-6)
    high = svg.ceiling(max(ends) * 1e-6 * factor)
    gap = 40.0
    panel = (_WIDE - gap * (len(engines) - 1)) / len(engines)
    parts: list[str] = []
    bottom = 286.0
    for number, engine in enumerate(engines):
        left = number * (panel + gap)
        x = Scale(0, high, left + 8, left + panel - 12)
        parts += _panel(own[engine], x, factor, bottom, at_once=at_once)
        every = sum(one.engine == engine and one.ok for one in records)
        head = f"{engine}: {every} pod{'' if every == 1 else 's'}"
        if every > len(own[engine]):
            head += f", {len(own[engine])} of them, {'evenly chosen' if at_once else 'the last ones'}"
        parts.append(
            svg.text(left + 8, 36, head, style=f"fill:var(--wl-{engine});font-weight:600;font-size:13px")
        )
        since = "the first API write" if at_once else "the pod's own API write"
        parts.append(svg.text(left + panel / 2, bottom + 36, f"{unit} since {since}", anchor="middle"))
    at = 8.0
    for name, color, _ in _STAGES:
        parts.append(
            f'<rect x="{at:g}" y="3" width="13" height="13" style="fill:var(--wl-{color});stroke:var(--wl-pale);'
            'stroke-width:.5"/>'
        )
        parts.append(svg.text(at + 19, 14, name))
        at += 7.2 * len(name) + 42
    said = "; ".join(f"{engine}: {len(shown)} pods" for engine, shown in own.items())
    return svg.figure(_WIDE, _TALL, parts, title=title, label=f"{title}, stage by stage. {said}")


def _end(one: PodRecord, *, at_once: bool) -> int:
    return max(one.when.values()) + (one.began_ns if at_once else 0)


def _shown(records: Sequence[PodRecord], engine: str, *, at_once: bool) -> list[PodRecord]:
    own = [one for one in records if one.engine == engine and one.ok and one.when]
    if not at_once:
        return own[-ROWS:]
    own.sort(key=lambda one: one.began_ns)
    if len(own) <= ROWS:
        return own
    return [own[round(place * (len(own) - 1) / (ROWS - 1))] for place in range(ROWS)]


def _panel(
    records: Sequence[PodRecord], x: Scale, factor: float, bottom: float, *, at_once: bool
) -> list[str]:
    top = 46.0
    parts = []
    for at in x.ticks():
        parts.append(f'<path class="grid" d="M{x(at)} {top:g}V{bottom:g}"/>')
        parts.append(svg.text(x(at), bottom + 16, svg.number(at), anchor="middle", cls="pale"))
    parts.append(f'<path class="axis" d="M{x.start:g} {bottom:g}H{x.end:g}"/>')
    # Lines get thinner as they get more, down to what can still be seen.
    pitch = min(14.0, (bottom - top) / max(len(records), 12))
    paths = {color: "" for _, color, _ in _STAGES}
    for row, one in enumerate(records):
        y = round(top + (row + 0.5) * pitch, 1)
        offset = one.began_ns if at_once else 0
        for color, stages in groupby(stages_of(dict(one.when)), key=lambda stage: _STAGE_OF[stage.phase]):
            first, *_, last = (*stages,) * 2
            start, end = (x((offset + ns) * 1e-6 * factor) for ns in (first.start_ns, last.end_ns))
            paths[color] += f"M{start} {y}H{max(end, start + 0.3):.1f}"
    parts += [
        svg.path(d, f"fill:none;stroke:var(--wl-{color});stroke-width:{pitch * 0.82:.2f}")
        for color, d in paths.items()
    ]
    return parts


def cards(standings: Sequence[Standing], measure: str, *, at_once: bool, running: bool) -> str:
    """Return the engines side by side: the median, its interval, and how many pods it stands on."""
    shown = []
    for one in standings:
        if one.interval is None:
            big, small = "–", "no pod has ended yet"
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
