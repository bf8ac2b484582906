"""Small box-and-arrow diagrams as SVG text. Pure: strings in, a string out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Box = tuple[float, float, str, str]  # column, row, title, subtitle
Arrow = tuple[str, str] | tuple[str, str, str]  # from, to, label

_WIDTH, _HEIGHT = 132, 52  # of a box
_GAP_X, _GAP_Y = 62, 26
_FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"


def diagram(boxes: Mapping[str, Box], arrows: Sequence[Arrow], *, highlight: Sequence[str] = ()) -> str:
    """Draw boxes on a grid and arrows between them.

    Parameters
    ----------
    boxes : mapping of str to (column, row, title, subtitle)
        Columns and rows count from 0 and may be fractions.
    arrows : sequence of (from, to) or (from, to, label)
        Names of boxes. An arrow leaves and enters at the sides that face each other.
    highlight : sequence of str
        Names of the boxes to set off.

    Returns
    -------
    str
        A complete SVG document, on white, so that it is legible in dark themes too.
    """
    columns = max(box[0] for box in boxes.values()) + 1
    rows = max(box[1] for box in boxes.values()) + 1
    width = columns * (_WIDTH + _GAP_X) - _GAP_X + 16
    height = rows * (_HEIGHT + _GAP_Y) - _GAP_Y + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}" role="img" font-family="{_FONT}">',
        "<title>" + escape(", ".join(box[2] for box in boxes.values())) + "</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 0L8 4L0 8z" fill="#566"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
    ]
    parts += [_arrow(boxes, arrow) for arrow in arrows]
    parts += [_box(box, name in highlight) for name, box in boxes.items()]
    return "".join(parts) + "</svg>"


def chain(*boxes: tuple[str, str], labels: Sequence[str] = (), highlight: int | None = None) -> str:
    """Draw boxes from left to right, each an arrow away from the one before.

    Parameters
    ----------
    *boxes : (title, subtitle)
        At least two.
    labels : sequence of str
        Words on the arrows, from the first.
    highlight : int, optional
        Which box to set off.
    """
    words = [*labels, *[""] * len(boxes)]
    return diagram(
        {str(i): (i, 0, *box) for i, box in enumerate(boxes)},
        [(str(i), str(i + 1), words[i]) for i in range(len(boxes) - 1)],
        highlight=() if highlight is None else (str(highlight),),
    )


def _corner(box: Box) -> tuple[float, float]:
    return 8 + box[0] * (_WIDTH + _GAP_X), 8 + box[1] * (_HEIGHT + _GAP_Y)


def _box(box: Box, highlighted: bool) -> str:
    x, y = _corner(box)
    fill, stroke = ("#e8f1fb", "#1f5fa8") if highlighted else ("#f7f7f5", "#99a")
    middle = x + _WIDTH / 2
    title_y = y + (22 if box[3] else 31)
    text = (
        f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{fill}" stroke="{stroke}"/>'
        f'<text x="{middle:g}" y="{title_y:g}" text-anchor="middle" font-size="13" font-weight="600"'
        f' fill="#223">{escape(box[2])}</text>'
    )
    if box[3]:
        text += (
            f'<text x="{middle:g}" y="{y + 39:g}" text-anchor="middle" font-size="11" fill="#556">'
            f"{escape(box[3])}</text>"
        )
    return text


def _arrow(boxes: Mapping[str, Box], arrow: Arrow) -> str:
    first, second = boxes[arrow[0]], boxes[arrow[1]]
    (ax, ay), (bx, by) = _corner(first), _corner(second)
    if first[0] == second[0]:  # the same column: from below to above, or back
        down = by > ay
        start = (ax + _WIDTH / 2, ay + (_HEIGHT if down else 0))
        end = (bx + _WIDTH / 2, by + (0 if down else _HEIGHT))
    else:
        right = bx > ax
        start = (ax + (_WIDTH if right else 0), ay + _HEIGHT / 2)
        end = (bx + (0 if right else _WIDTH), by + _HEIGHT / 2)
    line = (
        f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}" stroke="#566"'
        ' stroke-width="1.4" marker-end="url(#tip)"/>'
    )
    label = arrow[2] if len(arrow) == 3 else ""
    if not label:
        return line
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 5
    if first[0] == second[0]:
        x, y, anchor = x + 6, y + 9, "start"
    else:
        anchor = "middle"
    return line + (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="10.5" fill="#445" stroke="#fff"'
        f' stroke-width="3" paint-order="stroke">{escape(label)}</text>'
    )
