"""How objects show themselves in a notebook: small tables in the colors of the page around them. Pure.

Nothing is loaded, no style leaks out, and light or dark is the page's business: text has the color it inherits, lines
are a half-transparent gray. Every text is escaped, since names in modules, output of guests and answers of registries
are somebody else's words.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_LINE = "1px solid rgba(128, 128, 128, .35)"
_CELL = "text-align:left;vertical-align:top;padding:1px 14px 1px 0;background:none;border:0"
# A page without a doctype does not hand its color down to tables.
_TABLE = "border-collapse:collapse;margin:2px 0;border:0;color:inherit"
#: Longest text that is shown of a guest's output or a registry's answer.
LONGEST = 2000


class Html(str):
    """Text that is markup already: it is not escaped again."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return `value` escaped; what is markup already stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def code(value: object) -> Html:
    """Return `value` in the font of code."""
    return Html(f"<code>{text(value)}</code>")


def digest(value: str) -> Html:
    """Return the beginning of a digest; the whole of it appears under the pointer."""
    return Html(f'<code title="{html.escape(value)}">{html.escape(value[:19])}…</code>')


def output(value: bytes | str, longest: int = LONGEST) -> Html:
    """Return what somebody printed: its lines are kept, and the end of it if it is long.

    Parameters
    ----------
    value : bytes or str
        What was printed; bytes that are no UTF-8 are replaced.
    longest : int
        How many characters are shown.
    """
    whole = value.decode(errors="replace") if isinstance(value, bytes) else value
    cut = f"… {len(whole) - longest:,} characters before …\n" if len(whole) > longest else ""
    style = "margin:0;padding:2px 0;white-space:pre-wrap;background:none;max-height:16em;overflow:auto"
    return Html(f'<pre tabindex="0" style="{style}">{html.escape(cut + whole[-longest:])}</pre>')


def verdict(good: bool | None, words: object) -> Html:
    """Return words with a sign before them: good, bad, or (None) under way. Never by color alone."""
    sign = {True: "✓", False: "✗", None: "…"}[good]
    return Html(f"<b>{sign}</b> {text(words)}")


def card(title: object, facts: Iterable[tuple[str, object]]) -> str:
    """Return an object's title and what is known about it, one fact a row; facts that are None are left out.

    Parameters
    ----------
    title : object
        What it is.
    facts : iterable of (str, object)
        Names and values.
    """
    rows = "".join(
        f'<tr style="background:none"><th scope="row" style="{_CELL};font-weight:600;opacity:.75">{text(name)}</th>'
        f'<td style="{_CELL}">{text(value)}</td></tr>'
        for name, value in facts
        if value is not None
    )
    return _framed(title, f'<table style="{_TABLE}">{rows}</table>')


def table(title: object, header: Sequence[str], rows: Iterable[Sequence[object]], note: object = "") -> str:
    """Return a table; numbers are aligned to the right.

    Parameters
    ----------
    title : object
        What is in it.
    header : sequence of str
        Names of the columns.
    rows : iterable of sequence
        Their cells.
    note : object
        What is said below.
    """
    head = "".join(
        f'<th scope="col" style="{_CELL};border-bottom:{_LINE}">{text(name)}</th>' for name in header
    )
    body = "".join(
        '<tr style="background:none">' + "".join(_cell(value) for value in row) + "</tr>" for row in rows
    )
    below = f'<div style="opacity:.75">{text(note)}</div>' if note else ""
    return _framed(
        title,
        f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}',
    )


def _cell(value: object) -> str:
    side = "right;font-variant-numeric:tabular-nums" if isinstance(value, int | float) else "left"
    shown = f"{value:,}" if isinstance(value, int | float) else text("" if value is None else value)
    return f'<td style="{_CELL};text-align:{side}">{shown}</td>'


def _framed(title: object, inside: str) -> str:
    style = "border-left:3px solid rgba(128, 128, 128, .5);padding:1px 0 1px 10px;margin:2px 0"
    return f'<div class="wasmlab-object" style="{style}"><div><b>{text(title)}</b></div>{inside}</div>'
