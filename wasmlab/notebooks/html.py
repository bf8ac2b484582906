"""Executed notebooks as web pages that load nothing from the network."""

from __future__ import annotations

import contextlib
import copy
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wasmlab.paths import atomic_write

# nbconvert's page fetches require.js, MathJax and Mermaid from a content network. The notebooks use none of them.
_TEMPLATE = (
    """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}<style>"""
    + """
main { max-width: 62rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
.wasmlab-nav { max-width: 62rem; margin: 0 auto; padding: .8rem 1.5rem 0; display: flex; gap: 1.5rem;
  font: 14px/1.4 system-ui, sans-serif; }
.wasmlab-nav a { color: #1f5fa8; text-decoration: none; }
.wasmlab-nav .grow { flex: 1; }
.jp-InputPrompt, .jp-OutputPrompt { display: none; }
.jp-OutputArea-output, .jp-InputArea-editor .highlight { overflow-x: auto; }
.jp-OutputArea-output pre { white-space: pre; }
.jp-RenderedHTMLCommon { line-height: 1.55; }
.jp-RenderedHTMLCommon table { margin: .3rem 0 .8rem; }
.jp-RenderedHTMLCommon td, .jp-RenderedHTMLCommon th { vertical-align: top; text-align: left !important; }
.jp-RenderedImage img, .jp-RenderedSVG svg, .jp-RenderedSVG img { max-width: 100%; height: auto; }
.celltag_parameters, .celltag_injected-parameters { border-left: 3px solid #d8b24a; padding-left: .5rem; }
@media (max-width: 700px) { main { padding: .5rem .5rem 3rem; } }
"""
    + """</style>{%- endblock -%}
{%- block body_header -%}{{ super() }}{{ resources.wasmlab_nav }}{%- endblock -%}
{% block data_png scoped %}
<div class="jp-RenderedImage jp-OutputArea-output" data-mime-type="image/png">
<img src="data:image/png;base64,{{ output.data['image/png'] }}"
 alt="{{ (output.metadata.get('image/png', {}).get('alt') or 'Figure made by the cell above') | escape_html }}"
 {%- set width = output.metadata.get('image/png', {}).get('width') %}
 {%- if width %} width="{{ width }}"{% endif %}>
</div>
{% endblock %}
"""
)

_STYLE = """\
:root { color-scheme: light dark; --ink: #212121; --pale: #5f5f5f; --line: #dcdcdc; --ground: #fff; --raised: #f6f7f9;
  --link: #1f5fa8; --good: #00704a; --bad: #b3261e; --recorded: #8a3b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --pale: #a8a8a8; --line: #3d3d3d; --ground: #161616;
  --raised: #222; --link: #7cb7f5; --good: #4fd1a1; --bad: #ff9b8f; --recorded: #f5a04c; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1.5rem 1.5rem 4rem;
  color: var(--ink); background: var(--ground); }
h1 { font-size: 2rem; margin: 0 0 .2rem; } h2 { margin: 2.2rem 0 .6rem; }
a { color: var(--link); text-decoration: none; } a:hover, a:focus-visible { text-decoration: underline; }
.lead { font-size: 1.1rem; margin: 0 0 1.2rem; } .pale { color: var(--pale); }
table { border-collapse: collapse; } th { color: var(--pale); font-weight: 600; }
td, th { padding: .35rem 1.6rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.ok { color: var(--good); font-weight: 600; } .failed, .interrupted { color: var(--bad); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); gap: 1.2rem;
  align-items: start; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; background: var(--raised); }
figure > a { display: block; background: #fff; }
img { display: block; width: 100%; height: auto; }
figcaption { padding: .5rem .8rem .6rem; font-size: .9rem; } .recorded { color: var(--recorded); display: block; }
"""
_SIGNS = {"ok": "✓", "failed": "✗", "interrupted": "✗"}


def render(notebook: Any, target: Path, *, before: str = "", after: str = "") -> Path:
    """Write an executed notebook as one self-contained page.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        The executed notebook, whole or up to its failure.
    target : Path
        The page; written atomically.
    before, after : str
        Stems of the neighbouring notebooks, for the links at the top.
    """
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config(
        {
            "HTMLExporter": {"exclude_anchor_links": True},
            # A diagram is worth looking at, the call that draws it is not.
            "TagRemovePreprocessor": {"enabled": True, "remove_input_tags": ["hide-input"]},
        }
    )
    exporter = HTMLExporter(
        config=config,
        extra_loaders=[DictLoader({"wasmlab.html.j2": _TEMPLATE})],
        template_file="wasmlab.html.j2",
    )
    # The state of widgets is for those who can click on them; they would need scripts from a content network.
    notebook = copy.copy(notebook)
    notebook["metadata"] = {key: value for key, value in notebook["metadata"].items() if key != "widgets"}
    links = ['<a href="index.html">All notebooks</a>', '<span class="grow"></span>']
    links += [f'<a href="{html.escape(before)}.html">← {html.escape(before)}</a>'] if before else []
    links += [f'<a href="{html.escape(after)}.html">{html.escape(after)} →</a>'] if after else []
    resources = {
        "metadata": {"name": target.stem},
        "wasmlab_nav": f'<nav class="wasmlab-nav">{"".join(links)}</nav>',
    }
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    atomic_write(target, body, mode=0o644)
    return target


