"""What results say, in words and rows. Pure: no number is written here, all are computed from the data.

A sentence that claims a difference is only made if the 95 % interval of the ratio of medians excludes 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wasmlab.bench import stats
from wasmlab.bench.phases import ENGINE_PHASES, LABELS
from wasmlab.engines import names as known_engines

if TYPE_CHECKING:
    import pandas as pd

    from wasmlab.bench.stats import Interval
    from wasmlab.bench.store import Results

PATHS = ("local", "node", "containerd")
WARM = {"path": "local", "mode": "warm"}
_MODES = ("cold", "cached", "warm")


def times(results: Results, value: str, **arm: str) -> pd.Series:
    """Return the measured values of one arm, in nanoseconds; failed runs and the warm-up are left out.

    Parameters
    ----------
    value : str
        A column, e.g. ``"first_byte_ns"``.
    **arm : str
        Any of ``path``, ``engine``, ``mode``, ``workload``.
    """
    return stats.arm_rows(results.frame, **arm)[value].dropna().astype(float)


def only(results: Results, **arm: str) -> Results:
    """Return the same results, cut down to the rows of one arm (or of several, if `arm` leaves something open)."""
    rows = [row for row in results.rows if all(row[key] == value for key, value in arm.items())]
    return dataclasses.replace(results, rows=rows)


def on_paths(results: Results, *paths: str) -> Results:
    """Return the same results, cut down to the rows of some paths."""
    return dataclasses.replace(results, rows=[row for row in results.rows if row["path"] in paths])


def ratio(results: Results, value: str, above: dict[str, str], below: dict[str, str]) -> Interval:
    """Return how many times longer one arm takes than another, both drawn in the same blocks."""
    return stats.ratio(results.frame, above, below, value)


def starts(results: Results, workload: str = "hello") -> pd.DataFrame:
    """Return median, interval and p95 of the time to the first byte for every arm, in milliseconds."""
    frame = results.frame
    frame = frame[(frame["workload"] == workload) & (frame["path"] != "control")]
    table = stats.summarize(frame, "first_byte_ns", by=("path", "engine", "mode"))
    order = {name: place for place, name in enumerate((*PATHS, *_MODES, *known_engines(), "runc"))}
    table = table.sort_values(["path", "mode", "engine"], key=lambda column: column.map(order))
    return table[["path", "engine", "mode", "n", "failed", "median", "low", "high", "p95"]]


def about_failures(results: Results) -> str:
    """Say in one line how many runs failed, and what the first one said."""
    failed = results.failures
    if not failed:
        return f"none of {len(results.rows)} runs failed"
    first = failed[0]
    arm = "/".join(str(first[key]) for key in ("path", "engine", "mode", "workload"))
    return f"{len(failed)} of {len(results.rows)} runs failed; the first was {arm}: {first['error']}"


def about_starts(results: Results, engines: Sequence[str], workload: str = "hello") -> list[str]:
    """Say what compiling ahead, a running engine, and Kubernetes each do to the time to the first byte."""
    sentences = []
    for engine in engines:
        arm = {"engine": engine, "workload": workload}
        cold, cached, warm = ({"path": "local", "mode": mode, **arm} for mode in ("cold", "cached", "warm"))
        if any(times(results, "first_byte_ns", **one).empty for one in (cold, cached, warm)):
            sentences.append(
                f"On **{engine}** not every kind of start succeeded, so there is nothing to compare."
            )
            continue
        compiling = ratio(results, "first_byte_ns", cold, cached)
        running = ratio(results, "first_byte_ns", cached, warm)
        text = (
            f"On **{engine}**, {_sooner(compiling, 'compiling ahead')}; "
            f"on top of that, {_sooner(running, 'a running engine with an idle worker')}."
        )
        pod, local = (
            times(results, "first_byte_ns", path=path, mode="warm", **arm) for path in ("node", "local")
        )
        if len(pod) and len(local):
            rest = 1 - local.median() / pod.median()
            text += (
                f" As a Pod this warm start takes {pod.median() / 1e6:.1f} ms: "
                f"{local.median() / 1e6:.2f} ms of that is the sandbox; the rest, {rest:.0%}, "
                "is the API server, the scheduler and the node agent."
            )
        sentences.append(text)
    return sentences


def about_paths(results: Results, engines: Sequence[str], workload: str = "hello") -> list[str]:
    """Say what an ordinary Pod of path 2 costs, beside path 1 and beside runc, and where its time goes."""
    sentences = []
    for engine in engines:
        first, second, container = (
            {"path": path, "mode": mode, "engine": who, "workload": workload}
            for path, mode, who in (
                ("node", "warm", engine),
                ("containerd", "cached", engine),
                ("containerd", "cached", "runc"),
            )
        )
        if any(times(results, "first_byte_ns", **one).empty for one in (first, second, container)):
            sentences.append(f"On **{engine}** there are not Pods of both paths to compare.")
            continue
        text = (
            f"On **{engine}**, {_longer(ratio(results, 'first_byte_ns', second, first), 'path 2', 'path 1')}"
        )
        text += f"; {_longer(ratio(results, 'first_byte_ns', container, second), 'runc', 'the module')}."
        sentences.append(text)
    own = on_paths(results, "containerd").frame
    own = own[own["ok"] & (own["mode"] == "cached") & (own["workload"] == workload)]
    after = ((own["status_observed_ns"] - own["exited_ns"]) / own["status_observed_ns"]).dropna()
    if len(after):
        sentences.append(
            f"On path 2, {after.median():.0%} of the time from the API write to the observed Succeeded is spent "
            "*after* the program has ended: the kubelet asks containerd for news once a second. "
            "What runs does not matter there."
        )
    return sentences


def _longer(interval: Interval, what: str, than: str) -> str:
    if interval.low > 1:
        return (
            f"{what} needs **{interval.value:.1f} times** as long to the first byte as {than} "
            f"({interval.low:.1f} to {interval.high:.1f})"
        )
    if interval.high < 1:
        return f"{what} is there sooner than {than}, in {interval.value:.0%} of its time"
    return f"between {what} and {than} there is no difference beyond chance"


def task_times(results: Results) -> Results:
    """Return the Pods of path 2 with ``total_ns`` cut down to containerd's task: from *created* to its end.

    It is what an engine and runc can be compared by: the same two events for both, and none of the kubelet's time.
    """
    rows = [
        {**row, "total_ns": row["exited_ns"] - row["created_ns"]}
        for row in on_paths(results, "containerd").rows
        if row["ok"] and row.get("exited_ns") and row.get("created_ns")
    ]
    return dataclasses.replace(results, rows=rows)


def about_phases(results: Results, engines: Sequence[str], mode: str = "cold") -> list[str]:
    """Say which phase takes most of a local start, by the medians of all phases."""
    sentences = []
    for engine in engines:
        medians = {
            phase: values.median()
            for phase in ENGINE_PHASES
            if not (values := times(results, f"{phase}_ns", path="local", engine=engine, mode=mode)).empty
        }
        if medians:
            largest = max(medians, key=lambda phase: medians[phase])
            share = medians[largest] / sum(medians.values())
            sentences.append(
                f"On **{engine}** the largest part of a {mode} start is to *{LABELS[largest]}*: {share:.0%} of it."
            )
    return sentences


def _sooner(interval: Interval, what: str) -> str:
    if interval.low > 1:
        return (
            f"{what} makes the first byte come **{interval.value:.1f} times** sooner "
            f"({interval.low:.1f} to {interval.high:.1f})"
        )
    return f"{what} makes no difference beyond chance here"


def against_control(
    results: Results, engines: Sequence[str], workload: str = "hello"
) -> list[dict[str, str]]:
    """Compare every start with starting native processes in the same minutes."""
    rows = []
    for engine in engines:
        for mode in _MODES:
            row = {"engine": engine, "start": mode}
            for control, label in (("true", "/bin/true"), ("python", "Python")):
                found = ratio(
                    results,
                    "total_ns",
                    {"path": "local", "engine": engine, "mode": mode, "workload": workload},
                    {"path": "control", "workload": control},
                )
                row[f"times as long as {label}"] = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
            rows.append(row)
    return rows


def execution_ratios(
    results: Results, engines: Sequence[str], workloads: Sequence[str]
) -> dict[str, Interval]:
    """Return, for every workload that both ran, how many times longer the last engine takes than the first."""
    found = {}
    for name in workloads:
        above, below = ({**WARM, "engine": engine, "workload": name} for engine in (engines[-1], engines[0]))
        if not (times(results, "total_ns", **above).empty or times(results, "total_ns", **below).empty):
            found[name] = ratio(results, "total_ns", above, below)
    return found


def components(results: Results, engine: str = "wasmtime") -> list[dict[str, str]]:
    """Return one row per kernel that was measured as a core module and as a component: times and their ratio.

    Only one engine is named: wasmer has no component model, so there is nothing to compare it with.
    """
    rows = []
    for name in dict.fromkeys(row["workload"] for row in results.rows):
        kernel, _, form = name.partition("/")
        core, component = ({**WARM, "engine": engine, "workload": one} for one in (kernel, name))
        if form != "component" or any(times(results, "total_ns", **one).empty for one in (core, component)):
            continue
        found = ratio(results, "total_ns", component, core)
        rows.append(
            {
                "kernel": kernel,
                "core module, ms": f"{times(results, 'total_ns', **core).median() / 1e6:.2f}",
                "component, ms": f"{times(results, 'total_ns', **component).median() / 1e6:.2f}",
                "times as long": f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]",
            }
        )
    return rows


def programs(
    results: Results, names: Sequence[str], engines: Sequence[str], phases: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row per program and engine: the medians of some phases and of the whole, in milliseconds."""
    rows = []
    for name in names:
        for engine in engines:
            arm = {**WARM, "engine": engine, "workload": name}
            columns = {
                phase: times(results, f"{phase}_ns", **arm).median() / 1e6 for phase in (*phases, "total")
            }
            if columns["total"] == columns["total"]:
                rows.append({"program": name, "engine": engine, **columns})
    return rows


