"""Where the time of each pod goes: a line per pod, a color per stage. Pure.

What is shown is capped, so that its size does not grow with the number of pods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby

from wasmlab.bench.phases import Stage
from wasmlab.bench.phases import waterfall as stages_of
from wasmlab.widgets import svg
from wasmlab.widgets.charts import empty, unit_of
from wasmlab.widgets.records import PodRecord
from wasmlab.widgets.svg import Scale

_WIDE, _TALL = 1140.0, 330.0
#: Stages of a pod: name, color, the moments that end it.
_STAGES = (
    ("API server, scheduler", "api", ("api_write", "scheduled")),
    ("node prepares", "node", ("seen", "sandboxed", "pulled", "compiled", "contained", "created", "started")),
    ("program starts", "start", ("first_byte",)),
    ("runs to its end", "run", ("exited",)),
    ("status gets to the client", "status", ("noticed", "status_written", "status_observed")),
)
#: Where only the API server has told of a pod, because nobody follows what happens on its node.
_WHOLE = ("on the node, as a whole", "whole")
_STAGE_OF = {moment: color for _, color, moments in _STAGES for moment in moments}
#: So many pods it shows.
ROWS = 60


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
        return empty(title, _WIDE, _TALL)
    ends = [_end(one, at_once=at_once) for shown in own.values() for one in shown]
    factor, unit = unit_of(max(ends) * 1e-6)
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
    legend = [(name, color) for name, color, _ in _STAGES]
    if not all(_is_told(one) for shown in own.values() for one in shown):
        legend.append(_WHOLE)
    for name, color in legend:
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


def _color(colors: Mapping[str, str], stage: Stage) -> str:
    return colors[stage.phase]


def _is_told(one: PodRecord) -> bool:
    return bool(one.when.keys() - {"api_write_ns", "scheduled_ns", "status_observed_ns"})


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
    paths = dict.fromkeys((*_STAGE_OF.values(), "whole"), "")
    for row, one in enumerate(records):
        y = round(top + (row + 0.5) * pitch, 1)
        offset = one.began_ns if at_once else 0
        colors = _STAGE_OF if _is_told(one) else _STAGE_OF | {"status_observed": "whole"}
        for color, stages in groupby(stages_of(dict(one.when)), key=partial(_color, colors)):
            first, *_, last = (*stages,) * 2
            start, end = (x((offset + ns) * 1e-6 * factor) for ns in (first.start_ns, last.end_ns))
            paths[color] += f"M{start} {y}H{max(end, start + 0.3):.1f}"
    parts += [
        svg.path(d, f"fill:none;stroke:var(--wl-{color});stroke-width:{pitch * 0.82:.2f}")
        for color, d in paths.items()
    ]
    return parts