def index(runs: Mapping[str, Mapping[str, Any]], plots: Sequence[str], target: Path) -> Path:
    """Write the page that lists what is in a report directory.

    Parameters
    ----------
    runs : mapping
        By the stem of the notebook: title, status, duration_s, when.
    plots : sequence of str
        File names of the PNG plots in ``plots/``.
    target : Path
        The page; written atomically.
    """
    rows = "".join(
        f'<tr><td><a href="{html.escape(stem)}.html">{stem[:2]} · {html.escape(run["title"])}</a></td>'
        f"<td>{_status(run['status'])}</td>"
        f'<td class="number">{run["duration_s"]:.1f} s</td><td>{html.escape(run["when"])}</td></tr>'
        for stem, run in sorted(runs.items())
    )
    through = sum(run["status"] == "ok" for run in runs.values())
    seconds = sum(run["duration_s"] for run in runs.values())
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>wasmlab report</title><style>
{_STYLE}</style></head><body>
<h1>wasmlab report</h1>
<p class="lead">WebAssembly on Kubernetes, down two paths, and what each one costs:
the executed notebooks and their plots.</p>
<p>{through} of {len(runs)} notebooks ran through, in {seconds:.0f} s.</p>
<table><tr><th>Notebook</th><th>Status</th><th class="number">Duration</th><th>Executed</th></tr>{rows}</table>
<h2>Plots</h2>{_plots(runs, plots, target.parent / "plots")}
</body></html>
"""
    atomic_write(target, page, mode=0o644)
    return target


def _status(word: str) -> str:
    return f'<span class="{html.escape(word)}">{_SIGNS.get(word, "·")} {html.escape(word)}</span>'


def _plots(runs: Mapping[str, Mapping[str, Any]], plots: Sequence[str], directory: Path) -> str:
    """Return the plots, each with the notebook that made it: the names of both begin with the notebook's number."""
    titles = {stem[:2]: (stem, str(run["title"])) for stem, run in runs.items()}
    parts = []
    for name in plots:
        text, recorded = _about(directory / name)
        stem, title = titles.get(name[:2], ("", ""))
        url, said = f"plots/{html.escape(name)}", html.escape(text)
        parts.append(
            f'<figure><a href="{url}"><img src="{url}" alt="{said}" loading="lazy"></a><figcaption>{said}'
            + (f' · <a href="{html.escape(stem)}.html">{name[:2]} {html.escape(title)}</a>' if stem else "")
            + (f'<span class="recorded">{html.escape(recorded)}</span>' if recorded else "")
            + "</figcaption></figure>"
        )
    return f'<div class="plots">{"".join(parts)}</div>' if parts else "<p>None.</p>"


def _about(picture: Path) -> tuple[str, str]:
    """Return what a plot says of itself (`wasmlab.notebooks.kit.show`): what it shows, and whether it is recorded."""
    from PIL import Image

    told: Mapping[Any, Any] = {}
    with contextlib.suppress(OSError), Image.open(picture) as image:
        told = image.info
    named = picture.stem.partition("_")[2].replace("_", " ") or picture.stem
    return str(told.get("Description") or named), str(told.get("Comment") or "")


def batch_index(runs: Sequence[tuple[str, Mapping[str, Any] | None]], target: Path) -> Path:
    """Write the page over the executed notebooks of a batch.

    Parameters
    ----------
    runs : sequence of (str, mapping or None)
        Name of the run's directory, and what is known of it: notebook, title, parameters, status, error, duration_s,
        when; None if it has not run.
    target : Path
        The page; written atomically.
    """
    rows = []
    for name, run in runs:
        if run is None:
            rows.append(
                f"<tr><td>{html.escape(name)}</td><td></td><td></td><td>not run</td><td></td><td></td></tr>"
            )
            continue
        page = f"{name}/{run['notebook'].removesuffix('.ipynb')}.html"
        chosen = "<br>".join(html.escape(f"{key} = {value}") for key, value in run["parameters"].items())
        error = f"<pre>{html.escape(run['error'])}</pre>" if run["error"] else ""
        rows.append(
            f'<tr><td><a href="{html.escape(page)}">{html.escape(name)}</a></td><td>{html.escape(run["title"])}</td>'
            f"<td>{chosen}</td><td>{_status(run['status'])}{error}</td>"
            f"<td>{run['duration_s']:.1f} s</td><td>{html.escape(run['when'])}</td></tr>"
        )
    finished = sum(run is not None and run["status"] == "ok" for _, run in runs)
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>wasmlab batch</title><style>
{_STYLE}td {{ vertical-align: top; }} pre {{ max-width: 30rem; overflow-x: auto; font-weight: 400; }}
</style></head><body>
<h1>wasmlab batch</h1><p>{finished} of {len(runs)} runs succeeded.</p>
<table><tr><th>Run</th><th>Notebook</th><th>Parameters</th><th>Status</th><th>Duration</th><th>Executed</th></tr>
{"".join(rows)}</table>
</body></html>
"""
    atomic_write(target, page, mode=0o644)
    return target