def about_execution(ratios: dict[str, Interval], engines: Sequence[str]) -> list[str]:
    """Say which engine is faster on what, as far as the intervals allow."""
    first, second = engines[0], engines[-1]
    faster = {
        first: [name for name, interval in ratios.items() if interval.low > 1],
        second: [name for name, interval in ratios.items() if interval.high < 1],
    }
    decided = faster[first] + faster[second]
    even = [name for name in ratios if name not in decided]
    sentences = [f"**{engine}** is faster on {phrase(names)}." for engine, names in faster.items() if names]
    if even:
        sentences.append(f"There is no difference beyond chance on {phrase(even)}.")
    return sentences


def phrase(items: Sequence[str], word: str = "and") -> str:
    """Write a list as a phrase: ``a, b and c``."""
    return f"{', '.join(items[:-1])} {word} {items[-1]}" if len(items) > 1 else "".join(items)


def capabilities(engines: Sequence[str]) -> list[dict[str, str]]:
    """Return one row per capability: what each engine can do, and why not."""
    from wasmlab import engines as known

    able: dict[str, Any] = {engine: known.get(engine).capabilities for engine in engines}
    rows = []
    for name in vars(able[engines[0]]):
        if name in ("notes", "hidden_phases"):
            continue
        row = {"capability": name.replace("_", " ")}
        row |= {engine: "yes" if getattr(has, name) else "no" for engine, has in able.items()}
        notes = {engine: has.notes[name] for engine, has in able.items() if name in has.notes}
        same = len(set(notes.values())) == 1 and len(notes) == len(able)
        row["why, or what is special"] = (
            next(iter(notes.values()))
            if same
            else "; ".join(f"{engine}: {why}" for engine, why in notes.items())
        )
        rows.append(row)
    return rows
