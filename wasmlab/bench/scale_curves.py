"""From the rows of the scale experiments to points and cost curves. Pure.

A point is one value of one block: a burst's seconds, a level's median. The runs inside of it are not independent, so it
is the points that curves are fitted through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wasmlab.bench.scale_fit import Curve, fit
from wasmlab.errors import BenchmarkError

if TYPE_CHECKING:
    import pandas as pd

    from wasmlab.bench.stats import Interval

_LEVEL = ("seconds", "per_second", "latency_ms", "p95_ms", "failed")
_LIVE = (
    "engine", "block", "level", "latency_ms", "load", "node_uss_mb", "node_pss_mb", "plane_uss_mb", "plane_pss_mb",
    "live", "failed",
)  # fmt: skip


def bursts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per burst: ``engine, block, load, seconds, per_second, failed``.

    ``seconds`` runs from the first API write to the last Succeeded seen. A burst of which a Pod failed has none: it did
    not do what the others did.
    """
    return _levels(frame, "burst", ("engine", "block", "load"), "node")


def in_flight(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per level of concurrency.

    Returns
    -------
    DataFrame
        ``path, engine, block, load, seconds, per_second`` (while all N were in flight) ``, latency_ms, p95_ms,
        failed``.
    """
    return _levels(frame, "concurrency", ("path", "engine", "block", "load"), None)


def live(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per level of density.

    Returns
    -------
    DataFrame
        ``engine, block, level, latency_ms`` (median of the starts timed there) ``, load`` (how many were alive then,
        the median) ``, node_uss_mb, node_pss_mb, plane_uss_mb, plane_pss_mb, live`` (how many were alive when memory
        was read) ``, failed``.
    """
    import pandas as pd

    own = frame[(frame["experiment"] == "density") & (frame["path"] == "node")]
    rows = []
    for (engine, block, mode), group in own.groupby(["engine", "block", "mode"], sort=False):
        good = group[group["ok"]]
        row = {"engine": engine, "block": int(block), "level": int(mode.rpartition("-")[2])}
        row |= {"failed": len(group) - len(good)}
        times = good["total_ns"].dropna().astype(float)
        row |= {"latency_ms": times.median() * 1e-6, "load": good["load"].astype(float).median()}
        for column in ("node_uss", "node_pss", "plane_uss", "plane_pss"):
            row[f"{column}_mb"] = group[f"{column}_bytes"].dropna().astype(float).median() * 1e-6
        row["live"] = group.loc[group["node_uss_bytes"].notna(), "load"].astype(float).median()
        rows.append(row)
    return pd.DataFrame(rows, columns=list(_LIVE))


def _levels(frame: pd.DataFrame, experiment: str, by: Sequence[str], path: str | None) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    own = frame[frame["experiment"] == experiment]
    if path is not None:
        own = own[own["path"] == path]
    rows = []
    for key, group in own.groupby(list(by), sort=False):
        row = dict(zip(by, key, strict=True))
        failed = int((~group["ok"].astype(bool)).sum())
        begun = group["begun_ns"].astype(float)
        ends = begun + group["total_ns"].astype(float)
        ended, took = len(group), (ends.max() - begun.min()) * 1e-9
        row |= {"load": int(row["load"]), "block": int(row["block"])}
        row["seconds"] = np.nan if failed else took
        if experiment == "concurrency" and len(group) > row["load"]:
            # Until the last one was asked for, N were in flight; behind it they become fewer. Each but the first N was
            # asked for because one had ended.
            ended, took = len(group) - row["load"], (begun.max() - begun.min()) * 1e-9
        times = group.loc[group["ok"], "total_ns"].dropna().astype(float) * 1e-6
        row["per_second"] = np.nan if failed or not took > 0 else ended / took
        row |= {"latency_ms": times.median(), "p95_ms": times.quantile(0.95), "failed": failed}
        rows.append(row)
    return pd.DataFrame(rows, columns=[*by, *_LEVEL])


def curve(points: pd.DataFrame, cost: str, size: str = "load") -> Curve | None:
    """Fit a cost curve through points; None if there are fewer than two sizes.

    Parameters
    ----------
    points : DataFrame
        Of one engine (and path), from `bursts`, `in_flight` or `live`.
    cost, size : str
        Its columns; points without a value are left out.
    """
    known = points[[size, cost, "block"]].dropna().astype(float)
    known = known[known[cost] > 0]
    # What a process has not given back since the block before is not this block's.
    blocks = known["block"].tolist() if cost.endswith("_mb") else None
    try:
        return fit(known[size].to_numpy(), known[cost].to_numpy(), groups=blocks)
    except BenchmarkError:
        return None


def curves(frame: pd.DataFrame) -> dict[str, Curve]:
    """Return every curve of a measurement by name, e.g. ``"burst wasmtime, seconds"``; what is missing is left out."""
    found: dict[str, Curve | None] = {}
    if not (points := bursts(frame)).empty:
        for engine, own in points.groupby("engine", sort=False):
            found[f"burst {engine}, seconds"] = curve(own, "seconds")
    if not (points := live(frame)).empty:
        for engine, own in points.groupby("engine", sort=False):
            found[f"density {engine}, latency_ms"] = curve(own, "latency_ms")
            for column in ("node_uss_mb", "node_pss_mb", "plane_uss_mb", "plane_pss_mb"):
                found[f"density {engine}, {column}"] = curve(own, column, "live")
    if not (points := in_flight(frame)).empty:
        for (path, engine), own in points.groupby(["path", "engine"]):
            for column in ("per_second", "latency_ms"):
                found[f"concurrency {path} {engine}, {column}"] = curve(own, column)
    return {name: one for name, one in found.items() if one is not None}


def in_words(one: Curve, *, unit: str = "", factor: float = 1.0, each: str = " for each more") -> str:
    """Say what a curve says: what one more costs, and where that changes.

    Parameters
    ----------
    unit : str
        Of the cost times `factor`, e.g. ``"ms"`` with ``factor=1000`` for seconds.
    each : str
        Empty where it is said elsewhere.
    """

    before = f"{cost(one.slope, unit, factor)}{each}"
    if one.knee is None or one.slope_after is None:
        return f"{before}; {one.why_not}"
    return f"{before} up to a {knee(one)}, then {cost(one.slope_after, unit, factor)}"


def cost(slope: Interval, unit: str = "", factor: float = 1.0) -> str:
    """Return what one more costs, with its interval; what may as well be nothing is not given three digits."""
    value, low, high = (one * factor for one in (slope.value, slope.low, slope.high))
    if low != low:
        return f"{value:.3g} [?] {unit}".rstrip()  # two points have no interval
    known = "no sure change" if low <= 0 <= high else f"{value:.3g}"
    return f"{known} [{low:.3g}, {high:.3g}] {unit}".rstrip()


def knee(one: Curve) -> str:
    """Name the knee with its interval, or say that there is none."""
    if one.knee is None:
        return one.why_not
    low, value, high = (size_text(size) for size in (one.knee.low, one.knee.value, one.knee.high))
    return f"knee at {value} [{low}, {high}]"


def size_text(size: float) -> str:
    """Return a size between measured ones with the digits that it deserves."""
    return f"{size:,.0f}" if size >= 10 else f"{size:.2g}"
