"""How a board looks: tables and colors that follow JupyterLab's theme, light or dark. Pure.

Colors are CSS variables, so that a page that changes its theme changes what is on it. They are relatives of Okabe and
Ito's palette, told apart with every common kind of color blindness, darker on white and lighter on dark so that text
keeps a contrast of 4.5. Nothing is told by color alone: a status has a sign and a word, a pod's square a shape, an
engine's curve its dashes.

References
----------
https://www.w3.org/TR/WCAG22/ (1.4.1 use of color, 1.4.3 contrast, 2.4.7 focus visible)
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from wasmlab.errors import WasmlabError

# Variables of a notebook that was exported have JupyterLab's light values; elsewhere there are none.
STYLE = """<style>
.wasmlab {
  --wl-ink: var(--jp-ui-font-color1, #212121); --wl-pale: var(--jp-ui-font-color2, #616161);
  --wl-line: var(--jp-border-color1, #bdbdbd); --wl-grid: var(--jp-border-color2, #e0e0e0);
  --wl-ground: var(--jp-layout-color1, #fff); --wl-raised: var(--jp-layout-color2, #f4f4f4);
  --wl-good: #00704a; --wl-bad: #b3261e; --wl-busy: #0067a5; --wl-wait: #6b5300;
  --wl-wasmtime: #0072b2; --wl-wasmer: #c04e00;
  --wl-api: #8a8a8a; --wl-node: #e69f00; --wl-start: #cc79a7; --wl-run: #009e73; --wl-status: #56b4e9;
  --wl-whole: #b8a000;
  color: var(--wl-ink); font: 14px/1.5 var(--jp-ui-font-family, system-ui, sans-serif); }
[data-jp-theme-light="false"] .wasmlab {
  --wl-good: #4fd1a1; --wl-bad: #ff9b8f; --wl-busy: #7cc4f5; --wl-wait: #e8c35a;
  --wl-wasmtime: #56b4e9; --wl-wasmer: #f5a04c;
  --wl-api: #a8a8a8; --wl-run: #2fc79b; }
.wasmlab table { border-collapse: collapse; margin: 0; }
.wasmlab th, .wasmlab td { text-align: left; padding: 2px 16px 2px 0; background: none; }
.wasmlab th { color: var(--wl-pale); font-weight: 600; }
.wasmlab .trouble { color: var(--wl-bad); font-weight: 600; border-left: 4px solid var(--wl-bad);
  padding: 2px 8px; margin: 4px 0; white-space: pre-wrap; }
.wasmlab .remedy { color: var(--wl-ink); font-weight: 400; }
.wasmlab .pale { color: var(--wl-pale); }
.wasmlab .good { color: var(--wl-good); } .wasmlab .bad { color: var(--wl-bad); }
.wasmlab .busy { color: var(--wl-busy); } .wasmlab .wait { color: var(--wl-wait); }
.wasmlab .status { font-weight: 600; white-space: nowrap; }
.wasmlab pre { color: var(--wl-ink); background: var(--wl-raised);
  font: 13px/1.45 var(--jp-code-font-family, monospace);
  padding: 6px 8px; margin: 0; overflow: auto; max-height: 260px; white-space: pre-wrap; }
.wasmlab figure { margin: 0; } .wasmlab figcaption { font-weight: 600; margin: 4px 0 2px; }
.wasmlab svg { display: block; width: 100%; height: auto; }
.wasmlab svg text { fill: var(--wl-ink); font: 12px var(--jp-ui-font-family, system-ui, sans-serif); }
.wasmlab svg .pale { fill: var(--wl-pale); }
.wasmlab svg .grid { stroke: var(--wl-grid); stroke-width: 1; fill: none; }
.wasmlab svg .axis { stroke: var(--wl-line); stroke-width: 1; fill: none; }
.wasmlab .cards { display: flex; flex-wrap: wrap; gap: 12px; }
.wasmlab .card { flex: 1 1 240px; border: 1px solid var(--wl-line); border-left-width: 6px; padding: 6px 14px 8px;
  background: var(--wl-ground); }
.wasmlab .card b { font-size: 15px; }
.wasmlab .card .big { font-size: 30px; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.wasmlab .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
  gap: 12px 24px; }
.wasmlab .charts .wide { grid-column: 1 / -1; }
.wasmlab-mono select { font: 13px/1.5 var(--jp-code-font-family, monospace); }
.wasmlab-mono select option { padding: 1px 4px; }
.wasmlab-board .jupyter-button { width: auto; min-width: 96px; height: 30px; line-height: 28px; }
.wasmlab-board .widget-radio { display: flex; align-items: center; gap: 8px; margin-right: 12px; }
.wasmlab-board .widget-radio-box { margin: 0 !important; }
.wasmlab-board .widget-radio-box label { margin-right: 12px; }
.wasmlab-board button:focus-visible, .wasmlab-board select:focus-visible, .wasmlab-board input:focus-visible,
.wasmlab-board textarea:focus-visible, .wasmlab-board [tabindex]:focus-visible {
  outline: 3px solid var(--jp-brand-color1, #1976d2) !important; outline-offset: 1px; }
</style>"""

_SIGNS = {"good": "✓", "bad": "✗", "busy": "●", "wait": "○"}
_KINDS = {
    "Ready": "good",
    "Running": "busy",
    "Succeeded": "good",
    "Completed": "good",
    "Pending": "wait",
    "ContainerCreating": "wait",
    "PodInitializing": "wait",
    "Terminating": "wait",
    "Unknown": "wait",
}


def kind(text: str) -> str:
    """Return what sort of status a word is: ``good``, ``busy``, ``wait`` or ``bad``."""
    return _KINDS.get(text.partition(",")[0], "wait" if text.startswith("Init:") else "bad")


def sign(text: str) -> str:
    """Return the sign of a status word: it is told by its shape too."""
    return _SIGNS[kind(text)]


def status(text: str) -> str:
    """Return a status word with its sign, in its color."""
    return f'<span class="status {kind(text)}"><span aria-hidden="true">{sign(text)} </span>{html.escape(text)}</span>'


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
    """Return ``12 pods: 3 Running, 9 Succeeded`` with signs and colors."""
    total = sum(counts.values())
    parts = ", ".join(f"{number:,} {status(phase)}" for phase, number in counts.items())
    return f"<b>{total:,} pod{'' if total == 1 else 's'}</b>{': ' if parts else ''}{parts}"


def block(*parts: str) -> str:
    """Return parts as one block, for a page that has the style already."""
    return f'<div class="wasmlab">{"".join(parts)}</div>'


def wrap(*parts: str) -> str:
    """Return parts as one block with the board's style."""
    return STYLE + block(*parts)


def text(content: str, label: str) -> str:
    """Return text that keeps its lines and can be scrolled by the keyboard; `label` says what it is."""
    return f'<pre tabindex="0" role="region" aria-label="{html.escape(label)}">{html.escape(content)}</pre>'


def trouble(message: str, remedy: str | None = None) -> str:
    """Return a remark that something failed, or that what is shown may be old; empty for an empty message."""
    if not message:
        return ""
    more = f'\n<span class="remedy">Try: {html.escape(remedy)}</span>' if remedy else ""
    return f'<div class="trouble" role="alert">✗ {html.escape(message)}{more}</div>'


def error(what: Exception) -> str:
    """Return an error with its remedy."""
    if isinstance(what, WasmlabError):
        return trouble(what.message, what.remedy)
    return trouble(str(what) or type(what).__name__)


def escape(content: object) -> str:
    """Return text that HTML takes as text."""
    return html.escape(str(content))
