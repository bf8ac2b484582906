"""A directory of results as something to read: tables as Markdown and HTML, figures as PNG."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.bench.store import Results, load_all
from wasmlab.errors import BenchmarkError
from wasmlab.paths import atomic_write
from wasmlab.report.render import Table, as_html, markdown
from wasmlab.report.tables import (
    arm_table,
    conditions_table,
    headline_table,
    ordinary,
    ratio_table,
    scale_table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(directory: Path, results: Results | None = None) -> list[Path]:
    """Write ``report.md``, ``report.html`` and PNGs into a directory of results.

    Parameters
    ----------
    directory : Path
        Holds Parquet files that `wasmlab bench` wrote; they must come from one environment.
    results : Results, optional
        Use these rows in place of the files.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    BenchmarkError
        If there are no results, or they must not be pooled.
    """
    directory = Path(directory)
    results = results if results is not None else load_all(directory)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    pictures: list[tuple[str, str]] = []
    from wasmlab import plots

    for name, title, draw in _FIGURES:
        try:
            figure = draw(results if name.startswith("scale_") else ordinary(results))
        except BenchmarkError:
            continue  # what was not measured is not drawn
        written.append(plots.save(figure, directory / f"{name}.png"))
        pictures.append((f"{name}.png", title))
    sections = _sections(results)
    for suffix, render in ((".md", _markdown), (".html", _html)):
        path = directory / f"report{suffix}"
        atomic_write(path, render(results, sections, pictures), mode=0o644)
        written.append(path)
    return written


def _sections(results: Results) -> list[tuple[str, Table]]:
    plain_runs = bool(ordinary(results).rows)
    found = [
        ("Headline figures", headline_table(results)),
        ("Every arm", arm_table(results) if plain_runs else (("arm",), [])),
        ("Ratios", ratio_table(results) if plain_runs else (("ratio",), [])),
        ("Cost curves", scale_table(results) if results.rows else (("cost curve",), [])),
        ("Where and when", conditions_table(results)),
    ]
    return [(title, table) for title, table in found if table[1]]


def _failures(results: Results) -> list[str]:
    counted: dict[str, int] = {}
    for row in results.failures:
        text = f"{row['path']} {row['engine']} {row['mode']} {row['workload']}: {row['error']}"
        counted[text] = counted.get(text, 0) + 1
    return [f"{count} × {text}" for text, count in counted.items()]


def _title(results: Results) -> str:
    mark = "recorded" if results.is_recorded else "measured"
    return f"{len(results.rows):,} runs, {mark} {results.where}"


def _markdown(results: Results, sections: list[tuple[str, Table]], pictures: list[tuple[str, str]]) -> str:
    lines = ["# wasmlab bench", "", _title(results), ""]
    if results.plan.get("interrupted"):
        lines += ["**Interrupted: these are the runs so far.**", ""]
    for file, title in pictures:
        lines += [f"![{title}]({file})", ""]
    for title, table in sections:
        lines += [f"## {title}", "", markdown(table), ""]
    failures = _failures(results)
    if failures:
        lines += ["## Failures", "", *(f"- {line}" for line in failures), ""]
    return "\n".join(lines)


_PAGE_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}p.when{color:#6b6b6b;margin-top:.2rem}img{max-width:100%;margin:1rem 0}
table{border-collapse:collapse;margin:.5rem 0 2rem;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
td,th{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid #e3e3e3;white-space:nowrap}
td:first-child,th:first-child{text-align:left}
@media (prefers-color-scheme:dark){body{background:#1a1a1a;color:#ddd}td,th{border-color:#3a3a3a}
p.when{color:#999}img{background:#fff;border-radius:4px}}
"""


def _html(results: Results, sections: list[tuple[str, Table]], pictures: list[tuple[str, str]]) -> str:
    parts = ["<h1>wasmlab bench</h1>", f'<p class="when">{html.escape(_title(results))}</p>']
    if results.plan.get("interrupted"):
        parts.append("<p><b>Interrupted: these are the runs so far.</b></p>")
    parts += [f'<img src="{file}" alt="{html.escape(title)}">' for file, title in pictures]
    for title, table in sections:
        parts += [f"<h2>{html.escape(title)}</h2>", as_html(table)]
    failures = _failures(results)
    if failures:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in failures)
        parts.append(f"<h2>Failures</h2><ul>{items}</ul>")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>wasmlab bench</title>'
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{_PAGE_STYLE}</style></head><body>{body}</body></html>\n'


def _draw_cold(results: Results) -> Figure:
    from wasmlab import plots

    return plots.cold_start(results)


def _draw_control_ratios(results: Results) -> Figure:
    from wasmlab import plots

    return plots.control_ratios(results)


def _draw_engine_ratios(results: Results) -> Figure:
    from wasmlab import plots

    return plots.engine_ratios(results)


def _draw_phases(results: Results) -> Figure:
    from wasmlab import plots

    return plots.start_phases(results)


def _draw_execution(results: Results) -> Figure:
    from wasmlab import plots

    frame = results.frame
    warm = frame[(frame["path"] == "local") & (frame["mode"] == "warm") & frame["ok"]]
    if warm["workload"].nunique() < 2:
        raise BenchmarkError("one workload alone is no comparison")
    return plots.execution(results)


def _draw_pod(results: Results) -> Figure:
    from wasmlab import plots

    return plots.pod_waterfall(results)


def _draw_where(results: Results) -> Figure:
    from wasmlab import plots

    if not any(row["path"] == "containerd" for row in results.rows):
        raise BenchmarkError("one path alone is no comparison")
    return plots.where_time_goes(results)


def _draw_burst(results: Results) -> Figure:
    from wasmlab import plots

    one = results.extra.get("burst")
    if not one:
        raise BenchmarkError("no burst was measured")
    return plots.burst(
        results, one["created_s"], one["succeeded_s"], what=f"hello on {one['engine']}, one node"
    )


def _draw_scale(name: str) -> Callable[[Results], Figure]:
    def draw(results: Results) -> Figure:
        from wasmlab import plots

        return getattr(plots, name)(results)

    return draw


_FIGURES: tuple[tuple[str, str, Callable[[Results], Figure]], ...] = (
    ("cold_start", "Distribution of start times per engine and mode", _draw_cold),
    ("execution", "Execution time per workload, engine beside engine", _draw_execution),
    ("control_ratios", "Starts as multiples of their controls", _draw_control_ratios),
    ("engine_ratios", "Engine beside engine, as ratios", _draw_engine_ratios),
    ("start_phases", "What a start is made of", _draw_phases),
    ("pod_waterfall", "Where one pod's time goes", _draw_pod),
    ("where_time_goes", "Where a Pod's time goes, on both paths", _draw_where),
    ("burst", "Pods written and succeeded during a burst", _draw_burst),
    ("scale_burst", "Bursts against their size", _draw_scale("scale_burst")),
    ("scale_density", "Memory and starts against live Pods", _draw_scale("scale_density")),
    ("scale_concurrency", "Throughput and latency against runs in flight", _draw_scale("scale_concurrency")),
)
