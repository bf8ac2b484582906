"""Turn a directory of results into something to read: tables as Markdown and HTML, figures as PNG."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.bench import stats
from wasmlab.bench.store import Results, load_all
from wasmlab.errors import BenchmarkError
from wasmlab.paths import atomic_write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


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
            figure = draw(results)
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


def summary_table(results: Results) -> pd.DataFrame:
    """Return medians and p95 of every arm in milliseconds, with intervals: what the report shows."""
    frame = results.frame
    table = stats.summarize(frame, "total_ns")
    first = stats.summarize(frame, "first_byte_ns")
    table["first_byte"] = first["median"]
    return table.sort_values(
        ["path", "workload", "mode", "engine"],
        key=lambda column: column.map(_RANKS.get(column.name, _by_size)),
        ignore_index=True,
    )


# Rows were measured in random order; they are read in this one.
_RANKS: dict[str, Callable[[str], Any]] = {
    "path": {"node": 0, "containerd": 1, "local": 2, "control": 3}.get,
    "mode": {"cold": 0, "cached": 1, "warm": 2, "exec": 3}.get,
    "engine": {"wasmtime": 0, "wasmer": 1, "runc": 2, "native": 3}.get,
}


def _by_size(workload: str) -> int:
    from wasmlab.modules import workloads

    names = list(workloads.catalogue())
    return names.index(workload) if workload in names else len(names)


def headline_table(results: Results) -> Table:
    """Return the headline figures as a table of texts."""
    rows = []
    for one in results.extra.get("headlines", ()):
        digits = _digits(one["median"])
        single = one["n"] == 1
        rows.append(
            (
                one["name"],
                f"{one['median']:.{digits}f} {one['unit']}",
                "" if single else f"{one['low']:.{digits}f} to {one['high']:.{digits}f}",
                "" if one["p95"] is None else f"{one['p95']:.{digits}f}",
                str(one["n"]),
                _aim(one),
            )
        )
    return ("figure", "median", "95 % interval", "p95", "n", "aim"), rows


def arm_table(results: Results) -> Table:
    """Return one row of texts per arm."""
    rows = []
    for row in summary_table(results).to_dict("records"):
        name = f"{row['path']} {row['engine']} {row['mode']} {row['workload']}"
        if row["n"]:
            digits = _digits(row["median"])
            values = (
                f"{row['median']:.{digits}f}",
                f"{row['low']:.{digits}f} to {row['high']:.{digits}f}",
                f"{row['p95']:.{digits}f}",
                "" if row["first_byte"] != row["first_byte"] else f"{row['first_byte']:.{digits}f}",
            )
        else:
            values = ("–", "–", "–", "–")
        rows.append((name, *values, str(row["n"]), str(row["failed"]) if row["failed"] else ""))
    return ("arm", "median ms", "95 % interval", "p95 ms", "first byte ms", "n", "failed"), rows


def ratio_table(results: Results) -> Table:
    """Return wasmer / wasmtime for every path, mode and workload, and pods over controls."""
    frame = results.frame
    frame = frame[frame["ok"] & frame["total_ns"].notna()]
    rows = []
    for (path, mode, workload), group in frame.groupby(["path", "mode", "workload"], sort=False):
        sides = {
            name: group.loc[group["engine"] == name, "total_ns"].astype(float)
            for name in ("wasmer", "wasmtime")
        }
        if all(len(side) for side in sides.values()):
            ratio = stats.ratio_of_medians(sides["wasmer"], sides["wasmtime"])
            rows.append((f"wasmer / wasmtime, {path} {mode} {workload}", f"{ratio:.2f}", str(ratio.n)))
    control = frame[(frame["path"] == "control") & (frame["workload"] == "true")]["total_ns"].astype(float)
    if len(control):
        for (path, engine, mode), group in frame[frame["workload"] == "hello"].groupby(
            ["path", "engine", "mode"], sort=False
        ):
            ratio = stats.ratio_of_medians(group["total_ns"].astype(float), control)
            rows.append((f"{path} {engine} {mode} hello / native /bin/true", f"{ratio:.2f}", str(ratio.n)))
    return ("ratio of medians", "value [95 % interval]", "n"), rows


def conditions_table(results: Results) -> Table:
    """Return where it was measured and what else the machine was doing."""
    rows = [
        (
            key.replace("_", " "),
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value),
        )
        for key, value in results.environment.items()
        if value is not None
    ]
    for entry in results.conditions:
        rows.append(("measured", f"{entry['started_at']} to {entry['ended_at']}"))
        busy, steal = entry.get("busy_share"), entry.get("steal_share")
        load = f"load {entry['load_1min_before']:g} before, {entry['load_1min_after']:g} after"
        if busy is not None:
            load += f"; CPU {busy:.0%} busy, {steal:.1%} stolen by the host"
        rows.append(("meanwhile", load))
    return ("environment", ""), rows


def _digits(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 10 else 2


def _aim(one: dict[str, Any]) -> str:
    if one["target"] is None:
        return ""
    sign = "≥" if one["at_least"] else "≤"
    text = f"{sign} {one['target']:.3g}"
    if one.get("p95_target") is not None:
        text += f", p95 ≤ {one['p95_target']:.3g}"
    return f"{text} {'✓' if one['met'] else '✗'}"


def _sections(results: Results) -> list[tuple[str, Table]]:
    found = [
        ("Headline figures", headline_table(results)),
        ("Every arm", arm_table(results) if results.rows else (("arm",), [])),
        ("Ratios", ratio_table(results) if results.rows else (("ratio",), [])),
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


def as_html(table: Table) -> str:
    """Render a table as HTML."""
    head, rows = table
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _draw_cold(results: Results) -> Figure:
    from wasmlab import plots

    return plots.cold_start(results)


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


_FIGURES: tuple[tuple[str, str, Callable[[Results], Figure]], ...] = (
    ("cold_start", "Distribution of start times per engine and mode", _draw_cold),
    ("execution", "Execution time per workload, engine beside engine", _draw_execution),
    ("start_phases", "What a start is made of", _draw_phases),
    ("pod_waterfall", "Where one pod's time goes", _draw_pod),
    ("where_time_goes", "Where a Pod's time goes, on both paths", _draw_where),
    ("burst", "Pods written and succeeded during a burst", _draw_burst),
)
