"""How a board looks: tables and colors that follow JupyterLab's theme, light or dark. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

# Colors with enough contrast on white and on JupyterLab's dark gray; no status is told by its color alone.
_GOOD, _BAD, _BUSY = "#1a8a3a", "#d9482b", "#b07800"
_COLORS = {
    "Ready": _GOOD,
    "Running": _GOOD,
    "Succeeded": _GOOD,
    "Completed": _GOOD,
    "Pending": _BUSY,
    "ContainerCreating": _BUSY,
    "PodInitializing": _BUSY,
    "Terminating": _BUSY,
    "Unknown": _BUSY,
}

STYLE = """<style>
.wasmlab { color: var(--jp-ui-font-color1, #222); font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif); }
.wasmlab table { border-collapse: collapse; margin: 0; }
.wasmlab th, .wasmlab td { text-align: left; padding: 2px 14px 2px 0; background: none; }
.wasmlab th { color: var(--jp-ui-font-color2, #555); font-weight: 600; }
.wasmlab .trouble { color: #d9482b; font-weight: 600; }
.wasmlab pre { color: var(--jp-content-font-color1, #222); background: var(--jp-layout-color2, #f4f4f4);
  font: 12px/1.45 var(--jp-code-font-family, monospace); padding: 6px 8px; margin: 0; overflow: auto;
  max-height: 260px; white-space: pre-wrap; }
.wasmlab-mono select { font-family: var(--jp-code-font-family, monospace); font-size: 12px; }
</style>"""


def status(text: str) -> str:
    """Return a status word in its color."""
    color = _COLORS.get(text.partition(",")[0], _BUSY if text.startswith("Init:") else _BAD)
    return f'<span style="color:{color};font-weight:600">{html.escape(text)}</span>'


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, status_column: int | None = None
) -> str:
    """Return a table; everything is escaped."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{status(str(cell)) if index == status_column else html.escape(str(cell))}</td>"
            for index, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def summary(counts: Mapping[str, int]) -> str:
    """Return ``12 pods: 3 Running, 9 Succeeded`` with colors."""
    total = sum(counts.values())
    parts = ", ".join(f"{number:,} {status(phase)}" for phase, number in counts.items())
    return f"<b>{total:,} pod{'' if total == 1 else 's'}</b>{': ' if parts else ''}{parts}"


def wrap(*parts: str) -> str:
    """Return parts as one block with the board's style."""
    return f'{STYLE}<div class="wasmlab">{"".join(parts)}</div>'


def text(content: str) -> str:
    """Return text that keeps its lines."""
    return f'<pre tabindex="0">{html.escape(content)}</pre>'


def trouble(message: str) -> str:
    """Return a remark that what is shown may be old, or that something failed; empty for an empty message."""
    return f'<div class="trouble" role="alert">{html.escape(message)}</div>' if message else ""
