"""What results say, as tables of texts: headline figures, arms, ratios, cost curves, conditions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wasmlab.bench import noise, ratios, scale_curves, stats
from wasmlab.bench.plan import Arm
from wasmlab.bench.store import Results
from wasmlab.report.render import Table

if TYPE_CHECKING:
    import pandas as pd


def ordinary(results: Results) -> Results:
    """Return the same results without the rows of scale experiments."""
    return replace(results, rows=[row for row in results.rows if not row.get("experiment")])


def summary_table(results: Results) -> pd.DataFrame:
    """Return medians and p95 of every arm in milliseconds, with intervals: what the report shows.

    Scale experiments are not among them: they have curves (`scale_table`).
    """
    frame = ordinary(results).frame
    table = stats.summarize(frame, "total_ns")
    if table.empty:  # nothing but scale experiments
        return table
    first = stats.summarize(frame, "first_byte_ns")
    table["first_byte"] = first["median"]
    return table.sort_values(
        ["path", "workload", "mode", "engine"],
        key=lambda column: column.map(_RANKS.get(column.name, _by_size)),
        ignore_index=True,
    )


def _rank(*order: str) -> Callable[[str], int]:
    places = {name: place for place, name in enumerate(order)}
    return lambda name: places.get(name, len(places))


# Rows were measured in random order; they are read in this one.
_RANKS: dict[str, Callable[[str], int]] = {
    "path": _rank("node", "containerd", "local", "control"),
    "mode": _rank("cold", "cached", "warm", "exec"),
    "engine": _rank(
        "wasmtime",
        "wasmtime-runner",
        "wasmtime-winch",
        "wasmer",
        "wasmer-native",
        "wasmer-singlepass",
        "wasmer-sdk",
        "runc",
        "native",
    ),
}


def _place(one: ratios.Ratio) -> tuple[Any, ...]:
    path, engine, mode, workload = one.above
    return _RANKS["path"](path), _by_size(workload), _RANKS["mode"](mode), _RANKS["engine"](engine), engine


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
                "" if single else _span(one["low"], one["high"], one["n"], digits),
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
                _span(row["low"], row["high"], row["n"], digits),
                f"{row['p95']:.{digits}f}",
                "" if row["first_byte"] != row["first_byte"] else f"{row['first_byte']:.{digits}f}",
            )
        else:
            values = ("–", "–", "–", "–")
        rows.append((name, *values, str(row["n"]), str(row["failed"]) if row["failed"] else ""))
    return ("arm", "median ms", "95 % interval", "p95 ms", "first byte ms", "n", "failed"), rows


def ratio_table(results: Results) -> Table:
    """Return every other engine over wasmtime, and every start over its control; arms are drawn in the same blocks."""
    frame = ordinary(results).frame
    rows = [
        (
            f"{one.above.engine} / {one.below.engine}, {one.above.path} {one.above.mode} {one.above.workload}",
            one.interval,
        )
        for one in sorted(ratios.between_engines(frame), key=_place)
    ]
    for one in sorted(ratios.against_controls(frame), key=_place):
        control = "runc" if one.below.path == "containerd" else "native /bin/true"
        rows.append((f"{' '.join(one.above)} / {control}", one.interval))
    texts = [
        (name, f"{interval:.2f}" + ("" if interval.n >= stats.FEWEST else " (range)"), str(interval.n))
        for name, interval in rows
    ]
    return ("ratio of medians", "value [95 % interval]", "n"), texts


def engine_table(results: Results, workloads: Collection[str] = ()) -> Table:
    """Return wasmtime beside each other engine: what both took for the same, and the ratio, all with intervals.

    Parameters
    ----------
    workloads : collection of str
        Only these; all that both ran if empty.
    """
    pairs = sorted(ratios.between_engines(ordinary(results).frame), key=_place)
    times: dict[Arm, Any] = {
        Arm(row["path"], row["engine"], row["mode"], row["workload"]): row
        for row in summary_table(results).to_dict("records")
    }

    def cell(arm: Arm) -> str:
        row = times[arm]
        digits = _digits(row["median"])
        span = _span(row["low"], row["high"], row["n"], digits).replace(" (range)", ", range")
        return f"{row['median']:.{digits}f} ({span})"

    rows = [
        (
            f"{one.above.workload}, {one.above.mode}, {_PLACES[one.above.path]}",
            cell(one.below),
            f"{one.above.engine} {cell(one.above)}",
            f"{one.interval:.2f}",
            str(one.interval.n),
        )
        for one in pairs
        if not workloads or one.above.workload in workloads
    ]
    return ("start", "wasmtime ms (95 %)", "other engine ms (95 %)", "ratio [95 %]", "n"), rows


_PLACES = {"local": "sandbox", "node": "Pod", "containerd": "Pod through containerd"}

# Experiment and cost of a curve -> how a table calls it, the unit of one more, and the factor to it.
_CURVES = {
    ("burst", "seconds"): ("duration of a burst, per Pod", "ms", 1000.0),
    ("density", "latency_ms"): ("start of the next Pod, per live Pod", "ms", 1.0),
    ("density", "node_uss_mb"): ("private memory of the node, per live Pod", "MB", 1.0),
    ("density", "node_pss_mb"): ("proportional memory of the node, per live Pod", "MB", 1.0),
    ("density", "plane_uss_mb"): ("private memory of the control plane, per live Pod", "MB", 1.0),
    ("density", "plane_pss_mb"): ("proportional memory of the control plane, per live Pod", "MB", 1.0),
    ("concurrency", "per_second"): ("throughput, per run in flight", "1/s", 1.0),
    ("concurrency", "latency_ms"): ("latency, per run in flight", "ms", 1.0),
}


def scale_table(results: Results) -> Table:
    """Return one row per cost curve of the scale experiments: what one more costs, and the knee."""
    rows = []
    for name, one in scale_curves.curves(results.frame).items():
        subject, _, column = name.partition(", ")
        experiment, _, arm = subject.partition(" ")
        words, unit, factor = _CURVES[experiment, column]
        beyond = "" if one.slope_after is None else scale_curves.cost(one.slope_after, unit, factor)
        cost = scale_curves.cost(one.slope, unit, factor)
        rows.append((f"{words}, {arm}", cost, scale_curves.knee(one), beyond, str(one.n)))
    return ("cost curve", "each more adds", "knee", "beyond it", "points"), rows


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
        said = []
        if entry.get("load_1min_before") is not None:
            said.append(f"load {entry['load_1min_before']:g} before, {entry['load_1min_after']:g} after")
        if busy is not None:
            said.append(f"CPU {busy:.0%} busy, {steal:.1%} stolen by the host")
        said.append(noise.summary([entry]))
        rows.append(("meanwhile", "; ".join(filter(None, said))))
    return ("environment", ""), rows


def _span(low: float, high: float, n: int, digits: int) -> str:
    text = f"{low:.{digits}f} to {high:.{digits}f}"
    return text if n >= stats.FEWEST else f"{text} (range)"


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
