"""Tables of texts, rendered as Markdown, HTML or for a terminal. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def markdown(table: Table) -> str:
    """Render a table as Markdown."""
    head, rows = table
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(
        [
            "| " + " | ".join(head) + " |",
            "|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(head))) + "|",
            *("| " + " | ".join(row) + " |" for row in clean),
        ]
    )


def plain(table: Table) -> str:
    """Render a table for a terminal."""
    head, rows = table
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join(
            [first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        )

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *(line(row) for row in rows)])


def as_html(table: Table) -> str:
    """Render a table as HTML."""
    head, rows = table
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
