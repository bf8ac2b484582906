"""A few SVG elements with scales and ticks, enough for charts that are drawn several times a second. Pure.

A chart of matplotlib costs a tenth of a second and has colors of its own; these are text, cost a millisecond, are
sharp on a projector and follow the theme of the page.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Scale(NamedTuple):
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return where a value is; values beyond the ends are at the ends."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)

    def ticks(self, most: int = 6, *, whole: bool = False) -> list[float]:
        """Return round values that lie on it."""
        return ticks(self.low, self.high, most, whole=whole)


def ticks(low: float, high: float, most: int = 6, *, whole: bool = False) -> list[float]:
    """Return at most `most` + 1 round values from `low` to `high`; with `whole` only whole numbers."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / most
    size = 10.0 ** math.floor(math.log10(rough))
    steps = (size * one for one in (1, 2, 2.5, 5, 10) if size * one >= rough * 0.999)
    # There is no half pod.
    step = next((one for one in steps if not whole or one == int(one)), 1.0)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def ceiling(value: float) -> float:
    """Return a round number that is not below `value`: an axis that ends there does not move with every new value."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(
        size * one for one in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if size * one >= value * 0.9999
    )


def number(value: float) -> str:
    """Return a number as an axis shows it."""
    return f"{value:,.10g}"


def text(x: float, y: float, content: str, *, anchor: str = "start", cls: str = "", style: str = "") -> str:
    """Return text at a point."""
    named = f' class="{cls}"' if cls else ""
    styled = f' style="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{named}{styled}>{html.escape(content)}</text>'


def path(d: str, style: str, cls: str = "") -> str:
    """Return a path; colors come by `style`, where variables of the page can be used."""
    named = f' class="{cls}"' if cls else ""
    return f'<path d="{d}"{named} style="{style}"/>' if d else ""


def axes(
    x: Scale,
    y: Scale,
    *,
    x_title: str,
    y_title: str,
    y_labels: Iterable[tuple[float, str]],
    whole: bool = False,
) -> str:
    """Return grid, ticks and titles of both axes; with `whole` the x axis counts."""
    parts = []
    for at, label in y_labels:
        parts.append(f'<path class="grid" d="M{x.start:g} {y(at)}H{x.end:g}"/>')
        parts.append(text(x.start - 6, y(at) + 4, label, anchor="end", cls="pale"))
    for at in x.ticks(whole=whole):
        parts.append(f'<path class="grid" d="M{x(at)} {y.start:g}V{y.end:g}"/>')
        parts.append(text(x(at), y.start + 16, number(at), anchor="middle", cls="pale"))
    parts.append(f'<path class="axis" d="M{x.start:g} {y.start:g}H{x.end:g}"/>')
    parts.append(text((x.start + x.end) / 2, y.start + 34, x_title, anchor="middle"))
    parts.append(text(x.start - 40, y.end - 10, y_title))
    return "".join(parts)


def figure(width: float, height: float, parts: Sequence[str], *, title: str, label: str) -> str:
    """Return a figure with its title; `label` says what it shows to those who do not see it."""
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {width:g} {height:g}" role="img"'
        f' aria-label="{html.escape(label)}">{"".join(parts)}</svg></figure>'
    )
